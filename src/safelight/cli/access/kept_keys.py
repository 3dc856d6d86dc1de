"""The API keys that `safelight login` keeps in the user's configuration directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from safelight.errors import MALFORMED, Code, Error


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """The stored logins: the master that was logged in to last, and a key for each master."""

    master: str = ""
    keys: dict[str, str] = {}


def place() -> Path:
    """Return the file: `safelight/login.json` in the user's configuration directory."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "safelight" / "login.json"


def load() -> Login:
    """Read the stored logins, if any. Raises INVALID_REQUEST for a file that others can read."""
    path = place()
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Error(Code.INVALID_REQUEST, f"{path} holds API keys and can be read by others: chmod 600 it.")
        return msgspec.json.decode(path.read_bytes(), type=Login)
    except (FileNotFoundError, NotADirectoryError):  # of a service, the home directory may be /dev/null
        return Login()
    except (OSError, *MALFORMED) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Error(Code.INVALID_REQUEST, f"{path} cannot be read: {reason}. Log in again after removing it.") from None


def save(login: Login) -> None:
    """Write the logins atomically, into a file that only its owner can read."""
    path = place()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(login)) + b"\n")
    new.replace(path)
