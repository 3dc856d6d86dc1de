"""Adapt OSv's modules to programs that have their own libc."""

from __future__ import annotations

import struct

PT_DYNAMIC = 2
DT_NULL, DT_FLAGS_1 = 0, 0x6FFFFFFB
DF_1_NOW = 1
SEGMENT = struct.Struct("<IIQQQQQQ")
ENTRY = struct.Struct("<QQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
SHT_PROGBITS, SHT_STRTAB = 1, 3
MAX_SECTIONS = 0xFF00
"""With as many sections or more, their number is elsewhere in the file."""
IN_MEMORY = b".note.osv-mlock\0"


def fit(module: bytes) -> bytes:
    """Return a shared object that OSv loads completely and whose symbols it resolves at load time."""
    return load_whole(bind_at_once(module))


def bind_at_once(module: bytes) -> bytes:
    """Return the shared object with the flag that makes a loader resolve all symbols at load time.

    Otherwise OSv resolves a symbol at its first call and searches all loaded objects. By then libc's loader is one of
    them; it has relocated its own tables, and OSv misreads them and divides by zero. The flag uses one of the
    empty entries that linkers leave. If there is none, the module is returned unchanged.
    """
    (segments,) = struct.unpack_from("<Q", module, 32)
    size, count = struct.unpack_from("<HH", module, 54)
    for number in range(count):
        kind, _, offset, _, _, stored, _, _ = SEGMENT.unpack_from(module, segments + size * number)
        if kind == PT_DYNAMIC:
            return _with_flag(module, range(offset, offset + stored - ENTRY.size + 1, ENTRY.size))
    return module


def _with_flag(module: bytes, entries: range) -> bytes:
    for at in entries:
        tag, value = ENTRY.unpack_from(module, at)
        if tag == DT_FLAGS_1 or (tag == DT_NULL and at != entries[-1]):
            flag = ENTRY.pack(DT_FLAGS_1, value | DF_1_NOW)
            return module[:at] + flag + module[at + ENTRY.size :]
    return module


def load_whole(module: bytes) -> bytes:
    """Return the shared object with the section that makes OSv read all of it at load time.

    Otherwise OSv reads its pages on demand through the cache for files of the root. If that cache is off, as in
    machines with little memory, OSv calls a null pointer. OSv's libext has the section; the library it needs does not.
    """
    sections = _sections(module)
    (names_at,) = struct.unpack_from("<H", module, 62)
    if names_at >= len(sections) or len(sections) + 1 >= MAX_SECTIONS:
        return module
    names_section = sections[names_at]
    names = module[names_section[4] : names_section[4] + names_section[5]]
    if IN_MEMORY in names or names_section[1] != SHT_STRTAB:
        return module
    # Both tables grow, so move them to the end. Loaded contents stay in place.
    names_start = len(module)
    names += IN_MEMORY
    padding = bytes(-(names_start + len(names)) % 8)
    table_start = names_start + len(names) + len(padding)
    sections[names_at] = (*names_section[:4], names_start, len(names), *names_section[6:])
    sections.append((len(names) - len(IN_MEMORY), SHT_PROGBITS, 0, 0, 0, 0, 0, 0, 1, 0))
    header = bytearray(module)
    struct.pack_into("<Q", header, 40, table_start)
    struct.pack_into("<H", header, 60, len(sections))
    return bytes(header) + names + padding + b"".join(SECTION.pack(*section) for section in sections)


def _sections(module: bytes) -> list[tuple[int, ...]]:
    (start,) = struct.unpack_from("<Q", module, 40)
    size, count = struct.unpack_from("<HH", module, 58)
    if size != SECTION.size or start + size * count > len(module):
        return []
    return [SECTION.unpack_from(module, start + size * number) for number in range(count)]
