"""Write cpio archives in the "newc" format, which the kernel unpacks into its initramfs."""

from __future__ import annotations

import stat
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CpioEntry:
    """A file. `mode` has type and permission bits; `device` is the (major, minor) of a device node."""

    name: str
    mode: int
    contents: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> CpioEntry:
    return CpioEntry(name=name, mode=stat.S_IFDIR | 0o755)


def regular(name: str, contents: bytes, mode: int = 0o644) -> CpioEntry:
    return CpioEntry(name=name, mode=stat.S_IFREG | mode, contents=contents)


def character_device(name: str, major: int, minor: int) -> CpioEntry:
    return CpioEntry(name=name, mode=stat.S_IFCHR | 0o600, device=(major, minor))


def write_cpio(entries: list[CpioEntry]) -> bytes:
    """Return an archive of `entries` in order, owned by root, without times and padded to 512 bytes."""
    archive = bytearray()
    for number, entry in enumerate([*entries, CpioEntry(name="TRAILER!!!", mode=0)]):
        name = entry.name.encode() + b"\0"
        major, minor = entry.device
        links = 1 if entry.mode else 0
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.contents), 0, 0, major, minor, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        archive += bytes(-len(archive) % 4) + entry.contents
        archive += bytes(-len(archive) % 4)
    archive += bytes(-len(archive) % 512)
    return bytes(archive)
