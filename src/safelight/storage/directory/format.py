"""The version of what a directory of blobs holds: an older safelight must not misread what a newer one wrote."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from safelight.errors import Code, Error
from safelight.storage.files import TextFile

_VERSION = 1


def check_format(directory: Path) -> None:
    """Note the version in a directory that has none. Raises UNAVAILABLE where a newer safelight wrote it, OSError."""
    mark = TextFile(directory / "format")
    text = mark.read_text().strip() if mark.exists() else ""
    if not text:
        with suppress(OSError):  # a disk that is full or read-only can still be read from; the next start notes it
            directory.mkdir(parents=True, exist_ok=True)
            mark.write_text(f"{_VERSION}\n")
    elif not text.isdecimal() or int(text) > _VERSION:
        sentence = f"{directory} was written by a newer safelight; start that version instead."
        raise Error(Code.UNAVAILABLE, sentence)
