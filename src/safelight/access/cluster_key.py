"""The cluster key: the secret by which the services of one system recognise one another."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from safelight.errors import Code, Error

log = logging.getLogger(__name__)

_SHORTEST = 32
_LOOK_AGAIN = 1.0
"""Seconds between two checks whether the file has changed."""
_LARGEST = 4096


class ClusterKey:
    """The keys in a file: the first is sent to others, and any of them is accepted.

    The file is read again when it changes, so a rotation needs no restarts: add the new key on the second line, swap
    the lines once every service accepts both, and remove the old one once every service sends the new one.
    """

    def __init__(self, path: Path) -> None:
        """Read the file. Raises `Error` if it cannot be used."""
        self._path = path
        self._keys: tuple[bytes, ...] = ()
        self._headers: dict[str, str] = {}
        self._state: tuple[int, ...] = ()
        self._looked = 0.0
        self._read()

    def credentials(self, _method: str, _path: str) -> Mapping[str, str]:
        """Return the headers with the key; this is `client.base.Credentials`."""
        self._refresh()
        return self._headers

    def matches(self, token: str) -> bool:
        """Compare in constant time."""
        self._refresh()
        given = token.encode(errors="replace")
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(given, key)
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        try:
            if _state(self._path) != self._state:
                self._read()
                log.info("The cluster key was read again", extra={"keys": len(self._keys)})
        except (Error, OSError) as error:
            log.warning("The cluster key stays as it was: %s", getattr(error, "detail", error))

    def _read(self) -> None:
        try:
            state = _state(self._path)
            text = self._path.read_text(encoding="ascii")[:_LARGEST]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
            raise Error(Code.INVALID_REQUEST, f"The cluster key file {self._path} cannot be read: {reason}.") from None
        if is_open_to_others(self._path):
            sentence = f"The cluster key file {self._path} can be read by others: chmod 600 it."
            raise Error(Code.INVALID_REQUEST, sentence)
        keys = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
        if not 1 <= len(keys) <= 2 or min(len(key) for key in keys) < _SHORTEST:
            sentence = (
                f"The cluster key file {self._path} must hold one key, or two, of {_SHORTEST} characters and more."
            )
            raise Error(Code.INVALID_REQUEST, sentence)
        self._keys, self._state, self._looked = keys, state, time.monotonic()
        self._headers = {"Authorization": f"Bearer {keys[0].decode()}"}


def is_open_to_others(path: Path) -> bool:
    """Return whether anybody but the owner of a file with a secret can read it. Raises OSError.

    Kubernetes and systemd own the secrets that they provide, and let a service read them by group or access list.
    """
    if os.name != "posix":
        return False
    facts = path.stat()
    handed_over = facts.st_uid == 0 != os.geteuid()
    allowed = stat.S_IRGRP if handed_over else 0
    return bool(facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed)


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def ensure(path: Path) -> None:
    """Make a key file that only its owner can read, unless it is there; it appears whole or not at all."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{secrets.token_urlsafe(32)}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
