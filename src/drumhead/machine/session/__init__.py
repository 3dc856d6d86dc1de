"""Programs beside the command (drumhead exec) and the console, joined to a terminal."""
