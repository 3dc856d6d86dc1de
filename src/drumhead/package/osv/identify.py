"""Identify OSv's files by their contents, not their names: the kernel, its BIOS boot image, modules and libraries."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

from drumhead.elf import DT_NEEDED, DT_SONAME, MAGIC, read_linkage, read_texts
from drumhead.errors import DrumheadError, ErrorCode

Kind = Literal["kernel", "boot image", "module", "library"]
RELEASES = "https://github.com/cloudius-systems/osv/releases"
VERSION = re.compile(rb"OSv (v\d[0-9A-Za-z.+~_-]*)[\n\0]")
ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
NOTE = struct.Struct("<3I")
"""The lengths of owner and value, and the type. Owner and value follow, each padded to four bytes."""
EXECUTABLE, SHARED = 2, 3
X86_64 = 62
MACHINES = {3: "32-bit x86", 40: "32-bit ARM", 183: "ARM (aarch64)", 243: "RISC-V"}
PT_NOTE = 4
GUEST_OS, PVH_ENTRY = 6, 18
"""Types of Xen's notes: the name of the system, and the entry address for QEMU."""
BOOT_BLOCK = 32 << 10
BOOT_START = 64 << 10
"""Numbers of a boot image: the unit of its length (u16 at 0x10), and the offset of the kernel."""
BOOT_MARK = b"VSO"
BOOT_MARK_AT = 0x1B8
EXT_OPERATIONS = "ext_vfsops"
"""The kernel's table of file system functions, which the ext module fills in when it is loaded."""
OTHERS = {
    b"QFI\xfb": "a qcow2 disk, not a kernel",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    b"(\xb5/\xfd": "compressed by zstd; unpack it first",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"<": "a web page, not a kernel; check that the address is that of the file itself",
    b"": "not a file of OSv",
}
"""The first bytes of other kinds of files, and descriptions of these."""


@dataclass(frozen=True, slots=True)
class OsvFile:
    """A file of OSv. `name` is a library's SONAME, `needs` lists the libraries that it needs."""

    kind: Kind
    version: str = ""
    name: str = ""
    needs: tuple[str, ...] = ()


def identify(contents: bytes, where: str) -> OsvFile:
    """Identify a file.

    `where` is its name in messages. Raises UNSUPPORTED or UNVERIFIED with a message that says what the file is instead.
    """
    if not contents:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{where} is empty; download it again")
    if contents[:4] == MAGIC:
        return _identify_elf(contents, where)
    if contents[0x202:0x206] == b"HdrS":
        raise _unsupported(where, "a bzImage (Linux, or OSv's vmlinuz.bin)")
    if contents[510:512] == b"\x55\xaa" and contents[BOOT_MARK_AT:].startswith(BOOT_MARK):
        (blocks,) = struct.unpack_from("<H", contents, 0x10)
        if len(contents) < BOOT_START + blocks * BOOT_BLOCK:
            raise _cut_off(where, len(contents), BOOT_START + blocks * BOOT_BLOCK)
        if contents[BOOT_START : BOOT_START + 4] != MAGIC:
            raise _unsupported(where, "a boot sector of OSv without a kernel after it")
        return OsvFile("boot image")
    raise _unsupported(where, next(what for begin, what in OTHERS.items() if contents.startswith(begin)))


def _identify_elf(contents: bytes, where: str) -> OsvFile:
    if len(contents) < ELF_HEADER.size:
        raise _cut_off(where, len(contents), ELF_HEADER.size)
    ident, kind, machine, _, _, segments, _, _, _, size, count, *_ = ELF_HEADER.unpack_from(contents)
    if ident[4:6] != b"\2\1" or machine != X86_64:
        raise _unsupported(where, f"made for {MACHINES.get(machine, f'machine {machine}')}; drumhead runs x86-64")
    if size != SEGMENT.size or len(contents) < segments + size * count:
        raise _cut_off(where, len(contents), segments + size * count)
    headers = [SEGMENT.unpack_from(contents, segments + size * number) for number in range(count)]
    end = max((offset + stored for _, _, offset, _, _, stored, _, _ in headers), default=0)
    if len(contents) < end:
        raise _cut_off(where, len(contents), end)
    if kind == SHARED:
        return _identify_module(contents, where)
    notes = dict(
        note
        for type_, _, offset, _, _, stored, _, _ in headers
        if type_ == PT_NOTE
        for note in _xen_notes(contents[offset : offset + stored])
    )
    system = notes.get(GUEST_OS, b"").rstrip(b"\0").decode(errors="replace")
    if kind != EXECUTABLE or system != "osv":
        raise _unsupported(where, f"a kernel of {system}" if system else "a program, not a kernel")
    if PVH_ENTRY not in notes:
        raise _unsupported(where, "a kernel of OSv without the PVH note that QEMU needs; use a later release")
    version = VERSION.search(contents)
    if version is None:
        raise _unsupported(where, "a kernel of OSv that does not say its version")
    return OsvFile("kernel", version=version[1].decode().removeprefix("v"))


def _xen_notes(section: bytes) -> list[tuple[int, bytes]]:
    """Return the types and values of Xen's notes, which PVH also uses."""
    found, at = [], 0
    while at + NOTE.size <= len(section):
        owner_size, size, kind = NOTE.unpack_from(section, at)
        owner = at + NOTE.size
        value = owner + -(-owner_size // 4) * 4
        if section[owner : owner + owner_size] == b"Xen\0":
            found.append((kind, section[value : value + size]))
        at = value + -(-size // 4) * 4
    return found


def _identify_module(contents: bytes, where: str) -> OsvFile:
    linkage = read_linkage(contents)
    try:
        _, texts = read_texts(contents)
    except (ValueError, struct.error) as error:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{where} is a damaged ELF file; download it again") from error
    kind: Kind = "module" if EXT_OPERATIONS in linkage.imports else "library"
    return OsvFile(kind, name="".join(texts[DT_SONAME]), needs=tuple(texts[DT_NEEDED]))


def _unsupported(where: str, what: str) -> DrumheadError:
    return DrumheadError(
        ErrorCode.UNSUPPORTED,
        f"{where} is {what}. drumhead accepts loader-stripped.elf, loader.img and libext.so from a release of OSv "
        f"({RELEASES})",
    )


def _cut_off(where: str, size: int, wanted: int) -> DrumheadError:
    return DrumheadError(
        ErrorCode.UNVERIFIED, f"{where} is truncated: it has {size} of {wanted} bytes; download it again"
    )
