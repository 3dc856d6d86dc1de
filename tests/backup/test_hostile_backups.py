"""Test untrusted backups, stores and databases: reading them follows no links and runs no triggers."""

import asyncio
import hashlib
import os
import sqlite3
import time
from contextlib import closing

import pytest

from safelight.cli.backup import entries, migrating, restoring
from safelight.cli.backup.archive import Archive, Database, Manifest
from safelight.cli.backup.commands import migrate_command
from safelight.cli.backup.postgres import unload
from safelight.client.discovery import REGISTRATION_KEYS
from safelight.db.sqlite.connection import Connection
from safelight.errors import Code, Error
from safelight.keyvaluestore.sqlite import SqliteStore
from safelight.storage.directory import DirectoryStore
from safelight.wire import Entry
from support.bodies import stream

PHOTO = b"a photo"
DIGEST = hashlib.sha256(PHOTO).hexdigest()
THEIRS = "203.0.113.9:1"
TASK = """
INSERT INTO spec VALUES (1, 'a', '{}', 9);
INSERT INTO task (
  n, key, state, seq, created, changed, attempts, errors, deaths, classic_deaths, engine, seconds, priority, classic,
  internal, interactive, tenant, spec, recipe, input, input_size, filename, media_type, batch, reused
) VALUES (
  1, 'aaaaaaaaaa', 0, 1, 1, 1, 0, 0, 0, 0, '', 0, 0, 0, 0, 1, 'default', 1, 'invert', '%s', 7, 'a.png', 'image/png', '',
  0
);
"""


def database(path, script="", version=None):
    """Write a database as db does, and change it with a script."""
    Connection(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA journal_mode = DELETE; {script}")
        if version is not None:
            connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()


async def backup(root, script="", *, version=None, kept=()):
    """Write a complete backup with a database that a script has changed."""
    root.mkdir()
    database(root / "new", script, version)
    digest = hashlib.sha256((root / "new").read_bytes()).hexdigest()
    size = (root / "new").rename(root / f"db-{digest}.sqlite").stat().st_size
    async with DirectoryStore.at(root / "storage") as store:
        await store.put(stream(PHOTO))
    counts = {"tasks": 0, "last_event": 0, "blobs": 1, "names": 0, "size": len(PHOTO)}
    made = Manifest(created=1.0, safelight="0", db="a", db_digest=digest, db_size=size, entries=kept, **counts)
    Archive(root).write(made)
    return root


async def restored(root, new):
    """Restore a backup; return the directories."""
    places = restoring.Places(db=new / "db", storage=new / "storage", keyvaluestore=new / "keyvaluestore")
    await restoring.restore(root, places)
    return places


async def refused(root, new, *codes):
    """Assert that a backup is refused, both by a check and by a restore, with a message."""
    for attempt in (restoring.check(root), restored(root, new)):
        async with asyncio.timeout(30):
            with pytest.raises(Error) as caught:
                await attempt
        assert caught.value.code in codes, caught.value
    assert not (new / "db" / "tasks.sqlite").exists()


async def test_a_backup_is_restored(tmp_path):
    root = await backup(tmp_path / "backup", TASK % DIGEST)
    assert (await restoring.check(root)).blobs == 1
    places = await restored(root, tmp_path / "new")
    async with DirectoryStore.at(places.storage) as store, store.open(DIGEST) as blob:
        assert b"".join([chunk async for chunk in blob.chunks()]) == PHOTO


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_what_root_restores_belongs_to_the_owner_of_the_directory(tmp_path):
    """The users of the services could not open it otherwise."""
    root = await backup(tmp_path / "backup", TASK % DIGEST)
    link = tmp_path / "new/db/link"
    link.parent.mkdir(parents=True)
    link.symlink_to(root)
    for directory in (tmp_path / "new", link.parent):
        os.chown(directory, 65534, 65533)
    await restored(root, tmp_path / "new")
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in (tmp_path / "new").rglob("*")}
    assert owners == {(65534, 65533)}
    assert root.stat().st_uid == 0, "links must not be followed"


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TRIGGER act AFTER INSERT ON event BEGIN DELETE FROM api_key; END",
        "DROP TABLE recipe; CREATE VIEW recipe AS SELECT 'a' AS tenant, 'b' AS name, '{}' AS spec, 1 AS changed",
        "CREATE VIRTUAL TABLE more USING fts5(text)",
        "CREATE INDEX slow ON task (abs(n))",
        "CREATE TABLE more (n INTEGER)",
        "DROP TABLE audit",
        "INSERT INTO tenant VALUES ('a', 'no JSON')",
        f"INSERT INTO tenant VALUES ('a', '{'[' * 100_000}')",
        "UPDATE meta SET value = '[[' WHERE name = 'runs'; INSERT OR REPLACE INTO meta VALUES ('runs', '[[')",
        TASK % "../../../../etc/passwd",
        TASK % "no digest",
    ],
)
async def test_a_database_that_db_did_not_write_is_refused(tmp_path, script):
    root = await backup(tmp_path / "backup", script)
    await refused(root, tmp_path / "new", Code.DAMAGED_BLOB)


