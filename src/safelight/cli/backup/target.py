"""Name the target of a copy in the errors of its disk, since the copied store has a disk too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safelight.errors import Code, Error
from safelight.storage.files import FULL, full


@contextmanager
def writing_to(target: Path | str) -> Iterator[None]:
    """Translate errors while the context writes to `target`. Raises STORAGE_FULL, INVALID_REQUEST."""
    try:
        yield
    except Error as error:
        if error.detail != full().detail:
            raise
        raise _full(target) from error
    except OSError as error:
        if error.errno in FULL:
            raise _full(target) from error
        if error.filename is None:  # not an error of a file
            raise
        detail = f"{error.filename} cannot be written: {error.strerror}. Name a directory that you can write to."
        raise Error(Code.INVALID_REQUEST, detail) from error


def _full(target: Path | str) -> Error:
    return Error(Code.STORAGE_FULL, f"{target} is full. Make room there, and run the command again.")
