"""Copy a SQLite database into an empty PostgreSQL database, or the other way, in one transaction.

Statements are put together from the names in `_TABLES`, never from data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from safelight.cli.backup import owners
from safelight.cli.backup.archive import Database, existing_file, flush_directory, remove_file
from safelight.db.commit.memory import Memory
from safelight.db.commit.transaction import encoded
from safelight.db.postgres import schema
from safelight.db.postgres.ledger import Entry, SharedMemory, TenantCounts, payload
from safelight.db.postgres.sessions import escapes
from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.transaction import INSTANCES, lock
from safelight.db.rows import EventRow, TaskRow
from safelight.errors import Code, Error
from safelight.wire import ENDED, State

Rows = list[tuple[Any, ...]]
Convert = Callable[[Any], Any]

_TASK = tuple(field.name for field in msgspec.structs.fields(TaskRow))
_EVENT = tuple(field.name for field in msgspec.structs.fields(EventRow))
_LAST_OPEN = max(state for state in State if state not in ENDED)
_TABLES: dict[str, tuple[str, tuple[str, ...], str]] = {
    # The rows of each table: where they are read, their columns, their order.
    "spec": ("spec", ("id", "digest", "body", "until"), "id"),
    "task": (f"task WHERE state <= {_LAST_OPEN:d}", _TASK, "n"),
    "ended": (f"task WHERE state > {_LAST_OPEN:d}", _TASK, "n"),
    "event": ("event", _EVENT, "seq"),
    "delivery": ("delivery", ("n", "created", "due", "url", "attempt", "token", "task", "tenant"), "n"),
    "statistic": ("statistic", ("tenant", "slot", "body"), "tenant, slot"),
    "webhook_call": ("webhook_call", ("n", "tenant", "at", "body", "task"), "n"),
    "recipe": ("recipe", ("tenant", "name", "spec", "changed", "size"), "tenant, name"),
    "tenant": ("tenant", ("id", "body"), "id"),
    "api_key": ("api_key", ("id", "tenant", "body"), "rowid"),
    "session": ("session", ("id", "tenant", "expires", "body"), "id"),
    "ticket": ("ticket", ("id", "expires", "body"), "id"),
    "signing_key": ("signing_key", ("n", "tenant", "body"), "n"),
    "audit": ("audit", ("seq", "at", "tenant", "body"), "seq"),
}
_SUMMED = {
    "task": ("n", "seq", "changed"),
    "ended": ("n", "seq", "changed"),
    "event": ("seq", "n", "at"),
    "spec": ("id", "until"),
}
"""The columns whose sums are compared afterwards, besides the number of rows."""
_SUM = "sum({0} >> 32), sum({0} & 4294967295)"
"""The two halves of a column are summed apart: SQLite's sums have 64 bits, and times of some million rows have more."""
_JSON = {**dict.fromkeys(("task", "ended", "event"), ("outputs", "failure")), "webhook_call": ("body", "task")}
"""The columns that db writes to PostgreSQL as JSON, and escapes as such."""
_NUMBERED = {
    # The column with the numbers that a table gives, and the greatest one that rows show.
    "spec": ("id", "SELECT max(id) FROM spec"),
    "delivery": ("n", "SELECT greatest((SELECT max(n) FROM delivery), (SELECT max(n) FROM webhook_call))"),
    "signing_key": ("n", "SELECT max(n) FROM signing_key"),
    "audit": ("seq", "SELECT max(seq) FROM audit"),
}
_GIVEN = """\
SELECT last_value FROM pg_sequences
WHERE format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('{table}', '{column}')
"""
_META = ("store", "counted_to")
"""What is copied of `meta`. The database has an identity of its own, and observes its clock anew."""
_BATCH = 5000
_AGAIN = "Once that is mended, run the command again."
_LEDGER = """\
SELECT version, entry FROM ledger
WHERE version >= (SELECT max(version) FROM ledger WHERE complete) ORDER BY version
"""
_PUT_META = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


