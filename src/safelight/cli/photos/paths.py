"""Find the photos that paths on the command line name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from safelight.errors import Code, Error
from safelight.untrusted import photos

_REFUSED = ".jp2 .bmp .ppm .pgm .pnm"  # not skipped, so that the report says why they are not processed
SUFFIXES = photos.SUFFIXES | frozenset(_REFUSED.split())
"""Extensions of photos in a directory. A file that is named directly may have any extension."""

_MISSING, _UNREADABLE = 0, 1  # no modes of files


@dataclass(frozen=True)
class Photo:
    """One file to upload; `size` in bytes. `within` is its place below the directory that was named."""

    path: Path
    size: int
    within: Path = Path()


def collect(paths: Sequence[Path]) -> list[Photo]:
    """Return the photos that paths name: files, and everything in directories that looks like a photo.

    A photo that is named in several ways (`a`, `./b/../a`, an absolute path) is one.

    Skip hidden files and directories, pipes and devices. Keep broken links, and files and directories that this user
    may not read: their uploads fail and so appear in the report. Raises NOT_FOUND for a path that does not exist, or if
    there is no photo at all, and INVALID_REQUEST for a pipe or a device that is named.
    """
    found: dict[tuple[str, str], Photo] = {}
    real = cache(os.path.realpath)
    for path in paths:
        for file in _files(path):
            within = file.parent.relative_to(path) if file != path else Path()
            found.setdefault((real(file.parent), file.name), Photo(file, _size(file), within))
    if not found:
        raise Error(Code.NOT_FOUND, f"There is no photo in {', '.join(map(str, paths))}.")
    return list(found.values())


def _files(path: Path) -> Iterator[Path]:
    kind = _kind(path)
    if stat.S_ISDIR(kind):
        errors: list[OSError] = []
        for directory, directories, names in os.walk(path, onerror=errors.append):
            directories[:] = sorted(name for name in directories if not name.startswith("."))
            for name in sorted(names):
                file = Path(directory, name)
                if not name.startswith(".") and file.suffix.lower() in SUFFIXES and _may_be_photo(file):
                    yield file
        yield from (Path(error.filename) for error in errors)
    elif _may_be_photo(path) and kind != _MISSING:
        yield path
    else:
        if kind != _MISSING:
            raise Error(Code.INVALID_REQUEST, f"{path} is a pipe or a device. Name a file or a directory.")
        raise Error(Code.NOT_FOUND, f"There is no file or directory {path}.")


def _may_be_photo(file: Path) -> bool:
    return stat.S_ISREG(kind := _kind(file)) or kind in (_MISSING, _UNREADABLE)


def _kind(path: Path) -> int:
    """Return the mode of what is at a path, `_MISSING`, or `_UNREADABLE` if this user may not even look."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except OSError:  # no permission, or links in a circle
        return _UNREADABLE


def _size(file: Path) -> int:
    return file.stat().st_size if stat.S_ISREG(_kind(file)) else 0
