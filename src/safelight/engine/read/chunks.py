"""The chunks of a PNG (third edition, W3C 2025, section 5): finding them in a file, and making them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: its name, and where its content lies in the file."""

    name: bytes
    start: int
    size: int


def chunks(data: Any) -> Iterator[Chunk]:
    """Return the chunks of a file, up to its end chunk; the last one may reach past the end of the data."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        yield Chunk(name, at + 8, size)
        if name == b"IEND":
            return
        at += size + 12


def made(name: bytes, content: bytes) -> bytes:
    """Return one chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
