"""Write trees as tar archives and read them: the archives of packages, and what mksquashfs reads."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, cast

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.tree import CHUNK, MAX_ID, Tree, clean_path, directory, regular, symlink, within_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drumhead.tree import Entry, Spool


def write_tar(tree: Tree, out: IO[bytes], written: Callable[[int], None] | None = None) -> int:
    """Write `tree` as a canonical tar: sorted, owners by number, times 0. Equal trees give equal bytes.

    Return how many bytes it has. `written` is called with the number of files and links written so far.
    """
    count = 0
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in tree:
            if written and entry.kind != "directory":
                count += 1
                written(count)
            info = tarfile.TarInfo(path)
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            match entry.kind:
                case "directory":
                    info.type = tarfile.DIRTYPE
                    archive.addfile(info)
                case "symlink":
                    info.type = tarfile.SYMTYPE
                    info.linkname = entry.target
                    archive.addfile(info)
                case "file":
                    info.size = entry.size
                    archive.addfile(info, cast("IO[bytes]", _Chunks(entry.chunks())))
    return archive.offset


class _Chunks:
    """A file that yields the bytes of `chunks`."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, and none at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        read, self._rest = self._rest[:size], self._rest[size:]
        return bytes(read)


def read_tar(source: IO[bytes], limit: int, spool: Spool | None = None) -> Tree:
    """Read a tar stream of at most `limit` bytes into a tree. Files that are larger than a chunk go into `spool`.

    Names of owners and times are dropped, and hard links become copies. Raises UNVERIFIED if the stream is no tar or if
    the stream, the copies, and the directories that only paths name exceed the limit; UNSUPPORTED for files that no
    layer can hold, such as devices and files with holes.
    """
    tree = Tree()
    try:
        limited: Any = _Limited(source, limit)  # tarfile only calls read on a stream
        with tarfile.open(fileobj=limited, mode="r|") as archive:
            for info in archive:
                path = within_limits(clean_path(info.name))
                for parent in tree.missing_parents(path):
                    limited.count(tarfile.BLOCKSIZE + len(parent))  # as if the archive had a header for it
                if info.isdir():
                    tree.add(path, _owned(directory(info.mode & 0o7777), info))
                elif info.issym():
                    tree.add(path, _owned(symlink(within_limits(info.linkname)), info))
                elif info.islnk():
                    entry = tree[clean_path(info.linkname)]
                    limited.count(entry.size)
                    tree.add(path, entry)
                elif info.isreg() and not info.issparse():  # holes would not count towards the limit
                    contents = archive.extractfile(info)
                    assert contents is not None
                    mode = info.mode & 0o7777
                    entry = spool.add(contents, mode) if spool and info.size > CHUNK else regular(contents.read(), mode)
                    tree.add(path, _owned(entry, info))
                else:
                    raise DrumheadError(
                        ErrorCode.UNSUPPORTED,
                        f"/{path} is a device, a pipe or a file with holes, which a layer cannot hold",
                    )
    except (tarfile.TarError, KeyError, ValueError, RecursionError) as error:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"not a readable tar archive: {error}") from error
    return tree


def _owned(entry: Entry, info: tarfile.TarInfo) -> Entry:
    """Return `entry` with the owner of a member of an archive. Raises UNSUPPORTED if the number is out of range."""
    if not (info.uid or info.gid):
        return entry
    if not (0 <= info.uid < MAX_ID and 0 <= info.gid < MAX_ID):
        raise DrumheadError(
            ErrorCode.UNSUPPORTED, f"/{info.name} belongs to a user or group with a number that is out of range"
        )
    return replace(entry, uid=info.uid, gid=info.gid)


class _Limited:
    """A stream that raises an error once more than its limit was read, such as from a decompression bomb."""

    def __init__(self, source: IO[bytes], limit: int) -> None:
        self._source = source
        self._limit = limit
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        """Read from the stream. Raises UNVERIFIED beyond the limit."""
        data = self._source.read(size)
        self.count(len(data))
        return data

    def count(self, size: int) -> None:
        """Count bytes that were read or copied. Raises UNVERIFIED beyond the limit."""
        self._read += size
        if self._read > self._limit:
            raise DrumheadError(
                ErrorCode.UNVERIFIED, f"the archive unpacks to more than {self._limit} bytes; nothing is kept"
            )
