"""ELF files (x86-64 only): what they ask of their surroundings, and the part of them that a loader reads."""

from __future__ import annotations

import io
import struct

import msgspec

MAGIC = b"\x7fELF"
TEXT_TAGS = {"DT_NEEDED": "needed", "DT_RUNPATH": "runpath", "DT_RPATH": "rpath"}


class Needs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an x86-64 ELF file asks of its surroundings: PT_INTERP, DT_NEEDED, and DT_RUNPATH or DT_RPATH."""

    interpreter: str = ""
    libraries: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def read_needs(contents: bytes) -> Needs | None:
    """The needs of an ELF file; None for other files, other machines and damaged ones."""
    if not is_elf(contents):
        return None
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 - its import costs more than most commands take
    from elftools.elf.dynamic import DynamicSegment  # noqa: PLC0415
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415
    from elftools.elf.segments import InterpSegment  # noqa: PLC0415

    try:
        interpreter = ""
        tags: dict[str, list[str]] = {}
        for segment in ELFFile(io.BytesIO(contents)).iter_segments():
            if isinstance(segment, InterpSegment):
                interpreter = segment.get_interp_name()
            elif isinstance(segment, DynamicSegment):
                for tag in segment.iter_tags():
                    if name := TEXT_TAGS.get(tag.entry.d_tag):
                        tags.setdefault(tag.entry.d_tag, []).append(getattr(tag, name))
    except (ELFError, UnicodeDecodeError, ValueError, KeyError):
        return None
    paths = tags.get("DT_RUNPATH") or tags.get("DT_RPATH") or []
    search = [path for text in paths for path in text.split(":") if path]
    return Needs(interpreter=interpreter, libraries=tuple(tags.get("DT_NEEDED", ())), search=tuple(search))


def is_elf(contents: bytes) -> bool:
    """Whether a file begins as 64-bit ELF for x86-64."""
    return contents[:4] == MAGIC and len(contents) >= 64 and contents[4] == 2 and contents[18:20] == b"\x3e\x00"


def shorten(elf: bytes) -> bytes:
    """An ELF file up to the end of its last segment: no section headers, symbols for debuggers, or relocations behind.

    Loaders read segments only. Unlike strip(1), nothing moves, so libraries that patchelf has rearranged stay whole.
    """
    (headers,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    ends = [headers + size * count]
    for number in range(count):
        offset, _, _, stored = struct.unpack_from("<QQQQ", elf, headers + number * size + 8)
        ends.append(offset + stored)
    short = bytearray(elf[: max(ends)])
    struct.pack_into("<Q", short, 40, 0)
    struct.pack_into("<HHH", short, 58, 0, 0, 0)
    return bytes(short)
