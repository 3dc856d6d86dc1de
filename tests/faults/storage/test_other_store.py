"""Test storage on a wrong directory, without the blobs that db refers to: a disk is not mounted, or is another."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from faults.power import Disk, mount, mounted, unmount_in_use
from faults.uploading import upload
from safelight.client.base import session
from safelight.client.master import Client
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.wire import State
from support.photos import photo
from support.programs.system import System, system
from support.programs.until import until

pytestmark = pytest.mark.slow

SETTINGS = {"worker": ["--slots", "1"], "db": ["--max-errors", "1", "--max-deaths", "1"]}
"""Settings with which a single error or death ends a task."""


async def waiting(whole: System) -> tuple[str, str]:
    """Upload one photo that is processed and one that waits; return their tasks."""
    async with Client.connect(whole.master) as client:
        done = await client.upload(photo(1), filename="1.png")
        assert (await client.wait(done.id)).state is State.FINISHED
        await whole.kill("worker-0")
        return done.id, (await client.upload(photo(2), filename="2.png")).id


async def replace_store(whole: System, name: str) -> None:
    """Let storage start with an empty directory, like the mount point of a disk that is not mounted."""
    await whole.kill(name)
    (whole.data / "storage").rename(whole.data / "disk")
    await whole.start(name)


NOT_THE_STORE = "not the store of photos that db knows"
NOT_THE_DATABASE = "The database is not the one that knows this store of photos"


async def refusal(whole: System, said: str = NOT_THE_STORE) -> str:
    """Wait until storage reports the problem; return its message."""
    found = [""]

    async def refused() -> bool:
        with suppress(aiohttp.ClientError):  # the master may not listen yet
            async with http.get(f"http://{whole.master}/storage") as answer:
                found.append(json.loads(await answer.read()).get("detail", ""))
        return said in found[-1]

    async with session() as http:
        await until(refused, timeout=30)
    return found[-1]


@pytest.mark.parametrize("together", [False, True])
async def test_a_disk_that_is_not_mounted_costs_no_photo(tmp_path, together):
    """Meanwhile, no task is charged and no blob stored or collected; once the disk is mounted, storage restarts."""
    name = "allinone" if together else "storage"
    async with system(tmp_path, workers=1, settings=SETTINGS, together=together) as whole:
        finished, waits = await waiting(whole)
        await replace_store(whole, name)
        assert "Mount its disk" in await refusal(whole)
        await whole.start("worker-0")
        await whole.running["worker-0"].log("No photo can be processed")
        async with Client.connect(whole.master) as client, session() as http:
            listed = json.loads(await (await http.get(f"http://{whole.master}/services")).read())
            (storage,) = [each for each in listed if each["name"] == "storage"]
            assert not storage["ready"]
            assert NOT_THE_STORE in storage["detail"]
            async with http.get(f"http://{whole.master}/task/{finished}/result") as answer:
                assert answer.status == 503
            assert (await upload(http, whole.master, 3)).is_refusal
            task = await client.task(waits)
            assert (task.state in (State.WAITING, State.WORKING), task.errors, task.deaths) == (True, 0, 0), task
            assert not list((whole.data / "storage").glob("blobs/*/*"))
            (whole.data / "storage").rename(whole.data / "below")
            (whole.data / "disk").rename(whole.data / "storage")
            assert await whole.running[name].ended() == 0
            await whole.start(name)
            task = await client.wait(waits)
            assert (task.state, task.errors, task.deaths) == (State.FINISHED, 0, 0), task
            assert await client.save(finished, tmp_path / "result")


async def test_a_person_replaces_a_store_that_is_lost(tmp_path):
    """The other store is accepted while storage runs; tasks that need the old one fail, and the others continue."""
    async with system(tmp_path, workers=1, settings=SETTINGS) as whole:
        _, waits = await waiting(whole)
        await replace_store(whole, "storage")
        new = (await refusal(whole)).split()[-1].rstrip(".")
        async with Client.connect(whole.master) as client:
            with pytest.raises(Error) as wrong:
                await client.accept_storage("")
            assert wrong.value.code is Code.INVALID_REQUEST
            assert (await client.accept_storage(new)).id == new

            async def stores() -> bool:
                try:
                    return bool(await client.storage())
                except Error:
                    return False

            await until(stores, timeout=30)
            with pytest.raises(Error) as another:
                await client.accept_storage("0" * 32)
            assert another.value.code is Code.CONFLICT
            assert (await client.accept_storage(new)).id == new, "a repeated request must get the same answer"
            await whole.start("worker-0")
            lost = await client.wait(waits)
            assert lost.failure is not None
            assert (lost.state, lost.failure.code) == (State.FAILED, Code.NOT_FOUND)
            made = await client.upload(photo(4), filename="4.png")
            assert (await client.wait(made.id)).state is State.FINISHED
        await whole.kill("storage")
        await whole.start("storage")
        async with StorageClient.connect(f"http://{whole.address('storage')}") as storage:
            assert (await storage.info()).blobs


async def test_a_disk_that_is_unmounted_while_storage_runs_costs_no_photo(tmp_path):
    """At once, not only when storage looks at the store again; nothing is written below the mount point."""
    Disk(tmp_path)
    image, data = tmp_path / "disk.img", tmp_path / "data"
    place = data / "storage"
    data.mkdir()
    with mounted(image, place):
        async with system(data, workers=1, settings=SETTINGS) as whole, Client.connect(whole.master) as client:
            finished, waits = await waiting(whole)
            unmount_in_use(place)
            async with session() as http:
                async with http.get(f"http://{whole.master}/task/{finished}/result") as answer:
                    assert answer.status == 503
                assert (await upload(http, whole.master, 3)).is_refusal
            await whole.start("worker-0")
            await whole.running["worker-0"].log("No photo can be processed")
            await whole.running["storage"].log(NOT_THE_STORE)
            task = await client.task(waits)
            assert (task.state in (State.WAITING, State.WORKING), task.errors, task.deaths) == (True, 0, 0), task
            assert not list(place.iterdir())
            mount(image, place)
            assert await whole.running["storage"].ended() == 0
            await whole.start("storage")
            task = await client.wait(waits)
            assert (task.state, task.errors, task.deaths) == (State.FINISHED, 0, 0), task
            assert await client.save(finished, tmp_path / "result")


def apart(tmp_path: Path) -> dict[str, list[str]]:
    """Return settings with which blobs lie apart from storage's own data."""
    return SETTINGS | {"storage": ["--store", f"file://{tmp_path / 'photos'}", "--grace", "0"]}


