"""Test `safelight backup` of a running system, and `safelight restore` to a system that continues from there."""

import asyncio
import itertools
import json
import shutil
from pathlib import Path

import pytest

from kills.clients import upload_until
from kills.history import History
from safelight.client.db import DbClient
from safelight.client.master import Client
from safelight.storage.directory import DirectoryStore
from safelight.wire import State
from support.photos import is_inverse, photo
from support.programs.command import COMMAND, environment, file_limit
from support.programs.system import system

pytestmark = pytest.mark.slow
LIMIT = 120.0


async def run(*words, status=0):
    """Run the command; return its standard output, or its standard error if it must fail."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *map(str, words),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate()
    assert process.returncode == status, f"{words} ended with {process.returncode}: {out}{err}"
    return (err if status else out).decode()


async def backup(where, whole):
    return json.loads(await run("backup", where, "--keyvaluestore", whole.keyvaluestore, "--json"))


async def restore(where, data):
    return json.loads(await run("restore", where, "--data", data, "--json"))


async def identity(whole):
    async with DbClient.connect(f"127.0.0.1:{whole.ports['db']}") as db:
        return (await db.referenced()).db


async def test_a_hot_backup_has_everything_acknowledged_before_it(tmp_path):
    kept, numbers = tmp_path / "backup", itertools.count()
    history, stop = History(), asyncio.Event()
    async with system(tmp_path / "old", workers=1) as whole, Client.connect(whole.master) as client:
        await run("store", "set", "motto", "keep it", "--keyvaluestore", whole.keyvaluestore)
        uploads = [asyncio.create_task(upload_until(stop, client, history, numbers)) for _ in range(3)]
        after, finished = 0, 0
        async with asyncio.timeout(LIMIT):
            while finished < 5:
                page = await client.changes(after, wait=5.0)
                finished += sum(event.kind == "finished" for event in page.events)
                after = page.last
        first = await backup(kept, whole)
        acknowledged = list(history.acknowledged)
        second = await backup(kept, whole)
        stop.set()
        await asyncio.gather(*uploads)
        old = await identity(whole)
    assert len(history.acknowledged) > len(acknowledged), "uploads must continue during the backup"
    assert second["tasks"] >= len(acknowledged) >= 5
    assert first["missing"] == second["missing"] == []
    assert len(list(kept.glob("db-*.sqlite"))) == 1, "the second backup must replace the database of the first"
    told = json.loads(await run("restore", kept, "--check", "--json"))
    assert told["db_digest"] == second["db_digest"]
    await restore(kept, tmp_path / "new")
    async with system(tmp_path / "new", workers=1) as whole, Client.connect(whole.master) as client:
        for call in acknowledged:
            task = await client.wait(call.task, timeout=LIMIT)
            assert task.state is State.FINISHED
            async with client.result(task.id) as response:
                assert is_inverse(photo(call.photo), await response.read())
        assert (await run("store", "get", "motto", "--keyvaluestore", whole.keyvaluestore)).strip() == "keep it"
        assert await identity(whole) not in {old, ""}
        task = await client.upload(photo(next(numbers)), filename="after.png")
        assert (await client.wait(task.id, timeout=LIMIT)).state is State.FINISHED
        await refuses_another_database(kept, whole)
    assert "already exists" in await run("restore", kept, "--data", tmp_path / "new", status=5)


async def refuses_another_database(kept, whole):
    """Check that a backup is not replaced by one of another database, such as a new one without its disk."""
    manifest, files = kept / "manifest.json", sorted(kept.glob("*"))
    before = manifest.read_bytes()
    said = await run("backup", kept, "--keyvaluestore", whole.keyvaluestore, status=5)
    assert "holds a backup of another database" in " ".join(said.split())
    assert (manifest.read_bytes(), sorted(kept.glob("*"))) == (before, files)
    manifest.unlink()
    assert (await backup(kept, whole))["tasks"] > json.loads(before)["tasks"]
    assert len(list(kept.glob("db-*.sqlite"))) == 1


FAULTS = {"blob damaged": 6, "blob lost": 6, "database damaged": 6, "database lost": 3, "manifest cut": 6}
"""Kinds of damage to a backup, and the exit statuses of the commands that find them."""


async def test_a_damaged_backup_is_refused_and_leaves_no_database(tmp_path):
    whole_backup = tmp_path / "whole"
    async with system(tmp_path / "data", workers=1) as whole, Client.connect(whole.master) as client:
        task = await client.upload(photo(1), filename="one.png")
        await client.wait(task.id, timeout=LIMIT)
        made = await backup(whole_backup, whole)
    assert (made["tasks"], made["blobs"]) == (1, 2)
    for number, (what, status) in enumerate(FAULTS.items()):
        kept, new = tmp_path / f"backup-{number}", tmp_path / f"new-{number}"
        shutil.copytree(whole_backup, kept)
        harm(kept, *what.split())
        for words in (("--check",), ("--data", new)):
            complaint = await run("restore", kept, *words, status=status)
            assert "damaged" in complaint or "missing" in complaint
        assert not list(new.rglob("tasks.sqlite"))


def harm(kept, kind, fault):
    (database,) = kept.glob("db-*.sqlite")
    blob = max((kept / "storage/blobs").glob("*/*"), key=lambda file: file.stat().st_size)
    victim = {"blob": blob, "database": database, "manifest": kept / "manifest.json"}[kind]
    match fault:
        case "lost":
            victim.unlink()
        case "cut":
            victim.write_bytes(victim.read_bytes()[:-20])
        case "damaged":
            contents = bytearray(victim.read_bytes())
            contents[len(contents) // 2] ^= 1
            victim.write_bytes(contents)


@pytest.mark.parametrize("harm_it", [Path.unlink, lambda blob: blob.write_bytes(b"rotten")], ids=["lost", "damaged"])
async def test_a_lost_or_damaged_blob_is_reported_and_the_rest_is_backed_up(tmp_path, harm_it):
    async with system(tmp_path / "data", workers=1) as whole, Client.connect(whole.master) as client:
        one, two = [await client.upload(photo(n), filename=f"{n}.png") for n in (1, 2)]
        await client.wait(one.id, timeout=LIMIT)
        await client.wait(two.id, timeout=LIMIT)
        harm_it(next((tmp_path / "data/storage/blobs").rglob(one.input.digest)))
        complaint = await run("backup", tmp_path / "kept", "--keyvaluestore", whole.keyvaluestore, status=1)
        assert one.input.digest in complaint
    assert json.loads(await run("restore", tmp_path / "kept", "--check", "--json"))["missing"] == [one.input.digest]
    made = await restore(tmp_path / "kept", tmp_path / "new")
    assert made["tasks"] == 2
    async with DirectoryStore.at(tmp_path / "new/storage") as storage, storage.open(two.input.digest) as blob:
        assert b"".join([chunk async for chunk in blob.chunks()]) == photo(2)


async def test_a_backup_without_room_leaves_no_part_of_a_database(tmp_path):
    async with system(tmp_path / "old", workers=0) as whole:
        words = ("backup", tmp_path / "kept", "--keyvaluestore", whole.keyvaluestore)
        process = await asyncio.create_subprocess_exec(
            *(*file_limit(4096), COMMAND, *map(str, words)),
            env=environment(),
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(LIMIT):
            _, complaint = await process.communicate()
    assert process.returncode == 4, complaint.decode()
    assert f"{tmp_path}/kept is full" in complaint.decode()
    assert list((tmp_path / "kept").iterdir()) == []
