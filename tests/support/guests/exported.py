"""Boot exported disks in QEMU, with disks as KubeVirt makes them from ConfigMaps and Secrets."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CPU = "max,erms=off,fsrm=off"
"""QEMU's processor without the string instructions that it emulates byte by byte."""
LIMIT = 300.0
"""The time limit in seconds for a machine, from its start to its end."""


def config_disk(directory: Path, files: Mapping[str, str]) -> Path:
    """Write a disk as KubeVirt does (pkg/config/config.go): with xorrisofs, from a directory as Kubernetes mounts
    it."""
    real = directory / "..2026_11_27"
    real.mkdir(parents=True)
    (directory / "..data").symlink_to(real.name)
    for name, text in files.items():
        (real / name).write_text(text)
        (directory / name).symlink_to(f"..data/{name}")
    iso = directory.with_suffix(".iso")
    words = ["xorrisofs", "-output", iso, "-follow-links", "-volid", "cfgdata", "-joliet", "-rock", "-graft-points"]
    words += ["-partition_cyl_align", "on", *(f"{one.name}={one}" for one in sorted(directory.iterdir()))]
    subprocess.run(words, check=True, capture_output=True)
    return iso


@contextmanager
def boot(disk: Path, disks: Mapping[str, Path], directory: Path, *more: object) -> Iterator[subprocess.Popen[bytes]]:
    """Boot a disk with other disks by serial number; the process's output is that of the machine."""
    words = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", CPU, "-m", "256", "-display", "none"]
    words += ["-serial", "stdio", "-qmp", f"unix:{directory}/qmp,server=on,wait=off", "-snapshot", *map(str, more)]
    words += ["-drive", f"file={disk},if=none,id=image", "-device", "virtio-blk-pci,drive=image,bootindex=1"]
    for serial, path in disks.items():
        words += ["-drive", f"file={path},format=raw,if=none,id={serial},snapshot=off"]
        words += ["-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        impatience = threading.Timer(LIMIT, process.kill)
        impatience.start()
        try:
            yield process
        finally:
            impatience.cancel()
            process.kill()


def says(process: subprocess.Popen[bytes], wanted: bytes) -> None:
    """Wait until the machine prints a line with `wanted`."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if wanted in line:
            return
    raise AssertionError(f"{wanted!r} was not printed: {b''.join(printed)!r}")


def press_power_button(directory: Path) -> None:
    """Ask the machine to stop, as KubeVirt does through libvirt."""
    with socket.socket(socket.AF_UNIX) as talk, talk.makefile("rw") as lines:
        talk.connect(str(directory / "qmp"))
        lines.readline()
        for request in ("qmp_capabilities", "system_powerdown"):
            lines.write(json.dumps({"execute": request}) + "\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                assert "event" in answer, answer