async def test_an_empty_database_with_a_full_store_is_not_trusted(tmp_path):
    """The disk of db is not mounted when db starts again; once it is, everything goes on by itself."""
    async with system(tmp_path / "data", workers=1, settings=apart(tmp_path)) as whole:
        finished, waits = await waiting(whole)
        await whole.kill("db")
        (whole.data / "db").rename(tmp_path / "disk")
        await whole.start("db")
        await refusal(whole, NOT_THE_DATABASE)
        async with session() as http:
            assert (await upload(http, whole.master, 3)).is_refusal
        await whole.kill("db")
        shutil.rmtree(whole.data / "db")
        (tmp_path / "disk").rename(whole.data / "db")
        await whole.start("db")
        await whole.start("worker-0")
        async with Client.connect(whole.master) as client:
            assert (await client.wait(waits)).state is State.FINISHED
            assert await client.save(finished, tmp_path / "result")


async def test_with_an_accepted_new_database_nothing_is_collected(tmp_path):
    """Until a person says so once more: db and storage's own data are gone, the blobs are not."""
    async with system(tmp_path / "data", workers=1, settings=apart(tmp_path)) as whole:
        await waiting(whole)
        blobs = set((tmp_path / "photos").glob("blobs/*/*"))
        assert len(blobs) >= 3
        for name in ("storage", "db"):
            await whole.kill(name)
            shutil.rmtree(whole.data / name)
            await whole.start(name)
        store = (await refusal(whole, NOT_THE_DATABASE)).split()[-1].rstrip(".")
        async with (
            StorageClient.connect(f"http://{whole.address('storage')}") as storage,
            Client.connect(whole.master) as client,
        ):
            with pytest.raises(Error) as refused:
                await storage.collect()
            assert refused.value.code is Code.UNAVAILABLE
            assert (await client.accept_storage(store)).id == store
            await until(lambda: _is_ready(client), timeout=30)
            with pytest.raises(Error) as refused:
                await storage.collect()
            assert refused.value.code is Code.CONFLICT
            made = await client.upload(photo(4), filename="4.png")
            await whole.start("worker-0")
            assert (await client.wait(made.id)).state is State.FINISHED
        assert blobs < set((tmp_path / "photos").glob("blobs/*/*"))


async def _is_ready(client: Client) -> bool:
    try:
        return bool(await client.storage())
    except Error:
        return False


async def test_a_store_without_an_id_keeps_its_blobs(tmp_path):
    """An earlier release gave stores no id, and db knew none."""
    async with system(tmp_path, workers=1, settings=SETTINGS) as whole:
        done, waits = await waiting(whole)
        await whole.kill("storage")
        await whole.kill("db")
        (whole.data / "storage" / "identity").unlink()
        database = whole.data / "db" / "tasks.sqlite"
        with sqlite3.connect(database) as opened:
            assert opened.execute("DELETE FROM meta WHERE name = 'store'").rowcount == 1
        opened.close()
        await whole.start("storage")
        await whole.start("db")
        await whole.start("worker-0")
        async with Client.connect(whole.master) as client:
            assert (await client.wait(waits)).state is State.FINISHED
            assert await client.save(done, tmp_path / "result")
        assert (whole.data / "storage" / "identity").read_text().strip()
