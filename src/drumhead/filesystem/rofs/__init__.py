"""ROFS version 1, the read-only file system of OSv: its layout, a writer, a reader, and the union of layers."""
