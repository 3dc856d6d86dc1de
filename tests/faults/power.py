"""Simulate a power cut of a disk: a file system in an image is recovered from a copy of the image."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = 160 << 20


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def mount(image: Path, at: Path) -> None:
    """Mount an image. The kernel commits its journal at a flush only, not by itself every five seconds.

    Otherwise it could do so while the image is copied, and the copy would have only a part of that.
    """
    _run("mount", "-o", "loop,commit=3600", image, at)


def unmount_in_use(at: Path) -> None:
    """Unmount a file system on which files are open: it stays for them, and its path leads to what lies below it."""
    _run("umount", "-l", at)


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """Mount an image; ext4 replays its journal, as it does after a power cut. Needs root."""
    at.mkdir()
    mount(image, at)
    try:
        yield at
    finally:
        _unmount(at)


def _unmount(at: Path) -> None:
    """Unmount; retry, because children of a killed program may still be ending."""
    for attempt in range(100):
        if attempt:
            time.sleep(0.1)
        if subprocess.run(["umount", at], capture_output=True, check=False).returncode == 0:
            return
    _run("umount", at)


class Disk:
    """Mount an ext4 file system. Unflushed data is only in memory, so a copy of the image lacks it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._image = directory / "disk.img"
        self._cuts = itertools.count()
        with self._image.open("wb") as file:
            file.truncate(_SIZE)
        _run("mkfs.ext4", "-q", "-F", self._image)

    @contextmanager
    def running(self) -> Iterator[Path]:
        """Mount the disk."""
        with mounted(self._image, self._directory / "disk") as path:
            yield path

    def cut(self) -> Path:
        """Copy the image as the device has it now, which is the state after a power cut at this moment."""
        copy = self._directory / f"cut-{next(self._cuts)}.img"
        _run("cp", "--sparse=always", self._image, copy)
        return copy
