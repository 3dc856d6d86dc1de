"""The blob store: immutable files named by the SHA-256 of their bytes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.records import Blob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drumhead.home import Home


TEMPORARY = ".new-"
"""How the names of temporary files begin."""
ABANDONED = 3600.0
"""Seconds after which nobody writes to a temporary file any more."""


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block succeeds and is deleted when it fails.

    Only the owner can read the temporary file; the final file has `mode` without what the umask takes away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """Return the umask of this process, without changing it for a moment as os.umask would for all threads."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is created if it does not exist. Other commands wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Blobs:
    """The blobs of one home. Several processes may use it at once, because a rename makes only complete blobs
    visible.
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    def path(self, digest: str) -> Path:
        """Return the path of a blob, which need not exist."""
        return self._home.blobs / digest

    def find(self, digest: str) -> Path:
        """Return the path of an existing blob. Raises NOT_FOUND."""
        path = self.path(digest)
        if not path.is_file():
            raise DrumheadError(ErrorCode.NOT_FOUND, f"the store has no blob {digest}; compose or pull again")
        return path

    def read(self, digest: str) -> bytes:
        """Return a blob's verified bytes. Raises NOT_FOUND, UNVERIFIED."""
        contents = self.find(digest).read_bytes()
        if hashlib.sha256(contents).hexdigest() != digest:
            raise _damaged(self.path(digest))
        return contents

    def verified(self, digest: str) -> Path:
        """Return the path of a blob after verifying it. Raises NOT_FOUND, UNVERIFIED."""
        path = self.find(digest)
        if file_digest(path) != digest:
            raise _damaged(path)
        return path

    def put(self, contents: bytes) -> Blob:
        """Store bytes. Leave an existing blob as it is."""
        digest = hashlib.sha256(contents).hexdigest()
        path = self.path(digest)
        if not path.is_file():
            with replacing(path) as temporary:
                temporary.write_bytes(contents)
        return Blob(digest=digest, size=len(contents))

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Yield a file to write. It becomes a blob (``writing.blob``) when the block succeeds."""
        self._home.blobs.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._home.blobs, prefix=TEMPORARY)
        os.close(handle)
        writing = Writing(Path(name))
        try:
            yield writing
            writing.blob = Blob(digest=file_digest(writing.path), size=writing.path.stat().st_size)
            writing.path.chmod(0o644)
            writing.path.replace(self.path(writing.blob.digest))
        finally:
            writing.path.unlink(missing_ok=True)

    def sweep(self, keep: set[str]) -> int:
        """Remove every blob that is not in `keep`, and temporary files that a killed command has left.

        Return the number of bytes freed. The caller holds the home's lock.
        """
        freed = 0
        for path in self._home.blobs.glob("*") if self._home.blobs.is_dir() else ():
            with suppress(FileNotFoundError):  # a temporary file became a blob
                about = path.stat()
                if path.name.startswith(".") and time.time() - about.st_mtime < ABANDONED:
                    continue
                if path.name not in keep:
                    path.unlink()
                    freed += about.st_size
        return freed


def _damaged(path: Path) -> DrumheadError:
    return DrumheadError(ErrorCode.UNVERIFIED, f"{path} is damaged; delete it, then compose or pull again")


class Writing:
    """A blob that is being written to `path`. `blob` is set at the end of the block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blob: Blob | None = None
