"""Maintenance of the blobs: remove unreferenced ones, and find and repair damage."""
