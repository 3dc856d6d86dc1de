"""Write an image as a disk that boots by BIOS (syslinux) and UEFI (systemd-boot), without root or loop devices.

The GPT has a boot partition (FAT) with both loaders, Debian's kernel and the initrd, and one partition for each layer,
named ``layer-0`` and so on. The guest finds its layers by those names, and its command in /etc/drumhead/run.json.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.store import encode

if TYPE_CHECKING:
    from drumhead.records import Image, ImageFiles

SECTOR = 512
ALIGN = 2048
"""The alignment of partitions in sectors; they start at whole mebibytes."""
BOOT_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LAYER_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
BIOS_CODE = Path("/usr/lib/syslinux/mbr/gptmbr.bin")
UEFI_LOADER = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
LOADERS = {BIOS_CODE: "syslinux-common", UEFI_LOADER: "systemd-boot-efi"}
SYSLINUX = "DEFAULT linux\nPROMPT 0\nLABEL linux\nLINUX /vmlinuz\nINITRD /initrd\nAPPEND {cmdline}\n"
FIXED_TIME = "315532800"
"""1980-01-01, the earliest time that FAT can store."""


def write_raw(image: Image, files: ImageFiles, bzimage: bytes, cmdline: str, out: Path) -> None:
    """Write a raw disk to `out`. This blocks the calling thread.

    `bzimage` is the kernel in the format that boot loaders start. Raises HOST_TOOL.
    """
    for loader, package in LOADERS.items():
        if not loader.is_file():
            raise DrumheadError(
                ErrorCode.HOST_TOOL,
                f"{loader} is not installed on this host; install it (Debian: apt-get install {package})",
            )
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch, replacing(out) as temporary:
        boot = Path(scratch) / "boot.img"
        _write_boot(boot, files, bzimage, cmdline, out)
        parts = [boot, *files.layers]
        sizes = [-(-part.stat().st_size // (ALIGN * SECTOR)) * ALIGN for part in parts]
        starts = [ALIGN + sum(sizes[:number]) for number in range(len(parts))]
        _reserve(temporary, (starts[-1] + sizes[-1] + ALIGN) * SECTOR, out)
        _write_table(temporary, image, starts, sizes)
        with temporary.open("r+b") as disk:
            disk.write(BIOS_CODE.read_bytes()[:440])
            for part, start in zip(parts, starts, strict=True):
                disk.seek(start * SECTOR)
                with part.open("rb") as source:
                    shutil.copyfileobj(source, disk, 1 << 20)


def write_qcow2(raw: Path, out: Path) -> None:
    """Convert `raw` into a compressed qcow2 file at `out`. This blocks the calling thread."""
    with replacing(out) as temporary:
        host.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, temporary])


def _reserve(file: Path, size: int, where: Path) -> None:
    """Make `file` `size` bytes long, on the disk too: mkfs.vfat and sfdisk do not say that a disk is full, and mcopy
    even succeeds. Raises OSError that names `where`.
    """
    handle = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(where)) from error
    finally:
        os.close(handle)


def _write_table(disk: Path, image: Image, starts: list[int], sizes: list[int]) -> None:
    """Write the partition table. Its identifiers are derived from the image, so the same image gives the same disk."""
    names = ["boot", *(f"layer-{number}" for number in range(len(starts) - 1))]
    identity = uuid.uuid5(uuid.NAMESPACE_OID, encode(image).hex())
    lines = ["label: gpt", f"label-id: {identity}", "unit: sectors"]
    for name, start, size in zip(names, starts, sizes, strict=True):
        kind = f'type={BOOT_TYPE}, attrs="LegacyBIOSBootable"' if name == "boot" else f"type={LAYER_TYPE}"
        lines.append(f'start={start}, size={size}, {kind}, uuid={uuid.uuid5(identity, name)}, name="{name}"')
    host.run(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk],
        feed=lambda pipe: pipe.write(("\n".join(lines) + "\n").encode()),
    )


def _write_boot(boot: Path, files: ImageFiles, bzimage: bytes, cmdline: str, out: Path) -> None:
    """Write the FAT partition of `out`: boot loaders, their configuration, kernel and initrd."""
    contents = {
        "vmlinuz": bzimage,
        "initrd": files.initrd.read_bytes() if files.initrd else b"",
        "syslinux.cfg": SYSLINUX.format(cmdline=cmdline).encode(),
        "EFI/BOOT/BOOTX64.EFI": UEFI_LOADER.read_bytes(),
        "loader/loader.conf": b"timeout 0\ndefault linux.conf\n",
        "loader/entries/linux.conf": f"title drumhead\nlinux /vmlinuz\ninitrd /initrd\noptions {cmdline}\n".encode(),
    }
    size = sum(-(-len(part) // 4096) * 4096 for part in contents.values()) + (1 << 20)
    _reserve(boot, -(-size // (ALIGN * SECTOR)) * ALIGN * SECTOR, out)
    fixed = {**os.environ, "SOURCE_DATE_EPOCH": FIXED_TIME, "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    host.run(["mkfs.vfat", "--invariant", "-F", "16", "-n", "DRUMHEAD", boot])
    host.run(["mmd", "-i", boot, "::EFI", "::EFI/BOOT", "::loader", "::loader/entries"], env=fixed)
    for name, part in contents.items():
        file = boot.with_name("part")
        file.write_bytes(part)
        os.utime(file, (int(FIXED_TIME), int(FIXED_TIME)))
        host.run(["mcopy", "-m", "-i", boot, file, f"::{name}"], env=fixed)
    host.run(["syslinux", "--install", boot], env=fixed)