@pytest.mark.parametrize("version", [0, 1, 3, 5, -1, 9999])
async def test_the_version_in_a_database_is_not_trusted(tmp_path, version):
    """In a database of an earlier version, triggers could run while the database is migrated."""
    script = "CREATE TRIGGER act AFTER UPDATE ON delivery BEGIN DELETE FROM api_key; END"
    root = await backup(tmp_path / "backup", script, version=version)
    await refused(root, tmp_path / "new", Code.DAMAGED_BLOB, Code.UNAVAILABLE)


async def test_nobody_registers_a_service_by_a_backup(tmp_path):
    kept = [Entry(key="greeting", value="hello"), Entry(key="several", value="hi", instance="a")]
    hostile = [Entry(key=key, value=THEIRS, instance=name) for key in REGISTRATION_KEYS.values() for name in ("", "a")]
    root = await backup(tmp_path / "backup", kept=(*kept, *hostile))
    places = await restored(root, tmp_path / "new")
    async with SqliteStore.open(places.entries) as store:
        assert {entry.value for entry in (await store.entries()).entries} == {"hello", "hi"}


async def test_a_restoration_that_ended_among_the_entries_can_be_repeated(tmp_path):
    good, unfit = Entry(key="greeting", value="hello"), Entry(key="k" * 100_000, value="refused")
    broken = await backup(tmp_path / "broken", kept=(Entry(key="left", value="behind"), unfit))
    whole = await backup(tmp_path / "whole", kept=(good,))
    with pytest.raises(Error) as caught:
        await restored(broken, tmp_path / "new")
    assert caught.value.code is Code.INVALID_REQUEST
    places = await restored(whole, tmp_path / "new")
    async with SqliteStore.open(places.entries) as store:
        assert [entry.key for entry in (await store.entries()).entries] == ["greeting"]
    left = [path.name for directory in (places.db, places.keyvaluestore) for path in directory.iterdir()]
    assert sorted(left) == ["keyvaluestore.sqlite", "tasks.sqlite"]


async def test_nobody_registers_a_service_by_a_file_that_is_migrated(tmp_path):
    file = tmp_path / "theirs.sqlite"
    async with SqliteStore.open(file) as store:
        await store.set("dbendpoint", THEIRS, instance="a")
        await store.set("greeting", "hello")
    async with entries.opened(f"sqlite://{file}") as theirs, SqliteStore.open(tmp_path / "ours.sqlite") as ours:
        await entries.copy(theirs, ours)
        assert [entry.value for entry in (await ours.entries()).entries] == ["hello"]
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TRIGGER act AFTER UPDATE ON entry BEGIN DELETE FROM entry; END")
    with pytest.raises(Error) as caught:
        async with entries.opened(f"sqlite://{file}"):
            pass
    assert caught.value.code is Code.DAMAGED_BLOB


async def test_a_database_that_db_did_not_write_is_not_migrated(tmp_path):
    database(tmp_path / "theirs.sqlite", "CREATE TRIGGER act AFTER INSERT ON event BEGIN DELETE FROM api_key; END")
    with pytest.raises(Error) as caught:
        await migrate_command(to="postgresql://nobody@127.0.0.1:9/none", from_=f"sqlite://{tmp_path}/theirs.sqlite")
    assert caught.value.code is Code.DAMAGED_BLOB


def replace(path, kind, victim):
    """Replace a file or a directory by something else."""
    if path.is_dir():
        path.rename(path.with_name(f"{path.name}-before"))
    path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.symlink_to(victim)


@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
@pytest.mark.parametrize("place", ["manifest.json", "database", "blob", "storage/lock"])
async def test_only_regular_files_are_read(tmp_path, kind, place):
    root = await backup(tmp_path / "backup", TASK % DIGEST)
    victim = tmp_path / "victim"
    paths = {"database": next(root.glob("db-*")), "blob": root / "storage" / "blobs" / DIGEST[:2] / DIGEST}
    path = paths.get(place, root / place)
    if kind == "link" and path.stat().st_size:
        victim.write_bytes(path.read_bytes())
    replace(path, kind, victim)
    await refused(root, tmp_path / "new", Code.DAMAGED_BLOB)
    assert victim.exists() is (kind == "link" and place != "storage/lock")