async def load(source: Database, url: str) -> dict[str, int]:
    """Load everything into an empty database, compare it, and return the number of rows of each table.

    Raises CONFLICT if the database is in use or has data, UNAVAILABLE, and DAMAGED_BLOB if the comparison fails. After
    an error the database is unchanged.
    """
    address = Address(url=url)
    await schema.check(address)
    server = await address.connect(statement_timeout="0", idle_in_transaction_session_timeout="0", enable_seqscan="on")
    try:
        async with server.transaction():
            await _refuse_used(server, address)
            await _make_partitions(server, source)
            await server.execute("DELETE FROM tenant")
            for table, (_, columns, _) in _TABLES.items():
                for rows in _batches(source, table):
                    await server.copy_records_to_table(table, records=rows, columns=columns, timeout=600)
            await _set_numbers(server, source)
            for name in _META:
                await server.execute(_PUT_META, name, _meta_of(source, name))
            entry = payload(_entry(source.memory))
            await server.execute("INSERT INTO ledger VALUES (2, 0, 'loaded', $1, true)", entry)
            return {table: await _compare(server, source, table) for table in _TABLES}
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        detail = (
            f"The database at {address.shown} did not accept everything and is unchanged: {_reason(error)}. {_AGAIN}"
        )
        raise Error(Code.UNAVAILABLE, detail) from error
    finally:
        await server.close()


async def check_target(url: str) -> None:
    """Raise what `load` would raise at its start, before a large database is copied for it in vain."""
    address = Address(url=url)
    await schema.check(address)
    server = await address.connect()
    try:
        async with server.transaction():
            await _refuse_used(server, address)
    finally:
        await server.close()


def _reason(error: BaseException) -> str:
    """Return why a transaction failed; ending that of a lost connection raises an error of its own."""
    lost = isinstance(error, asyncpg.InterfaceError) and error.__context__ is not None
    reason = str(error.__context__ if lost else error).strip().rstrip(".")
    return reason or "the connection was lost"


async def unload(url: str, path: Path) -> dict[str, int]:
    """Write a consistent copy of everything into a new SQLite file; return the number of rows of each table.

    Services may keep running. Raises CONFLICT if the file exists, UNAVAILABLE, DAMAGED_BLOB.
    """
    new, written = _new_file(path), dict[str, int]()
    address = Address(url=url)
    await schema.check(address)
    server = await address.connect(statement_timeout="0", idle_in_transaction_session_timeout="0", enable_seqscan="on")
    try:
        async with server.transaction(isolation="repeatable_read", readonly=True):
            target = Database(new, readonly=False)
            try:
                with target.writing() as write:
                    await _write_all(server, write)
                written = {table: await _compare(server, target, table) for table in _TABLES}
                target.check()
            finally:
                target.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        detail = f"The database at {address.shown} could not be read: {_reason(error)}. {_AGAIN}"
        raise Error(Code.UNAVAILABLE, detail) from error
    finally:
        await server.close()
        if not written:
            remove_file(new)
    owners.give_file(new)
    new.replace(path)
    flush_directory(path.parent)
    return written


def _new_file(path: Path) -> Path:
    """Return the temporary name under which to write the file. Raises CONFLICT if the file exists."""
    if found := existing_file(path):
        raise Error(Code.CONFLICT, f"{found} already exists; name a new file.")
    owners.make(path.parent)
    new = path.with_name(f".{path.name}.new")
    remove_file(new)
    return new


Write = Callable[[str, Sequence[Sequence[Any]]], None]
"""Writes rows by a statement."""


async def _write_all(server: asyncpg.Connection[Any], write: Write) -> None:
    write("DELETE FROM tenant", [()])
    for table, (place, columns, order) in _TABLES.items():
        into = place.partition(" ")[0]
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        ordered = "n" if order == "rowid" else order
        cursor = server.cursor(f"SELECT {names} FROM {table} ORDER BY {ordered}", prefetch=_BATCH)  # noqa: S608
        batch: Rows = []
        async for row in cursor:
            batch.append(tuple(row))
            if len(batch) >= _BATCH:
                write(f"INSERT INTO {into} ({names}) VALUES ({marks})", _unescaped(table, batch))  # noqa: S608
                batch = []
        if batch:
            write(f"INSERT INTO {into} ({names}) VALUES ({marks})", _unescaped(table, batch))  # noqa: S608
    await _write_memory(server, write)


