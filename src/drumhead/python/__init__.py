"""Python projects: lock files, wheels, bytecode, and a scan of the syntax."""
