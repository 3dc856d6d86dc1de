"""From a file's bytes to its header, its metadata and its pixels: one module for each format that needs care."""
