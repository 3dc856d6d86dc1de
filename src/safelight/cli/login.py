"""Log in: keep the API key of a system in the user's configuration directory."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from pathlib import Path

import msgspec

from safelight.cli.connection import HERE, Where, access
from safelight.cli.printing import print_json, say
from safelight.client.base import bearer
from safelight.errors import Code, Error


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept: the master that was logged in to last, and a key for each master."""

    master: str = ""
    keys: dict[str, str] = {}


async def login_command(*, where: Where = HERE) -> None:
    """Keep an API key for a master, so that later commands show it.

    The key is asked for, or read from standard input where that is no terminal. It is kept in a file that only you
    can read.
    """
    key = _ask().strip()
    async with access(where, credentials=bearer(key)) as (client, address):
        who = await client.whoami()
    if not who.signed_in or who.via != "key":
        raise Error(Code.UNAUTHENTICATED, f"The master at {address} does not know this key. It may be revoked.")
    known = load()
    save(Login(master=address, keys={**known.keys, address: key}))
    if where.json:
        print_json({"master": address, "tenant": who.tenant, "name": who.name, "scopes": who.scopes})
    else:
        say(f"Logged in to {address} as {who.name} of the tenant {who.tenant}: {', '.join(who.scopes)}.")


async def logout_command(*, where: Where = HERE) -> None:
    """Forget the API key of a master; the key itself stays valid until it is revoked."""
    known = load()
    address = where.master or known.master
    if address not in known.keys:
        raise Error(Code.NOT_FOUND, "You are not logged in there.")
    keys = {name: key for name, key in known.keys.items() if name != address}
    save(Login(master="" if known.master == address else known.master, keys=keys))
    if not where.json:
        say(f"Logged out of {address}.")


def _ask() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("API key: ")
    return sys.stdin.readline()


def place() -> Path:
    """Return the file: `safelight/login.json` in the user's configuration directory."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "safelight" / "login.json"


def load() -> Login:
    """Read what is kept; nothing where there is no file. Raises INVALID_REQUEST for a file that others can read."""
    path = place()
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Error(Code.INVALID_REQUEST, f"{path} holds API keys and can be read by others: chmod 600 it.")
        return msgspec.json.decode(path.read_bytes(), type=Login)
    except FileNotFoundError:
        return Login()
    except (OSError, msgspec.MsgspecError) as error:
        raise Error(Code.INVALID_REQUEST, f"{path} cannot be read: {error}. Log in again after removing it.") from None


def save(login: Login) -> None:
    """Write what is kept; the file appears whole, readable by its owner alone."""
    path = place()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(login)) + b"\n")
    new.replace(path)