async def _write_memory(server: asyncpg.Connection[Any], write: Write) -> None:
    """Write what an instance remembers about the whole database, and the last numbers that tables have given."""
    memory = SharedMemory()
    for version, entry in await server.fetch(_LEDGER):
        memory.apply(version, msgspec.json.decode(entry, type=Entry))
    put_meta = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    kept = await server.fetch("SELECT name, value FROM meta WHERE name = ANY($1)", _META)
    known = [("engine", memory.engine), ("removed_event", memory.removed_event), ("unheard", encoded(memory.unheard))]
    write(put_meta, [*known, *map(tuple, kept)])
    write("INSERT INTO tenant_use VALUES (?, ?)", [(name, held.bytes) for name, held in memory.held.items()])
    numbers = [("task", memory.last_task), ("event", memory.last_event)]
    for table, (column, greatest) in _NUMBERED.items():
        given = await server.fetchval(_GIVEN.format(table=table, column=column))
        numbers.append((table, max(given or 0, await server.fetchval(greatest) or 0)))
    write("DELETE FROM sqlite_sequence", [()])
    write("INSERT INTO sqlite_sequence VALUES (?, ?)", numbers)


async def _set_numbers(server: asyncpg.Connection[Any], source: Database) -> None:
    """Continue the numbers of each table, since those of rows that are gone must not be given again."""
    for table, (column, greatest) in _NUMBERED.items():
        found = source.query(f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'")  # noqa: S608
        last = f"nullif(greatest(({greatest}), $1::bigint), 0)"
        setting = f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), {last})"
        await server.execute(setting, found[0][0] if found else None)


async def _refuse_used(server: asyncpg.Connection[Any], address: Address) -> None:
    if not await server.fetchval(f"SELECT pg_try_advisory_xact_lock({lock(INSTANCES)})"):
        raise Error(Code.CONFLICT, f"A db service uses the database at {address.shown}; stop it first.")
    if await server.fetchval("SELECT max(version) FROM ledger") != 1:
        raise Error(Code.CONFLICT, f"The database at {address.shown} has data already; name an empty one.")


async def _make_partitions(server: asyncpg.Connection[Any], source: Database) -> None:
    """Make one partition for all old rows; it is dropped when the last of them may be deleted."""
    now = await server.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    newest = source.query("SELECT max((SELECT max(changed) FROM task), (SELECT max(at) FROM event))")[0][0]
    until = max(now, newest or 0) + 1
    for table in ("ended", "event"):
        await server.execute(f"CREATE TABLE {table}_0 PARTITION OF {table} FOR VALUES FROM (0) TO ({until})")
        await server.execute("INSERT INTO partition VALUES ($1, $2, 0, $3, NULL)", f"{table}_0", table, until)


def _batches(source: Database, table: str) -> Iterator[Rows]:
    place, columns, order = _TABLES[table]
    rows = source.rows(f"SELECT {', '.join(columns)} FROM {place} ORDER BY {order}")  # noqa: S608
    while batch := [row for _, row in zip(range(_BATCH), rows, strict=False)]:
        yield _converted(table, batch, escapes.text, escapes.json)


def _unescaped(table: str, rows: Rows) -> Rows:
    return _converted(table, rows, escapes.whole_text, escapes.whole_json)


def _converted(table: str, rows: Rows, text: Convert, json: Convert) -> Rows:
    """Convert the values of rows, each column as text or as JSON."""
    convert = [json if column in _JSON.get(table, ()) else text for column in _TABLES[table][1]]
    columns = zip(*rows, strict=True)
    return list(zip(*(map(one, values) for one, values in zip(convert, columns, strict=True)), strict=True))


def _meta_of(source: Database, name: str) -> str:
    found = source.query(f"SELECT value FROM meta WHERE name = '{name}'")  # noqa: S608
    return str(found[0][0]) if found else ""


async def _compare(server: asyncpg.Connection[Any], source: Database, table: str) -> int:
    place, _, _ = _TABLES[table]
    sums = ", ".join(["count(*)", *(_SUM.format(column) for column in _SUMMED.get(table, ()))])
    (there,) = source.query(f"SELECT {sums} FROM {place}")  # noqa: S608
    here = await server.fetchrow(f"SELECT {sums} FROM {table}")  # noqa: S608
    if [int(one or 0) for one in here or ()] != [int(one or 0) for one in there]:
        raise Error(Code.DAMAGED_BLOB, f"The copy of the table {table} differs from the original; nothing was kept.")
    return int(there[0])


def _entry(memory: Memory) -> Entry:
    """Return the entry with what an instance remembers about the whole database."""
    return Entry(
        last_event=memory.last_event,
        last_task=memory.last_task,
        removed_event=memory.removed_event,
        deliveries=memory.deliveries,
        engine=memory.engine,
        unheard=memory.unheard,
        counts={name: TenantCounts.of(held) for name, held in memory.held.items()},
    )
