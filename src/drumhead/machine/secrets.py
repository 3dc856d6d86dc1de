"""Secrets that machines share: files below one home that only their owner can read."""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import make_private

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from drumhead.home import Home

MAX_SIZE = 64 << 10
"""The limit in bytes, enough for a certificate chain and its key."""


def make_secret(home: Home, name: str) -> Path:
    """Create the secret `name` (``FLEET/NAME``) from 256 random bits unless it exists. Return the path of its file."""
    path = home.secrets / name
    for directory in (home.secrets, path.parent):
        make_private(directory)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link does not replace a file that another process has made in the meantime.
        path.hardlink_to(new)
    except FileExistsError:
        pass
    finally:
        new.unlink(missing_ok=True)
    return path


def read_secrets(home: Home, names: Iterable[str]) -> dict[str, str]:
    """Return the text of secrets by the last part of their names.

    Raises NOT_FOUND, and USAGE for a file that others can read, that is too large or that is not text.
    """
    return {name.rpartition("/")[2]: _read(home.secrets / name) for name in names}


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode, contents = os.fstat(file.fileno()).st_mode, file.read(MAX_SIZE + 1)
    except OSError as error:
        message = f"the secret {path} cannot be read ({error.strerror}); `drumhead up` creates the secrets of a fleet"
        raise DrumheadError(ErrorCode.NOT_FOUND, message) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DrumheadError(ErrorCode.USAGE, f"other users can read the secret {path}; run chmod 600 on it")
    if len(contents) > MAX_SIZE:
        raise DrumheadError(ErrorCode.USAGE, f"the secret {path} is larger than {MAX_SIZE >> 10} KiB")
    try:
        text = contents.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DrumheadError(ErrorCode.USAGE, f"the secret {path} is not text")
    return text
