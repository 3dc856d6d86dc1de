"""`safelight up`: every service on this machine, as processes or as machines."""
