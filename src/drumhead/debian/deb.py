"""Read the files of a Debian package (deb(5)), an ar archive with a compressed tar. Nothing in it is executed."""

from __future__ import annotations

import io
import lzma
import posixpath
import tarfile
from typing import TYPE_CHECKING

import zstandard

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.tree import USR_MERGED, Tree, clean_path, directory, regular, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60


def read_deb(path: Path) -> tuple[Tree, int]:
    """Return the files of a .deb, moved below usr/ as on a merged system, and the newest time in it (seconds since
    1970).
    """
    try:
        return _read_data(_data_tar(path.read_bytes()))
    except (tarfile.TarError, lzma.LZMAError, zstandard.ZstdError, KeyError, ValueError) as error:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{path.name} is not a readable Debian package: {error}") from error


def _read_data(data: bytes) -> tuple[Tree, int]:
    tree, newest = Tree(), 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            path = _merged(clean_path(info.name))
            newest = max(newest, int(info.mtime))
            if info.isdir():
                tree.add(path, directory(info.mode & 0o7777))
            elif info.issym():
                tree.add(path, symlink(info.linkname))
            elif info.islnk():
                tree.add(path, tree[_merged(clean_path(info.linkname))])
            elif info.isreg():
                contents = archive.extractfile(info)
                assert contents is not None
                tree.add(path, regular(contents.read(), info.mode & 0o7777))
    return tree, newest


def _merged(path: str) -> str:
    """Move a path below usr/ as on a merged-/usr system; packages of Debian 12 still name these directories at the
    root. root.
    """
    return f"usr/{path}" if path.split("/", 1)[0] in USR_MERGED else path


def _data_tar(deb: bytes) -> bytes:
    for name, contents in _ar_members(deb):
        stem, suffix = posixpath.splitext(name)
        if name == "data.tar":
            return contents
        if stem == "data.tar":
            match suffix:
                case ".xz":
                    return lzma.decompress(contents)
                case ".zst":
                    return zstandard.ZstdDecompressor().decompressobj().decompress(contents)
                case _:
                    raise ValueError(f"{name} has an unknown compression")
    raise ValueError("it has no data.tar")


def _ar_members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    if not archive.startswith(AR_MAGIC):
        raise ValueError("it does not begin as an ar archive")
    at = len(AR_MAGIC)
    while at + AR_HEADER <= len(archive):
        header = archive[at : at + AR_HEADER]
        size = int(header[48:58])
        at += AR_HEADER
        yield header[:16].decode("ascii").strip().rstrip("/"), archive[at : at + size]
        at += size + size % 2
