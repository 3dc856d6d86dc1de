"""``safelight backup`` and ``restore``."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from safelight.cli.backup.archive import Manifest
from safelight.cli.backup.copying import Copying
from safelight.cli.connection import HERE, Where, cluster_credentials
from safelight.cli.printing import Waiting, complain, counted, err, print_json, say
from safelight.client.availability.instances import Several
from safelight.client.availability.liveness import Liveness, while_waiting
from safelight.client.base import Connection, session
from safelight.client.db import DbClient
from safelight.client.discovery import REGISTRATION_KEYS
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.storage import StorageClient
from safelight.errors import FAILED, Code, Error
from safelight.wire import StoreClaim

_SERVERS = ("postgresql", "postgres")
_TELL_EVERY = 5.0
"""Seconds between two lines about the progress."""


async def backup_command(directory: Path, /, *, where: Where = HERE) -> int:
    """Back up tasks, events, recipes, keys, photos and results while the system works.

    The command makes a consistent copy of the database and then copies every blob that its tasks refer to; it checks
    each digest. If the directory already holds a backup of this database, only new blobs are copied; one of another
    database is refused. Run it beside the services, with the cluster key.

    Parameters
    ----------
    directory:
        The directory of the backup.
    """
    from safelight.cli.backup.taking import take  # noqa: PLC0415 - reads and writes the stores of services
    from safelight.cli.backup.target import interruptible, private, writing_to  # noqa: PLC0415 - as above

    async with _services(where) as (db, storage, keyvaluestore):
        again = "Run the command again; an earlier backup is still valid."
        with writing_to(directory), private(), interruptible(again):
            manifest, copied = await take(directory, db, storage, keyvaluestore)
    _print(manifest, where, f"Backed up {_contents(manifest)} to {directory}; {_new(copied, 'blob')}.")
    if manifest.missing:
        complain(
            f"Storage has lost or damaged {counted(len(manifest.missing), 'blob')} that tasks refer to, the first is "
            f"{manifest.missing[0]}. Everything else is in the backup."
        )
    return FAILED if manifest.missing else 0


async def restore_command(
    directory: Path,
    /,
    *,
    data: Path = Path("data"),
    db: Path | None = None,
    storage: Path | None = None,
    keyvaluestore_data: Path | None = None,
    check: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Restore a backup into empty data directories, before you start the services.

    Every byte is checked. The database gets a new identity, which tells readers of events that it went back in time.

    Parameters
    ----------
    directory:
        The directory of the backup.
    data:
        The data directory of `safelight up`, which has a subdirectory for each service.
    db:
        The data directory of db, if it is elsewhere.
    storage:
        The data directory of storage, if it is elsewhere.
    keyvaluestore_data:
        The data directory of the key-value store, if it is elsewhere.
    check:
        Only check that the backup is complete and undamaged.
    json:
        Print JSON for programs.
    """
    if check:
        return await _check(directory, Where(json=json))
    places = {"db": db, "storage": storage, "keyvaluestore": keyvaluestore_data}
    return await _restore(directory, {name: place or data / name for name, place in places.items()}, Where(json=json))


async def _check(directory: Path, shown: Where) -> int:
    from safelight.cli.backup import restoring  # noqa: PLC0415 - reads and writes the stores of services

    manifest = await restoring.check(directory)
    _print(manifest, shown, f"{directory} is complete: {_contents(manifest)}.")
    return 0


async def _restore(directory: Path, places: dict[str, Path], shown: Where) -> int:
    """Restore into the data directory of each service."""
    from safelight.cli.backup import restoring  # noqa: PLC0415 - reads and writes the stores of services
    from safelight.cli.backup.target import private, writing_to  # noqa: PLC0415 - as above

    with writing_to(places["storage"]), private():
        manifest, copied = await restoring.restore(directory, restoring.Places(**places))
    _print(manifest, shown, f"Restored {_contents(manifest)}; {counted(copied, 'blob')} were copied.")
    return 0


def _check_apart(to: str, source: str | None) -> None:
    if source is not None and source.rstrip("/") == to.rstrip("/"):
        raise Error(Code.INVALID_REQUEST, "--from and --to name the same store.")


