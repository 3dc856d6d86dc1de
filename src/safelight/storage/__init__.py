"""Storage: immutable blobs, named by the SHA-256 of their bytes."""
