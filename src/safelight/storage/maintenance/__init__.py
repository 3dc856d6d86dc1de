"""Maintenance of the blobs: remove what nobody refers to, find damage and mend it."""
