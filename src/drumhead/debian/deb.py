"""Read the files of a Debian package (deb(5)), an ar archive with a compressed tar. Nothing in it is executed."""

from __future__ import annotations

import gzip
import io
import lzma
import posixpath
import tarfile
import zlib
from typing import TYPE_CHECKING

import zstandard

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.tree import USR_MERGED, Tree, clean_path, directory, regular, symlink, within_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60
MAX_UNPACKED = 2 << 30
"""The limit in bytes for a package's files, and for the tar that contains them."""
MAX_ENTRIES = 500_000
_WINDOW = 128 << 20
_CHUNK = 1 << 20
_TOO_MUCH = "it unpacks to more bytes or files than any package of Debian has"


def read_deb(path: Path) -> tuple[Tree, int]:
    """Return the files of a .deb, moved below usr/ as on a merged-/usr system, and the newest time in it.

    The time is in seconds since the epoch.
    """
    return _understood(path, "data.tar")


def read_scripts(path: Path) -> dict[str, str]:
    """Return the scripts that a Debian system runs to install a .deb (preinst, postinst), by name."""
    files, _ = _understood(path, "control.tar")
    return {
        name: files[name].read().decode(errors="replace")
        for name in ("preinst", "postinst")
        if name in files and files[name].kind == "file"
    }


DAMAGE = (
    *(tarfile.TarError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError),
    *(EOFError, KeyError, ValueError),
)
"""What the readers raise for a file that is not what it should be."""


def _understood(path: Path, part: str) -> tuple[Tree, int]:
    try:
        return _read_data(_tar(path.read_bytes(), part))
    except DAMAGE as error:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{path.name} is not a readable Debian package: {error}") from error


def _read_data(data: bytes) -> tuple[Tree, int]:
    tree, newest, size = Tree(), 0, 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for number, info in enumerate(archive):
            size += info.size if info.isreg() else 0  # the size includes holes, which are not in the tar
            path = _merged(within_limits(clean_path(info.name)))
            entries = max(number, len(tree) + len(tree.missing_parents(path)))
            if size > MAX_UNPACKED or entries >= MAX_ENTRIES:
                raise ValueError(_TOO_MUCH)
            newest = max(newest, int(info.mtime))
            if info.isdir():
                tree.add(path, directory(info.mode & 0o7777))
            elif info.issym():
                tree.add(path, symlink(within_limits(info.linkname)))
            elif info.islnk():
                tree.add(path, tree[_merged(clean_path(info.linkname))])
            elif info.isreg():
                contents = archive.extractfile(info)
                assert contents is not None
                tree.add(path, regular(contents.read(), info.mode & 0o7777))
    return tree, newest


def _merged(path: str) -> str:
    """Return a path below usr/ as on a merged-/usr system. Packages of Debian 12 still use directories at the root."""
    return f"usr/{path}" if path.split("/", 1)[0] in USR_MERGED else path


def _tar(deb: bytes, wanted: str) -> bytes:
    for name, contents in _ar_members(deb):
        stem, suffix = posixpath.splitext(name)
        if name == wanted:
            return contents
        if stem == wanted:
            match suffix:
                case ".xz":
                    return _unpacked(lzma.LZMAFile(io.BytesIO(contents)).read)
                case ".gz":
                    return _unpacked(gzip.GzipFile(fileobj=io.BytesIO(contents)).read)
                case ".zst":
                    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
                    return _unpacked(decompressor.stream_reader(io.BytesIO(contents), read_across_frames=True).read)
                case _:
                    raise ValueError(f"{name} has an unknown compression")
    raise ValueError(f"it has no {wanted}")


def _unpacked(read: Callable[[int], bytes]) -> bytes:
    data = bytearray()
    while chunk := read(_CHUNK):
        data += chunk
        if len(data) > MAX_UNPACKED:
            raise ValueError(_TOO_MUCH)
    return bytes(data)


def _ar_members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    if not archive.startswith(AR_MAGIC):
        raise ValueError("it does not begin like an ar archive")
    at = len(AR_MAGIC)
    while at + AR_HEADER <= len(archive):
        header = archive[at : at + AR_HEADER]
        size = int(header[48:58])
        at += AR_HEADER
        yield header[:16].decode("ascii").strip().rstrip("/"), archive[at : at + size]
        at += size + size % 2
