"""The key-value store: get, set, delete, list, watch."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from safelight.cli.connection import HERE, Where
from safelight.cli.connection import store as opened
from safelight.cli.groups import commands
from safelight.cli.printing import clock, counted, out, print_json, say, table
from safelight.errors import Code, Error
from safelight.wire import Entry

app = commands("store", about="Read and change the key-value store.")


@app.command(name="get")
async def get_command(key: str, /, *, where: Where = HERE) -> None:
    """Print the value of a key.

    Parameters
    ----------
    key:
        The key.
    """
    async with opened(where) as client:
        if where.json:
            print_json((await client.entries(key)).entries)
        else:
            out.print(await client.get(key), markup=False, soft_wrap=True)


@app.command(name="set")
async def set_command(
    key: str,
    value: str,
    /,
    *,
    instance: str = "",
    ttl: Annotated[float | None, Parameter(help="How many seconds the entry stays unless it is set again.")] = None,
    where: Where = HERE,
) -> None:
    """Set the value of a key.

    Parameters
    ----------
    key:
        The key.
    value:
        The new value.
    instance:
        Set the value of this instance only, and leave those of others under the same key.
    """
    async with opened(where) as client:
        entry = await client.set(key, value, instance=instance, ttl=ttl)
    if where.json:
        print_json(entry)


@app.command(name="delete")
async def delete_command(key: str, /, *, instance: str | None = None, where: Where = HERE) -> None:
    """Delete the values of a key.

    Parameters
    ----------
    key:
        The key.
    instance:
        Delete only the value of this instance.
    """
    async with opened(where) as client:
        gone = await client.delete(key, instance=instance)
    if where.json:
        print_json(gone)
    elif gone:
        out.print(f"Deleted {counted(gone, 'value')}.")
    if not gone:
        whose = "" if instance is None else f" of the instance {instance}"
        raise Error(Code.NOT_FOUND, f"There is no value{whose} under the key {key}.")


@app.command(name="list")
async def list_command(*, where: Where = HERE) -> None:
    """List all entries."""
    async with opened(where) as client:
        page = await client.entries()
    if where.json:
        print_json(page)
        return
    rows = [(entry.key, entry.value, entry.instance, _expiry(entry)) for entry in page.entries]
    out.print(table("KEY", "VALUE", "INSTANCE", "EXPIRES", rows=rows))


@app.command(name="watch")
async def watch_command(key: str | None = None, /, *, where: Where = HERE) -> None:
    """Print entries, and each change to them, until Ctrl-C.

    Parameters
    ----------
    key:
        Watch only this key.
    """
    shown: dict[tuple[str, str], str] | None = None
    revision = -1
    async with opened(where) as client:
        while True:
            page = await client.watch(revision, key=key)
            revision = page.revision
            now = {(entry.key, entry.instance): entry.value for entry in page.entries}
            if where.json:
                if now != shown:
                    print_json(page)
            else:
                _print_changes(shown or {}, now)
            shown = now


def _print_changes(before: dict[tuple[str, str], str], now: dict[tuple[str, str], str]) -> None:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) == now.get(name):
            continue
        sign, value = ("-", before[name]) if name not in now else ("+", now[name])
        say(f"{sign} {name[0]}={value}", style="red" if sign == "-" else "green")


def _expiry(entry: Entry) -> str:
    if entry.expires is None:
        return "never"
    return clock(entry.expires)
