"""Log in and out: keep and forget the API key of a master."""

from __future__ import annotations

import sys

from safelight.cli.access.kept_keys import Login, load, save
from safelight.cli.connection import HERE, Where, access
from safelight.cli.printing import print_json, say
from safelight.cli.prompt import line, secret
from safelight.client.availability.instances import first_of
from safelight.client.base import bearer
from safelight.errors import Code, Error


async def login_command(*, where: Where = HERE) -> None:
    """Keep an API key for a master, so that later commands use it.

    The command asks for the key, or reads it from standard input if that is not a terminal. It keeps the key in a file
    that only you can read.
    """
    key = await _ask()
    if not key:
        raise Error(Code.INVALID_REQUEST, "There is no key. Type it, or write it to standard input.")
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
    address = first_of(where.master or known.master)
    if address not in known.keys:
        raise Error(Code.NOT_FOUND, "You are not logged in there.")
    keys = {name: key for name, key in known.keys.items() if name != address}
    save(Login(master="" if known.master == address else known.master, keys=keys))
    if not where.json:
        say(f"Logged out of {address}.")


async def _ask() -> str:
    return await secret("API key") if sys.stdin.isatty() else await line()
