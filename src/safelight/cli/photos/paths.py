"""Find the photos that paths on the command line name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safelight.errors import Code, Error

_USUAL = ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .avifs .gif .tif .tiff .heic .heif .hif .jxl .jp2 .bmp .ppm .pgm"
_RAW = ".pnm .dng .nef .nrw .cr2 .cr3 .arw .orf .rw2 .pef .raf .srw"
SUFFIXES = frozenset(f"{_USUAL} {_RAW}".split())
"""Extensions of photos in a directory. A file that is named directly may have any extension."""


@dataclass(frozen=True)
class Photo:
    """One file to upload; `size` in bytes. `within` is its place below the directory that was named."""

    path: Path
    size: int
    within: Path = Path()


def collect(paths: Sequence[Path]) -> list[Photo]:
    """Return the photos that paths name: files, and everything in directories that looks like a photo.

    Skip hidden files and directories, pipes and devices. Keep broken links: their uploads fail and so appear in the
    report. Raises NOT_FOUND for a path that does not exist, or if there is no photo at all.
    """
    found: dict[Path, Photo] = {}
    for path in paths:
        for file in _files(path):
            within = file.parent.relative_to(path) if path.is_dir() else Path()
            found.setdefault(file, Photo(file, file.stat().st_size if file.exists() else 0, within))
    if not found:
        raise Error(Code.NOT_FOUND, f"There is no photo in {', '.join(map(str, paths))}.")
    return list(found.values())


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for directory, directories, names in os.walk(path):
            directories[:] = sorted(name for name in directories if not name.startswith("."))
            for name in sorted(names):
                file = Path(directory, name)
                if (
                    not name.startswith(".")
                    and file.suffix.lower() in SUFFIXES
                    and (file.is_file() or not file.exists())
                ):
                    yield file
    elif path.is_file():
        yield path
    else:
        raise Error(Code.NOT_FOUND, f"There is no file or directory {path}.")
