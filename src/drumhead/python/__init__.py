"""Python projects: their lock file, wheels, bytecode, and a scan of their syntax."""
