"""Making OSv's modules fit for programs that bring their own libc."""

from __future__ import annotations

import struct

PT_DYNAMIC = 2
DT_NULL, DT_FLAGS_1 = 0, 0x6FFFFFFB
DF_1_NOW = 1
SEGMENT = struct.Struct("<IIQQQQQQ")
ENTRY = struct.Struct("<QQ")


def bind_at_once(module: bytes) -> bytes:
    """The same shared object, marked so that a loader looks up all of its symbols when it is loaded.

    Otherwise OSv looks up a symbol at its first call, in all objects that it has loaded. One of them is libc's loader
    by then, which moves the addresses in its own tables as it starts; OSv reads those wrongly and ends with a division
    by zero. Uses one of the empty entries that linkers leave; without one the module stays as it is.
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
