"""The embedded backend of storage: blobs in a directory."""

from safelight.storage.directory.store import DirectoryStore

__all__ = ["DirectoryStore"]
