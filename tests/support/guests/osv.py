"""Make stand-ins for OSv's files, which do not run, and find the real files if there are any."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

PVH = (18, struct.pack("<Q", 0x32B01C))


def note(kind, value):
    return struct.pack("<3I", 4, len(value), kind) + b"Xen\0" + value + bytes(-len(value) % 4)


def kernel(version="v0.99.0-7-gabcdef01", *, system=b"osv\0", pvh=True, machine=62, kind=2, filling=b""):
    """Return a stand-in for a kernel: one segment with all data, one with Xen's notes, and the version as text."""
    notes = note(6, system) + (note(*PVH) if pvh else b"")
    text = f"OSv {version}\n\0".encode() + filling
    start = 64 + 2 * 56
    size = start + len(notes) + len(text)
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, kind, machine, 1, 0x200000, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, 0x200000, 0x200000, size, size, 4096)
    noted = struct.pack("<IIQQQQQQ", 4, 4, start, 0, 0, len(notes), len(notes), 4)
    return header + load + noted + notes + text


def boot_image(blocks=2):
    """Return a boot sector, space for the command line, and `blocks` blocks of 32 KiB that begin like a program."""
    sector = bytearray(512)
    struct.pack_into("<H", sector, 0x10, blocks)
    sector[0x1B8:0x1BB] = b"VSO"
    sector[510:] = b"\x55\xaa"
    return bytes(sector) + bytes(65536 - 512) + b"\x7fELF" + bytes(blocks * 32768 - 4)


def shared_object(path, source, *needs, name="", binding="now"):
    """Compile a library from a line of C. `binding` says when its symbols are resolved: now or lazy."""
    code = path.with_suffix(".c")
    code.write_text(source)
    link = [f"-Wl,-z,{binding}", "-Wl,--no-as-needed", *([f"-Wl,-soname,{name}"] if name else [])]
    subprocess.run(["musl-gcc", "-shared", "-fPIC", "-nostdlib", *link, "-o", path, code, *needs], check=True)
    return path


def modules(directory, binding="now"):
    """Make a module for ext and the library that it needs."""
    library = shared_object(directory / "liblwext4.so", "int ext4_mount(void) { return 0; }", name="liblwext4.so")
    source = "extern void *ext_vfsops[]; void begin(void *mount) { ext_vfsops[0] = mount; }"
    return shared_object(directory / "libext.so", source, library, binding=binding), library


def files(directory, **options):
    """Make a complete set of files in `directory`, under meaningless names."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "one").write_bytes(kernel(**options))
    (directory / "two").write_bytes(boot_image())
    return [directory / "one", directory / "two", *modules(directory)]


def real_files():
    """Return OSv's real files, from the directory or kernel that DRUMHEAD_OSV_KERNEL names; skip the test without
    it."""
    named = os.environ.get("DRUMHEAD_OSV_KERNEL")
    if not named:
        pytest.skip("not run: needs a kernel of OSv, which DRUMHEAD_OSV_KERNEL would name")
    path = Path(named)
    if path.is_file():
        return [path]
    found = [file for file in sorted(path.iterdir()) if file.suffix in {".elf", ".img", ".so"}]
    assert found, f"DRUMHEAD_OSV_KERNEL={named} has no kernel"
    return found
