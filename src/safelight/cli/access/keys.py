"""API keys: create, list, rotate, revoke."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from safelight.cli import service_time
from safelight.cli.connection import HERE, Where, access
from safelight.cli.durations import limited
from safelight.cli.groups import commands
from safelight.cli.printing import ago, duration, out, print_json, say, table
from safelight.wire.accounts import CreatedKey, KeyInfo, Scope

app = commands("keys")

_DEFAULT_SCOPES = (Scope.UPLOAD, Scope.READ)


@app.default
@app.command(name="list")
async def list_command(*, where: Where = HERE) -> None:
    """List the API keys of the tenant."""
    async with access(where) as (client, _):
        keys = await client.keys()
    if where.json:
        print_json(keys)
        return
    columns = ("ID", "NAME", "SCOPES", "CREATED", "LAST USED", "STATE")
    out.print(table(*columns, rows=[_row(key) for key in keys]))


@app.command(name="create")
async def create_command(
    name: str,
    /,
    *,
    scopes: Annotated[list[Scope], Parameter(name="--scope")] = list(_DEFAULT_SCOPES),  # noqa: B006 - never changed
    expires: str | None = None,
    where: Where = HERE,
) -> None:
    """Create an API key and print it; it is not shown again.

    Parameters
    ----------
    name:
        What the key is for; people see it in lists and in the audit log.
    scopes:
        What the key may do: upload, read, operate or administer; give the flag once for each.
    expires:
        How long it is valid, such as 30d; by default until it is revoked.
    """
    async with access(where) as (client, _):
        lifetime = None if expires is None else limited(expires, "--expires", days=3660)
        made = await client.create_key(name, scopes, expires_in=lifetime)
    _show(made, where)


@app.command(name="rotate")
async def rotate_command(id: str, /, *, overlap: str = "1d", where: Where = HERE) -> None:
    """Give an API key a new secret and print it; it is not shown again.

    Parameters
    ----------
    id:
        The id of the key.
    overlap:
        How long the old secret stays valid, such as 1h.
    """
    async with access(where) as (client, _):
        made = await client.rotate_key(id, overlap=limited(overlap, "--overlap", days=366, zero=True))
    _show(made, where)


@app.command(name="revoke")
async def revoke_command(id: str, /, *, where: Where = HERE) -> None:
    """Revoke an API key; every master refuses it within seconds.

    Parameters
    ----------
    id:
        The id of the key.
    """
    async with access(where) as (client, _):
        await client.revoke_key(id)
    if not where.json:
        say(f"Revoked key {id}.")


def _show(made: CreatedKey, where: Where) -> None:
    if where.json:
        print_json(made)
    else:
        say(made.token)


def _row(key: KeyInfo) -> tuple[str, str, str, str, str, str]:
    if key.revoked is not None:
        state = "revoked"
    elif key.expires is not None:
        left = key.expires - service_time.now()
        state = "expired" if left < 0 else f"expires in {duration(left)}"
    else:
        state = "valid"
    used = ago(key.last_used) if key.last_used else "never"
    return key.id, key.name, ", ".join(key.scopes), ago(key.created), used, state