async def migrate_command(
    *,
    to: str,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    verify: Annotated[bool, Parameter(negative="")] = False,
    where: Where = HERE,
) -> int:
    """Copy photos, tasks or entries of the key-value store to another backend, while the system works.

    --to postgresql://… copies tasks, events, recipes, tenants, keys and the audit log from SQLite, or --from another
    postgresql://…, into an empty database, as a consistent copy in one transaction, and compares the rows afterwards.
    --from postgresql://… --to sqlite:///FILE goes the other way. --to etcd://… copies the lasting entries of the
    key-value store, and --from etcd://… copies them back. Every other URL is a store for photos and results. Without
    --from, the command copies everything that tasks refer to out of the running system, whatever its backend, until
    nothing new arrives. It checks every digest and does not copy existing blobs again, so you can run it as often as
    you like. Then start storage with the new --store. docs/guide/growing.md says how to change over, and back.

    Parameters
    ----------
    to:
        The new store: file:///DIRECTORY, s3://…, gs://… or az://…; postgresql://USER@HOST/DATABASE or sqlite:///FILE;
        etcd://HOST:PORT,HOST:PORT.
    from_:
        The URL of the old store, if its service does not run; sqlite:///FILE for a database or a key-value store.
    verify:
        Also read the existing blobs, and replace damaged ones.
    """
    from safelight.cli.backup.target import interruptible, private  # noqa: PLC0415 - reads the stores of services

    _check_apart(to, from_)
    with private():
        if {_scheme(to), _scheme(from_ or "")} & {"etcd", "etcds"}:
            with interruptible("Run the command again."):
                return await _copy_entries(to, from_, where)
        if _scheme(to) not in (*_SERVERS, "sqlite"):
            with interruptible("Run the command again; it copies only the rest."):
                return await _copy_blobs(to, from_, where, verify=verify)
        with interruptible("Nothing was copied; run the command again."):
            rows = await _move_database(to, from_, where)
    return _tell_rows(rows, to, from_, as_json=where.json)


def _tell_rows(rows: dict[str, int], to: str, source: str | None, *, as_json: bool) -> int:
    if as_json:
        print_json(rows)
        return 0
    events = counted(rows["event"], "event")
    say(f"The database has {counted(rows['task'] + rows['ended'], 'task')} and {events}; they were compared.")
    new = "sqlite:///NEW-FILE" if source is None else _shown(source)
    _tell_way_back(_shown(to), new, "into a new file" if new.startswith("sqlite") else "once that is empty")
    return 0


async def _copy_entries(to: str, source: str | None, where: Where) -> int:
    from safelight.cli.backup import entries  # noqa: PLC0415 - reads and writes the stores of services

    async with entries.opened(to, made=True) as target:
        if source is not None:
            async with entries.opened(source) as old:
                done = await entries.copy(old, target)
        else:
            async with session() as http:
                shown = cluster_credentials(where)
                running = Connection(http, Several(where.keyvaluestore), credentials=shown, retry_for=1.0)
                done = await entries.copy(KeyValueStoreClient(running), target)
    if where.json:
        print_json(done)
    else:
        say(f"{to} has all {counted(done['entries'], 'lasting value')}; {_new(done['copied'], 'value')}.")
        _tell_way_back(to, source or "sqlite:///FILE")
    return 0


async def _move_database(to: str, source: str | None, where: Where) -> dict[str, int]:
    try:
        from safelight.cli.backup.postgres import check_target, load, unload  # noqa: PLC0415 - needs the driver
    except ModuleNotFoundError:
        detail = "postgresql:// needs the extra postgres: pip install 'safelight[postgres]'."
        raise Error(Code.INVALID_REQUEST, detail) from None
    from safelight.cli.backup.archive import Archive, Database  # noqa: PLC0415 - reads the stores of services
    from safelight.cli.backup.taking import fetch_database  # noqa: PLC0415 - as above
    from safelight.cli.backup.target import scratch, writing_to  # noqa: PLC0415 - as above

    if to.startswith("sqlite:"):
        if source is None or _scheme(source) not in _SERVERS or not to.startswith("sqlite:///"):
            detail = "To SQLite, write --from postgresql://USER@HOST/DATABASE --to sqlite:///FILE. To copy a SQLite "
            detail += "database, run safelight backup."
            raise Error(Code.INVALID_REQUEST, detail)
        file = Path(to.removeprefix("sqlite://"))
        with writing_to(file):
            return await unload(source, file)
    with scratch() as directory:
        copied = directory / "database.sqlite"
        if source is not None and _scheme(source) in _SERVERS:
            await check_target(to)
            await unload(source, copied)
            database = await asyncio.to_thread(Database, copied)
        elif source is None:
            archive = Archive(directory)
            async with _services(where) as (db, _, _):
                await check_target(to)
                digest, _ = await fetch_database(archive, db)
            database = await asyncio.to_thread(Database, archive.database(digest))
        else:
            database = await asyncio.to_thread(Database.migrated, _file(source), copied)
        try:
            return await load(database, to)
        finally:
            await asyncio.to_thread(database.close)


