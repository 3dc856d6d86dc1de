"""Name the target of a copy in the errors of its disk, since the copied store has a disk too."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safelight.cli.backup.archive import NO_ROOM
from safelight.cli.printing import complain
from safelight.errors import Code, Error
from safelight.storage.files import FULL, full

MAKE_ROOM = "Make room there, and run the command again."


@contextmanager
def private() -> Iterator[None]:
    """Let only the user read what the context writes, as the services do: copies contain photos and signing keys."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Say how to go on when a signal ends the context."""
    try:
        yield
    except asyncio.CancelledError:
        complain(f"Interrupted. {advice}")
        raise


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a temporary directory for a copy of the database. Raises STORAGE_FULL."""
    with tempfile.TemporaryDirectory(prefix="safelight-") as name:
        advice = "It must hold a copy of the database. Name a directory with more room in the variable TMPDIR."
        with writing_to(name, advice):
            yield Path(name)


@contextmanager
def writing_to(target: Path | str, advice: str = MAKE_ROOM) -> Iterator[None]:
    """Translate errors while the context writes to `target`. Raises STORAGE_FULL, INVALID_REQUEST."""
    try:
        yield
    except Error as error:
        if error.detail != full().detail:
            raise
        raise _full(target, advice) from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname not in NO_ROOM:
            raise
        raise _full(target, advice) from error
    except OSError as error:
        if error.errno in FULL:
            raise _full(target, advice) from error
        if error.filename is None:  # not an error of a file
            raise
        detail = f"{error.filename} cannot be written: {error.strerror}. Name a directory that you can write to."
        raise Error(Code.INVALID_REQUEST, detail) from error


def _full(target: Path | str, advice: str) -> Error:
    return Error(Code.STORAGE_FULL, f"{target} is full. {advice}")
