"""ROFS, the read-only file system of OSv, version 1: what it looks like, how it is written, how layers become one."""