def _file(url: str) -> Path:
    path = Path(url.removeprefix("sqlite://"))
    if not url.startswith("sqlite:///") or not path.is_file():
        raise Error(
            Code.INVALID_REQUEST, f"{url} is not a database. Write sqlite:///FILE, the file of a db that is stopped."
        )
    return path


async def _copy_blobs(to: str, source: str | None, where: Where, *, verify: bool) -> int:
    from safelight.cli.backup import migrating  # noqa: PLC0415 - reads and writes the stores of services
    from safelight.cli.backup.target import writing_to  # noqa: PLC0415 - as above

    told = _Progress()
    while_waiting.set(Waiting())
    migrating.check_url(to)
    with writing_to(to):
        if source is not None:
            await migrating.check_source(source)
            async with (
                migrating.opened(source, readonly=True) as old,
                migrating.replacement(to, await migrating.id_of(source)) as new,
            ):
                done = await migrating.from_store(old, new, told, verify=verify)
        else:
            async with _services(where) as (db, storage, _):
                known = (await db.claim_store(StoreClaim())).id
                async with migrating.replacement(to, known) as new:
                    done = await migrating.from_system(db, storage, new, told, verify=verify)
    summary = {"blobs": done.blobs, "copied": done.copied, "size": done.size, "missing": sorted(done.missing)}
    if where.json:
        print_json(summary)
    else:
        size = f"{done.size / 1e6:.1f} MB"
        say(f"{to} has all {counted(done.blobs, 'blob')} ({size}); {_new(done.copied, 'blob')}.")
        _tell_way_back(to if source is not None else None, source or "OLD-STORE")
    if done.missing:
        lost = f"The old store has lost or damaged {counted(len(done.missing), 'blob')}"
        complain(f"{lost}, the first is {min(done.missing)}. Everything else was copied.")
    return FAILED if done.missing else 0


def _new(n: int, noun: str) -> str:
    return f"{counted(n, noun)} {'was' if n == 1 else 'were'} new"


def _scheme(url: str) -> str:
    return url.partition("://")[0]


def _shown(url: str) -> str:
    """Return a URL without the password that it may have."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", "@", 1)


def _tell_way_back(new: str | None, old: str, when: str = "") -> None:
    """Print the command that copies the new store back into the old one."""
    stores = (*(("--from", new) if new is not None else ()), "--to", old)
    words = f"safelight migrate {shlex.join(stores)}"
    say(f"The old store is unchanged. To go back later: {words}{f' ({when})' if when else ''}")


class _Progress:
    """Print the progress of a copy on a terminal from time to time."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, copying: Copying) -> None:
        now = time.monotonic()
        if err.is_terminal and now - self._told > _TELL_EVERY:
            self._told = now
            err.print(f"{counted(copying.blobs, 'blob')}, {copying.size / 1e6:.1f} MB so far", markup=False)


def _contents(manifest: Manifest) -> str:
    blobs = f"{counted(manifest.blobs, 'blob')} ({manifest.size / 1e6:.1f} MB)"
    return f"{counted(manifest.tasks, 'task')} and {blobs}"


def _print(manifest: Manifest, where: Where, sentence: str) -> None:
    if where.json:
        print_json(manifest)
    else:
        say(sentence)


@asynccontextmanager
async def _services(where: Where) -> AsyncIterator[tuple[DbClient, StorageClient, KeyValueStoreClient]]:
    """Open clients of the services that hold data, as the key-value store names them."""
    shown = cluster_credentials(where)
    while_waiting.set(Waiting())
    async with session() as http, Liveness.open(http) as liveness:
        registered = Connection(
            http,
            Several(where.keyvaluestore),
            credentials=shown,
            retry_for=1.0,
            liveness=liveness,
            service="keyvaluestore",
        )
        store = KeyValueStoreClient(registered)
        addresses = {}
        for name in ("db", "storage"):
            # All instances, since those that were killed stay registered for a while.
            known = [entry.value for entry in (await store.entries(REGISTRATION_KEYS[name])).entries]
            if not known:
                detail = f"No {name} is registered at the key-value store {where.keyvaluestore}; start it first."
                raise Error(Code.UNAVAILABLE, detail)
            addresses[name] = ",".join(known)

        def connection(name: str) -> Connection:
            return Connection(http, Several(addresses[name]), credentials=shown)

        yield DbClient(connection("db")), StorageClient(connection("storage")), store
