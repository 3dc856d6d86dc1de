"""Photos on this machine's disk: which files a path means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safelight.errors import Code, Error

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .gif .tif .tiff .heic .heif .jxl .jp2 .bmp .ppm .pgm .pnm".split()  # noqa: SIM905
)
"""What is taken for a photo in a folder. A file that is named itself is taken whatever it is called."""


@dataclass(frozen=True)
class Photo:
    """One file to upload; `size` in bytes."""

    path: Path
    size: int


def collect(paths: Sequence[Path]) -> list[Photo]:
    """Return the photos that paths mean: files as they are, folders with everything in them that looks like a photo.

    Hidden files and folders inside a folder are left out. Raises NOT_FOUND for a path that is not there, or when
    there is no photo at all.
    """
    found: dict[Path, Photo] = {}
    for path in paths:
        for file in _files(path):
            found.setdefault(file, Photo(file, file.stat().st_size))
    if not found:
        raise Error(Code.NOT_FOUND, f"There is no photo in {', '.join(map(str, paths))}.")
    return list(found.values())


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                    yield Path(folder, name)
    elif path.is_file():
        yield path
    else:
        raise Error(Code.NOT_FOUND, f"There is no file or folder {path}.")
