"""Test a disk that becomes read-only: reads work, writes are refused with a message, and no data is lost."""

from __future__ import annotations

import asyncio
import errno
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from faults.power import Disk, mounted
from faults.shim import Faults
from faults.uploading import upload
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import State
from support.photos import photo
from support.programs.processes import service
from support.programs.system import system
from support.programs.until import until

pytestmark = pytest.mark.slow

BOUND = 25.0
SETTINGS = {name: ["--registration-ttl", "2s"] for name in ("db", "storage", "master")}


async def refused(store: KeyValueStoreClient) -> None:
    with pytest.raises(Error) as caught:
        await store.set("key", "other")
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.detail.endswith("."), caught.value.detail


async def test_a_disk_that_becomes_read_only_can_still_be_read(tmp_path: Path) -> None:
    """ext4 does this after a device error; here it happens to every service, and then the machine restarts."""
    disk = Disk(tmp_path)
    with disk.running() as path:
        async with AsyncExitStack() as stack:
            whole = await stack.enter_async_context(system(path, settings=SETTINGS))
            client = await stack.enter_async_context(Client.connect(whole.master))
            store = await stack.enter_async_context(KeyValueStoreClient.connect(whole.keyvaluestore))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            await store.set("key", "value")
            kept = [await client.upload(photo(number)) for number in range(2)]
            remount = ["mount", "-o", "remount,abort", str(path)]
            await asyncio.to_thread(subprocess.run, remount, check=True)
            answer = await upload(http, whole.master, 9)
            assert answer.is_refusal, answer
            assert answer.seconds < BOUND
            await refused(store)
            # Registrations cannot be renewed any more, but stay valid. All stored data can be read.
            assert await store.get("key") == "value"
            assert {task.id for task in (await client.tasks()).tasks} == {task.id for task in kept}
            async with client.original(kept[0].id) as answer:
                assert await answer.read() == photo(0)
            for name in list(whole.running):
                await whole.kill(name)
        cut = disk.cut()
    with mounted(cut, tmp_path / "after") as path:
        async with AsyncExitStack() as stack:
            whole = await stack.enter_async_context(system(path, workers=1, settings=SETTINGS))
            client = await stack.enter_async_context(Client.connect(whole.master))
            for task in kept:
                done = await client.wait(task.id, timeout=60)
                assert (done.state, done.errors, done.deaths) == (State.FINISHED, 0, 0)
            assert (await client.wait((await client.upload(photo(9))).id, timeout=60)).state is State.FINISHED


async def test_a_key_value_store_works_again_with_its_disk(tmp_path: Path) -> None:
    faults = Faults(tmp_path, "keyvaluestore")
    async with service("keyvaluestore", "--data", str(tmp_path / "data"), env=faults.environment) as program:
        async with KeyValueStoreClient.connect(await program.address()) as store:
            await store.set("key", "value")
            revision = (await store.entries()).revision
            faults.apply(write_error=errno.EROFS)
            await refused(store)
            page = await store.entries()
            assert ([entry.value for entry in page.entries], page.revision) == (["value"], revision)
            faults.apply(write_error=0)

            async def works() -> bool:
                try:
                    return (await store.set("key", "third")).value == "third"
                except Error:
                    return False

            await until(works, timeout=30)
            assert await store.get("key") == "third"
        assert await program.stop() == 0
