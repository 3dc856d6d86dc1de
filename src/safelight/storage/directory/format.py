"""The format version of a directory of blobs, so that an older safelight does not misread a newer format."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from safelight.errors import Code, Error
from safelight.storage.files import TextFile

_VERSION = 1


def check_format(directory: Path) -> None:
    """Write the version into a directory that has none. Raises OSError, UNAVAILABLE for a newer version."""
    mark = TextFile(directory / "format")
    text = mark.read_text().strip() if mark.exists() else ""
    if not text:
        with suppress(OSError):  # a full or read-only disk can still be read; the next start writes the version
            directory.mkdir(parents=True, exist_ok=True)
            mark.write_text(f"{_VERSION}\n")
    elif not text.isdecimal() or int(text) > _VERSION:
        sentence = f"{directory} was written by a newer safelight; start that version instead."
        raise Error(Code.UNAVAILABLE, sentence)