@pytest.mark.parametrize("place", ["storage", "storage/incoming", "storage/blobs", f"storage/blobs/{DIGEST[:2]}"])
async def test_a_linked_directory_is_not_changed(tmp_path, place):
    """Storage empties `incoming` when it starts, and creates missing directories."""
    root = await backup(tmp_path / "backup", TASK % DIGEST)
    victim = tmp_path / "victim"
    (victim / "incoming").mkdir(parents=True)
    for file in (victim / "precious", victim / "incoming" / "precious"):
        file.write_text("kept")
    before = sorted(victim.rglob("*"))
    replace(root / place, "link", victim)
    await refused(root, tmp_path / "new", Code.DAMAGED_BLOB)
    if place != "storage":
        with pytest.raises(Error) as caught:
            async with migrating.opened(f"file://{root}/storage"):
                pass
        assert caught.value.code is Code.UNAVAILABLE
    assert sorted(victim.rglob("*")) == before


async def test_endless_files_are_not_read(tmp_path):
    root = await backup(tmp_path / "backup")
    start = time.monotonic()
    (path,) = root.glob("db-*")
    os.truncate(path, 1 << 42)
    await refused(root, tmp_path / "new", Code.DAMAGED_BLOB)
    os.truncate(root / "manifest.json", 1 << 40)
    await refused(root, tmp_path / "new", Code.DAMAGED_BLOB)
    (root / "manifest.json").write_text('{"more":' + "[" * 1_000_000)
    await refused(root, tmp_path / "new", Code.DAMAGED_BLOB)
    assert time.monotonic() - start < 90


@pytest.mark.parametrize("name", ["mine.txt", "db-mine.sqlite", ".db-notes"])
def test_a_directory_with_other_files_takes_no_backup(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(Error, match=f"has other files, such as {name}") as caught:
        Archive(tmp_path).prepare()
    assert caught.value.code is Code.CONFLICT
    assert (tmp_path / name).read_text() == "mine"


def test_a_manifest_of_another_program_takes_no_backup(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(Error, match="is damaged"):
        Archive(tmp_path).prepare()


def test_a_backup_of_a_newer_version_is_not_called_damaged(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": 2, "databases": [{"digest": "0"}]}')
    with pytest.raises(Error, match="written by a newer safelight"):
        Archive(tmp_path).read()


async def test_a_new_disk_and_an_interrupted_backup_take_one(tmp_path):
    (tmp_path / "lost+found").mkdir()
    for name in ("storage", ".db-new", f"db-{'a' * 64}.sqlite", ".manifest.json"):
        Archive(tmp_path).prepare()
        (tmp_path / name).touch()
    Archive(await backup(tmp_path / "backup")).prepare()


@pytest.mark.parametrize("end", ["", "-wal", "-journal", "-shm"])
@pytest.mark.parametrize("name", ["db/tasks.sqlite", "keyvaluestore/keyvaluestore.sqlite"])
async def test_nothing_is_written_beside_the_log_of_a_database_that_was_moved_away(tmp_path, name, end):
    root, left = await backup(tmp_path / "backup"), tmp_path / "new" / f"{name}{end}"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left")
    with pytest.raises(Error, match=f"^{left} already exists; ") as caught:
        await restored(root, tmp_path / "new")
    assert caught.value.code is Code.CONFLICT
    with pytest.raises(Error, match=f"^{left} already exists; ") as caught:
        await unload("postgresql://127.0.0.1:1/a", left.with_name(left.name.removesuffix(end)))
    assert caught.value.code is Code.CONFLICT
    assert [path for path in (tmp_path / "new").rglob("*") if path.is_file()] == [left]


def damage(path, table):
    """Overwrite the first page of a table, or if it is the table of the schema, what follows the file's header."""
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = DELETE")
        ((size,),) = file.execute("PRAGMA page_size")
        ((page,),) = file.execute(
            "SELECT rootpage FROM (SELECT 1 AS rootpage, 'sqlite_schema' AS name UNION ALL "
            "SELECT rootpage, name FROM sqlite_schema) WHERE name = ?",
            [table],
        )
    content = bytearray(path.read_bytes())
    start = 100 if page == 1 else (page - 1) * size
    content[start : page * size] = b"\xff" * (page * size - start)
    path.write_bytes(content)


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("table", ["sqlite_schema", "audit"])
async def test_a_damaged_page_of_a_database_is_told_in_a_sentence(tmp_path, table, readonly):
    database(tmp_path / "tasks.sqlite")
    damage(tmp_path / "tasks.sqlite", table)
    with (
        pytest.raises(Error, match="malformed") as caught,
        closing(Database(tmp_path / "tasks.sqlite", readonly=readonly)) as damaged,
    ):
        damaged.query("SELECT * FROM audit")
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.detail.startswith(f"{tmp_path}/tasks.sqlite cannot be ")


async def test_a_damaged_page_of_a_key_value_store_is_told_in_a_sentence(tmp_path):
    async with SqliteStore.open(tmp_path / "entries.sqlite"):
        pass
    damage(tmp_path / "entries.sqlite", "entry")
    with pytest.raises(Error, match="The key-value store failed: database disk image is malformed"):
        async with entries.opened(f"sqlite://{tmp_path}/entries.sqlite"):
            pass
