"""Read the header, the metadata and the pixels of a file."""
