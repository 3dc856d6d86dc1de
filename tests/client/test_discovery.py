"""Test how services find one another: by entries with a time to live and a watch, in any order of start."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from safelight import serve
from safelight.client.base import session
from safelight.client.discovery import Discovery
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.db.__main__ import Config as DbConfig
from safelight.db.__main__ import build as build_db
from safelight.errors import Code, Error
from safelight.keyvaluestore.__main__ import Config, build
from safelight.keyvaluestore.sqlite import SqliteStore
from support.programs.ports import free_port
from support.programs.processes import service


async def until(store: KeyValueStoreClient, key: str, values: list[str]) -> None:
    """Wait until a key has exactly these values."""
    async with asyncio.timeout(30):
        page = await store.entries(key)
        while sorted(entry.value for entry in page.entries) != sorted(values):
            page = await store.watch(page.revision, key=key, wait=30)


@pytest.mark.slow
async def test_order_of_start_does_not_matter_and_the_dead_disappear(tmp_path):
    port = free_port()
    address = f"127.0.0.1:{port}"
    storage = [address, "--registration-ttl", "0.6"]
    async with service("storage", *storage, "--data", str(tmp_path / "one")) as one:
        first = (await one.address()).removeprefix("http://")
        await one.log(f"Waiting for the key-value store at {address}")
        async with (
            service("keyvaluestore", "--port", str(port), "--data", str(tmp_path / "keyvaluestore")) as keyvaluestore,
            service("storage", *storage, "--data", str(tmp_path / "two")) as two,
            KeyValueStoreClient.connect(address) as store,
        ):
            await one.log("Storage endpoint registered")
            await two.log("Storage endpoint registered")
            second = (await two.address()).removeprefix("http://")
            await until(store, "storageendpoint", [first, second])
            await keyvaluestore.log(f"storageendpoint={first}")
            assert await store.get("storageendpoint") in (first, second)
            one.send(signal.SIGKILL)
            await until(store, "storageendpoint", [second])
            await keyvaluestore.log(f"storageendpoint={first} expired")
            assert await two.stop() == 0
            await until(store, "storageendpoint", [])
            await keyvaluestore.log(f"storageendpoint={second} deleted")


@pytest.mark.slow
async def test_a_registration_outlives_a_restart_of_the_key_value_store(tmp_path):
    port = free_port()
    address = f"127.0.0.1:{port}"
    start = ("keyvaluestore", "--port", str(port), "--data", str(tmp_path / "keyvaluestore"))
    async with service("storage", address, "--data", str(tmp_path / "one"), "--registration-ttl", "4") as storage:
        value = (await storage.address()).removeprefix("http://")
        async with service(*start) as keyvaluestore:
            await storage.log("Storage endpoint registered")
            assert await keyvaluestore.stop(signal.SIGKILL) == -signal.SIGKILL
        async with service(*start) as keyvaluestore, KeyValueStoreClient.connect(address) as store:
            await keyvaluestore.address()
            assert await store.get("storageendpoint") == value
            revision = (await store.entries()).revision
            # Nothing changes for longer than the entry's time to live, so it is renewed.
            assert (await store.watch(revision, wait=6.0)).revision == revision


async def test_discovery_follows_entries_takes_turns_and_avoids_failed_instances(tmp_path):
    async with (
        serve.running("keyvaluestore", Config(port=0, data=str(tmp_path)), build) as running,
        session() as http,
        Discovery.open(http, running.url) as discovery,
    ):
        endpoint = discovery.address("db")
        with pytest.raises(Error, match="No db service is registered") as caught:
            await endpoint.resolve()
        assert caught.value.code is Code.UNAVAILABLE
        waiting = asyncio.create_task(discovery.wait_for("db"))
        await discovery.store.set("dbendpoint", "a:1", instance="a", ttl=60)
        async with asyncio.timeout(60):
            assert await waiting == "a:1"
        page = await discovery.store.entries()
        await discovery.store.set("dbendpoint", "b:2", instance="b", ttl=60)
        await discovery.store.watch(page.revision)
        async with asyncio.timeout(60):
            while {await endpoint.resolve() for _ in range(2)} != {"http://a:1", "http://b:2"}:
                await discovery._wait_change(1.0)
        endpoint.failed("http://a:1")
        assert {await endpoint.resolve() for _ in range(4)} == {"http://b:2"}
        endpoint.failed("http://b:2")
        assert {await endpoint.resolve() for _ in range(4)} == {"http://a:1", "http://b:2"}


async def test_known_addresses_stay_known_while_the_store_is_away(tmp_path):
    async with session() as http:
        running = serve.running("keyvaluestore", Config(port=0, data=str(tmp_path)), build)
        served = await running.__aenter__()
        async with Discovery.open(http, served.url) as discovery:
            await discovery.store.set("dbendpoint", "a:1")
            async with asyncio.timeout(60):
                assert await discovery.wait_for("db") == "a:1"
            await running.__aexit__(None, None, None)
            with pytest.raises(Error):
                await discovery.store.entries()
            assert await discovery.address("db").resolve() == "http://a:1"


class _Watched(SqliteStore):
    """Count the calls of `watch`, and stop a watcher that would block the event loop."""

    watches = 0
    again = asyncio.Event()

    async def watch(self, after, *, key=None, wait=30.0):
        self.watches += 1
        if self.watches == 3:
            self.again.set()
        if self.watches > 100:
            raise Error(Code.UNAVAILABLE, "It is watched without a pause.")
        return await super().watch(after, key=key, wait=wait)


async def test_a_store_of_this_process_that_is_stopping_is_watched_with_pauses(tmp_path):
    async with _Watched.open(tmp_path / "store.sqlite") as store, session() as http:
        store.wake()
        async with Discovery.open(http, "127.0.0.1:1", store=store), asyncio.timeout(30):
            await store.again.wait()
            assert store.watches < 100


@pytest.mark.parametrize("refusal", [501, 403, None])
async def test_a_service_registers_at_a_classic_store_however_it_refuses_what_it_does_not_know(tmp_path, refusal):
    """Python's own server answers 501 to methods without a handler; others close the connection."""
    values, registered = {}, threading.Event()

    class Store(BaseHTTPRequestHandler):
        def do_GET(self):
            key = self.path.strip("/")
            if "?" in key:
                self.do_PUT()
                return
            self.send_response(200 if key in values else 404)
            self.end_headers()
            self.wfile.write(values.get(key, "Key not found").encode())

        def do_PUT(self):
            if refusal is not None:
                self.send_error(refusal)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            values[self.path.strip("/")] = json.loads(body)["value"]
            self.send_response(200)
            self.end_headers()
            registered.set()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"127.0.0.1:{server.server_port}"
        config = DbConfig(keyvaluestore=address, port=0, data=str(tmp_path))
        try:
            async with serve.running("db", config, build_db), session() as http, Discovery.open(http, address) as found:
                assert await asyncio.to_thread(registered.wait, 30)
                assert await asyncio.wait_for(found.wait_for("db"), 30) == values["dbendpoint"]
        finally:
            server.shutdown()
