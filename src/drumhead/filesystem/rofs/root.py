"""Unite several layers into one root file system. The contents of the layers stay in their own files.

OSv has no overlay. Each layer is a complete file system (superblock, contents, metadata). The *root* is one more
small file: a partition table, and the superblock and metadata of the united file system. Its block numbers refer to a
disk composed of

    [partition table][superblock] [contents of layer 1] [contents of layer 2] … [metadata]

That disk is never written to a file: QEMU reads it through a VMDK descriptor, a text file that lists parts of files.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.rofs.layout import BLOCK
from drumhead.filesystem.rofs.reader import Stored, read_data_blocks, read_layer, read_superblock
from drumhead.filesystem.rofs.writer import build_structure
from drumhead.tree import CHUNK, Tree, symlink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEAD = 2
"""The blocks of a root before its metadata: the partition table and the superblock."""
PARTITION = struct.Struct("<B3sB3sII")
"""Status, CHS of the first sector, type, CHS of the last sector, first sector, number of sectors. Only the type and the
last two are used."""
SECOND_ENTRY = 0x1CE
"""The guest's root is the second partition of its first disk."""
LINUX_TYPE = 0x83
CHS_BEYOND = b"\xfe\xff\xff"
"""The CHS value for addresses beyond its range. OSv skips entries whose low six bits of byte 2 are 0."""
SIGNATURE = b"\x55\xaa"
SIGNATURE_AT = 510
MOST_SECTORS = (1 << 32) - 1
MAX_PATH = 511
"""The maximum number of bytes of a file name that QEMU reads in a descriptor."""
DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="twoGbMaxExtentFlat"
"""
"""The first extent must follow directly: QEMU 7.2 reads an extent after an empty line twice."""


@dataclass(frozen=True, slots=True)
class Part:
    """A run of `count` blocks of a file, starting at block `start`."""

    path: Path
    start: int
    count: int


def unite(layers: Sequence[Path]) -> bytes:
    """Return the root of `layers`. This reads superblocks and metadata, and blocks the calling thread.

    Later layers cover earlier ones as in ``Tree.update``: directories are united, also through links to directories;
    files and links replace earlier entries. Links in the root become absolute, because OSv does not follow relative
    ones there. Raises UNVERIFIED for a damaged layer, UNSUPPORTED for a disk of 2 TiB or
    more, CONFLICT for a loop of links.
    """
    whole, end = Tree(), 1
    for path in layers:
        tree, end = read_layer(path, end)
        whole.update(tree)
    for name, entry in list(whole):
        if entry.kind == "symlink" and "/" not in name and not entry.target.startswith("/"):
            whole.add(name, symlink(f"/{entry.target}"))
    blocks = {path: entry.block for path, entry in whole if isinstance(entry, Stored)}
    structure = build_structure(whole, blocks, end)
    table = partition_table([(1, end + len(structure.metadata) // BLOCK)])
    return table + structure.superblock + structure.metadata


def partition_table(partitions: Sequence[tuple[int, int]], boot: bytes = bytes(BLOCK)) -> bytes:
    """Return the first sector of a disk: `boot` with `partitions` (first sector, sectors) from the second entry on.

    Raises UNSUPPORTED if the numbers do not fit.
    """
    sector = bytearray(boot)
    for number, (first, count) in enumerate(partitions):
        if first + count > MOST_SECTORS:
            raise DrumheadError(
                ErrorCode.UNSUPPORTED, "the image would take 2 TiB or more, which the partition table does not support"
            )
        place = SECOND_ENTRY + number * PARTITION.size
        PARTITION.pack_into(sector, place, 0, CHS_BEYOND, LINUX_TYPE, CHS_BEYOND, first, count)
    sector[SIGNATURE_AT:] = SIGNATURE
    return bytes(sector)


def parts_of(layers: Sequence[Path]) -> list[Part]:
    """Return the parts of an image's disk. This blocks the calling thread.

    The last of `layers` is the root. Raises UNVERIFIED.
    """
    *filled, root = layers
    parts = [Part(root, 0, HEAD)]
    parts += [Part(path, 1, count) for path in filled if (count := read_data_blocks(path))]
    with root.open("rb") as file:
        file.seek(BLOCK)
        top = read_superblock(file.read(BLOCK), root)
    if top.metadata != sum(part.count for part in parts) - 1:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{root} is the root of other layers; compose the image again")
    return [*parts, Part(root, HEAD, top.metadata_blocks)]


def root_disk(layers: Sequence[Path]) -> bytes:
    """Return a VMDK descriptor of an image's disk, with absolute paths. The last of `layers` is the root.

    This blocks the calling thread. Raises UNVERIFIED, and UNSUPPORTED for a path that a descriptor cannot hold.
    """
    lines = [DESCRIPTOR.encode()]
    for part in parts_of(layers):
        name = os.fsencode(part.path.absolute())
        if len(name) > MAX_PATH or any(byte in name for byte in b'"\r\n\0'):
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                f"QEMU cannot open {str(part.path)!a} as a part of a disk: paths may have at most "
                f"{MAX_PATH} bytes and no quotes or line breaks; move DRUMHEAD_HOME",
            )
        # QEMU accepts only the access "RW" here, but opens the files like the drive, read-only.
        lines.append(b'RW %d FLAT "%b" %d\n' % (part.count, name, part.start))
    return b"".join(lines)


def write_root(layers: Sequence[Path], out: IO[bytes]) -> None:
    """Write the disk of an image without its partition table to `out`. This blocks the thread. Raises UNVERIFIED."""
    _, *parts = parts_of(layers)
    for part in (Part(layers[-1], 1, HEAD - 1), *parts):
        with part.path.open("rb") as source:
            source.seek(part.start * BLOCK)
            left = part.count * BLOCK
            while left and (chunk := source.read(min(CHUNK, left))):
                out.write(chunk)
                left -= len(chunk)
        if left:
            raise DrumheadError(ErrorCode.UNVERIFIED, f"{part.path} is truncated; delete it and compose again")
