"""The spec of a machine: parse the values that people give, choose the command, and check both against the image."""
