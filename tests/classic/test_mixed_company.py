"""Test mixed systems: a classic master and worker with our db and storage, and ours with a classic key-value store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from classic.classic_protocol import Worker, ask, upload
from classic.originals import ClassicMaster, ClassicStore, serving
from safelight.client.base import bearer, session
from safelight.client.discovery import Discovery
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.storage.classic import find
from safelight.storage.directory import DirectoryStore
from safelight.wire import Output, State, Task
from support.photos import is_inverse, photo
from support.programs.system import System

pytestmark = pytest.mark.slow
SAID = "speaks only the classic protocol"


class Mixed:
    """Run some of our services with a classic key-value store."""

    def __init__(self, tmp_path, store, address) -> None:
        self.store = store
        self.system = System(tmp_path, {})
        self.system.ports["keyvaluestore"] = int(address.rpartition(":")[2])

    async def start(self, *names: str) -> None:
        for name in names:
            await self.system.start(name)
        await self.store.wait_for(*(f"{name}endpoint" for name in names if "worker" not in name))


@pytest.fixture
async def mixed(tmp_path) -> AsyncIterator[Mixed]:
    store = ClassicStore()
    async with serving(store.app()) as address:
        whole = Mixed(tmp_path, store, address)
        try:
            yield whole
        finally:
            await whole.system.aclose()


async def test_the_classic_master_and_worker_on_our_db_and_storage(mixed):
    await mixed.start("db", "storage")
    assert SAID in (await mixed.system.running["db"].log(SAID))["message"]
    ready = await asyncio.to_thread(ask, mixed.store.values["storageendpoint"], "GET", "/readyz?wait=20")
    assert ready == (200, b"ready\n")
    async with aiohttp.ClientSession() as http:
        classic = ClassicMaster(mixed.store, http)
        async with serving(classic.app()) as master:
            mixed.store.values["masterendpoint"] = master
            for number in range(2):
                assert (await asyncio.to_thread(upload, master, photo(number)))[0] == 200
            await asyncio.to_thread(_work_and_look, mixed, master, classic.tasks)


def _work_and_look(mixed, master, tasks) -> None:
    storage = mixed.store.values["storageendpoint"]
    worker = Worker(mixed.system.keyvaluestore)
    held = [worker.next(), worker.next()]
    assert worker.next() is None
    for number, (task, lease) in enumerate(zip(tasks, held, strict=True)):
        for either in (task, lease):
            assert ask(storage, "GET", f"/download/{either}") == (200, photo(number))
            assert ask(master, "GET", f"/task/{either}/ready") == (200, b"false")
        worker.process(lease)
        assert ask(storage, "GET", f"/download/{task}") == (200, photo(number)), "the task must not be finished yet"
        assert worker.finish(lease) == 200
        for either in (task, lease):
            assert ask(master, "GET", f"/task/{either}/ready") == (200, b"true")
            status, result = ask(master, "GET", f"/task/{either}/download")
            assert status == 200
            assert is_inverse(photo(number), result)
    assert ask(storage, "GET", "/download/there-is-none")[0] == 404


async def test_all_of_ours_at_a_classic_key_value_store(mixed):
    await mixed.start("db", "storage", "master", "worker-1")
    async with Client.connect(mixed.system.master) as client:
        assert await client.is_ready(wait=60.0)
        task = await client.upload(photo(1), filename="1.png", recipe="invert")
        done = await client.wait(task.id, timeout=60.0)
        assert done.state is State.FINISHED
        async with client.result(task.id) as answer:
            assert is_inverse(photo(1), await answer.read())
    mixed.store.values.clear()  # like a restart of a store that keeps its values only in memory
    await mixed.store.wait_for("dbendpoint", "storageendpoint", "masterendpoint")
    assert set(mixed.store.unknown) <= {
        *("PUT /dbendpoint", "PUT /storageendpoint", "PUT /masterendpoint", "GET /", "GET /healthz"),
        *("GET /dbendpoint", "GET /storageendpoint", "GET /masterendpoint"),
    }


async def test_with_a_cluster_key_no_service_is_looked_up_in_a_classic_store(caplog):
    """Any program in the network can register there, and would receive the key."""
    store = ClassicStore()
    store.values["dbendpoint"] = "127.0.0.1:9"
    said = asyncio.Event()

    class Heard(logging.Handler):
        def emit(self, record):
            if SAID in record.getMessage():
                said.set()

    handler = Heard()
    logging.getLogger("safelight.client.discovery").addHandler(handler)
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(store.app()))
        http = await stack.enter_async_context(session())
        stack.callback(logging.getLogger("safelight.client.discovery").removeHandler, handler)
        discovery = await stack.enter_async_context(Discovery.open(http, address, bearer("a cluster key")))
        async with asyncio.timeout(30):
            await said.wait()
        assert "requests carry the cluster key" in caplog.text
        assert discovery.lookup("db") is None


class Tasks:
    """Stand in for a db with one finished task, which belongs to another tenant than the classic programs."""

    def __init__(self, digest: str) -> None:
        self.digest = digest

    async def get(self, id: str, *, tenant: str | None = None) -> Task:
        if tenant not in (None, "other"):
            raise Error(Code.NOT_FOUND, "Task not found")
        made = Output(name="image", digest=self.digest, size=6, media_type="image/png")
        return Task(id="t", tenant="other", state=State.FINISHED, seq=1, created=0.0, changed=0.0, outputs=[made])


async def test_a_classic_program_gets_no_photo_of_another_tenant(tmp_path):
    async with DirectoryStore.at(tmp_path) as store:

        async def chunks():
            yield b"result"

        stored = await store.put(chunks())
        tasks = Tasks(stored.digest)
        assert (await find(store, tasks, "lease", tenant=None)).digest == stored.digest
        assert (await find(store, tasks, "lease", tenant="other")).digest == stored.digest
        with pytest.raises(Error, match="lease"):
            await find(store, tasks, "lease", tenant="scanner")
        await store.name("lease", stored.digest)
        assert (await find(store, None, "lease", tenant="scanner")).digest == stored.digest
