"""Tenants: list, create, change, delete; the audit log."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import msgspec
from cyclopts import Parameter

from safelight.cli.connection import HERE, Where, access
from safelight.cli.durations import limited, number_of_bytes
from safelight.cli.groups import commands
from safelight.cli.printing import out, print_json, say, size, table
from safelight.client.access import AccessClient
from safelight.errors import Code, Error
from safelight.untrusted.text import printable_json
from safelight.wire.accounts import Limits, Tenant, TenantSeen

app = commands("tenants")

_NO_LIMIT = "none"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LimitFlags:
    """The limits of a tenant, as people write them. Limits that are not given stay as they are.

    Parameters
    ----------
    max_uploads:
        How many uploads it may have in progress at once; none removes the limit, here and below.
    max_waiting:
        How many tasks it may have waiting.
    max_bytes:
        How much space its originals and results may take, such as 20GiB.
    max_requests:
        How many requests it may make per second.
    """

    max_uploads: str | None = None
    max_waiting: str | None = None
    max_bytes: str | None = None
    max_requests: str | None = None

    def change(self, before: Limits) -> Limits:
        """Return the limits with the given ones changed. Raises INVALID_REQUEST."""
        given: dict[str, tuple[str | None, Any]] = {
            "uploads": (self.max_uploads, int),
            "waiting": (self.max_waiting, int),
            "bytes": (self.max_bytes, number_of_bytes),
            "requests": (self.max_requests, float),
        }
        changes: dict[str, Any] = {}
        for field, (text, read) in given.items():
            if text is None:
                continue
            try:
                changes[field] = None if text == _NO_LIMIT else read(text)
            except ValueError:
                raise Error(Code.INVALID_REQUEST, f"--max-{field} is a number, or none: not {text[:32]!r}.") from None
        return before.evolve(**changes)  # type: ignore[no-any-return]


_AS_BEFORE = LimitFlags()


@app.default
@app.command(name="list")
async def list_command(*, where: Where = HERE) -> None:
    """List the tenants, their limits and what they use."""
    async with access(where) as (client, _):
        tenants = await client.tenants()
    if where.json:
        print_json(tenants)
        return
    columns = ("TENANT", "WEIGHT", "TASKS", "WAITING", "KEPT", "UPLOADS", "REQUESTS/S", "NAME")
    out.print(table(*columns, rows=[_row(each) for each in tenants]))


@app.command(name="create")
async def create_command(
    id: str,
    /,
    *,
    name: str = "",
    weight: float = 1.0,
    limits: LimitFlags = _AS_BEFORE,
    where: Where = HERE,
) -> None:
    """Create a tenant. Make its first key with `safelight keys create NAME --tenant ID --scope administer`.

    Parameters
    ----------
    id:
        The tenant's id: 1 to 32 of a-z, 0-9 and -.
    name:
        A name for people.
    weight:
        Its share of the workers, relative to the weights of the other tenants with waiting tasks.
    """
    async with access(where) as (client, _):
        made = await client.create_tenant(id, name=name, weight=weight, limits=limits.change(Limits()))
    _say(made, "Created", where)


@app.command(name="change")
async def change_command(
    id: str,
    /,
    *,
    name: str | None = None,
    weight: float | None = None,
    limits: LimitFlags = _AS_BEFORE,
    disable: bool = False,
    enable: bool = False,
    where: Where = HERE,
) -> None:
    """Change a tenant. Properties that are not given stay as they are.

    Parameters
    ----------
    id:
        The tenant's id.
    name:
        A name for people.
    weight:
        Its share of the workers.
    disable:
        Refuse its keys, sessions and signed links. Its tasks continue.
    enable:
        Accept them again.
    """
    async with access(where) as (client, _):
        before = await _tenant(client, id)
        changed = await client.change_tenant(
            id,
            name=before.name if name is None else name,
            weight=before.weight if weight is None else weight,
            limits=limits.change(before.limits),
            disabled=disable or (before.disabled and not enable),
        )
    _say(changed, "Changed", where)


async def _tenant(client: AccessClient, id: str) -> Tenant:
    found = next((each.tenant for each in await client.tenants() if each.tenant.id == id), None)
    if found is None:
        raise Error(Code.NOT_FOUND, f"There is no tenant {id}.")
    return found


@app.command(name="delete")
async def delete_command(id: str, /, *, where: Where = HERE) -> None:
    """Delete a tenant that has no tasks, with its keys, sessions, recipes and webhook calls.

    Parameters
    ----------
    id:
        The tenant's id.
    """
    async with access(where) as (client, _):
        await client.delete_tenant(id)
    if not where.json:
        say(f"Deleted tenant {id}.")


@app.command(name="webhook-secret")
async def webhook_secret_command(*, rotate: bool = False, overlap: str = "1d", where: Where = HERE) -> None:
    """Print the secret with which receivers verify the tenant's webhook calls.

    Parameters
    ----------
    rotate:
        Make a new secret first.
    overlap:
        How long calls are also signed with the old secret, such as 1h.
    """
    async with access(where) as (client, _):
        kept = limited(overlap, "--overlap", days=366, zero=True)
        made = await (client.rotate_webhook_secret(overlap=kept) if rotate else client.webhook_secret())
    if where.json:
        print_json(made)
    else:
        say(made.secret)


async def audit_command(*, after: int = 0, where: Where = HERE) -> None:
    """Print the audit log: who did what to keys, tenants, recipes, links and other tenants' tasks.

    Each line is a JSON object.

    Parameters
    ----------
    after:
        The number (seq) of the last entry that you have.
    """
    async with access(where) as (client, _):
        async for entry in client.audit(after):
            sys.stdout.write(printable_json(msgspec.json.encode(entry).decode()) + "\n")


def _say(tenant: Tenant, what: str, where: Where) -> None:
    if where.json:
        print_json(tenant)
    else:
        say(f"{what} tenant {tenant.id}.")


def _row(seen: TenantSeen) -> tuple[str, ...]:
    tenant, use, limits = seen.tenant, seen.use, seen.tenant.limits
    waiting = use.tasks.get("waiting", 0)
    return (
        tenant.id + (" (disabled)" if tenant.disabled else ""),
        f"{tenant.weight:g}",
        str(sum(use.tasks.values())),
        f"{waiting} of {limits.waiting}" if limits.waiting is not None else str(waiting),
        f"{size(use.bytes)} of {size(limits.bytes)}" if limits.bytes is not None else size(use.bytes),
        "any" if limits.uploads is None else str(limits.uploads),
        "any" if limits.requests is None else f"{limits.requests:g}",
        tenant.name,
    )
