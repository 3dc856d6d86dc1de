"""Networks of machines: the private one between them, and those of the host."""
