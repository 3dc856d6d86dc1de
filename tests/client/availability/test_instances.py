"""Test several instances of a service: they take turns, are avoided while down, and replace one another if safe."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from client.availability.clock import Clock
from safelight import serve
from safelight.client.availability import instances as module
from safelight.client.availability.instances import Instances, Several
from safelight.client.base import Connection, session
from safelight.client.discovery import Discovery
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.keyvaluestore.__main__ import Config, build
from safelight.master.metrics import Metrics
from safelight.master.upload.ingest import Ingest
from safelight.master.upload.replay import Reader, Replay, ReplayBudget
from support.photos import photo
from support.programs.ports import free_port
from support.programs.processes import service
from support.programs.until import until

DATA = bytes(range(256)) * 20_000


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module.random, "uniform", lambda _low, _high: 1.0)
    return clock


def test_instances_take_turns_and_failed_ones_are_avoided_ever_longer(clock):
    known, instances = ["a", "b", "c"], Instances()
    assert sorted(instances.choose(known) for _ in range(6)) == ["a", "a", "b", "b", "c", "c"]
    for pause in (1, 2, 4, 8, 16, 30, 30):
        instances.failed("b")
        assert {instances.choose(known) for _ in range(9)} == {"a", "c"}
        clock.now += pause - 0.01
        assert {instances.choose(known) for _ in range(9)} == {"a", "c"}
        clock.now += 0.02
        # One request tries the instance that was down, and the others do not wait for the outcome.
        assert [instances.choose(known) for _ in range(9)].count("b") == 1
    instances.answered("b")
    assert {instances.choose(known) for _ in range(3)} == {"a", "b", "c"}


def test_if_all_instances_are_down_all_are_tried(clock):
    known, instances = ["a", "b"], Instances()
    for value in known:
        instances.failed(value)
    assert {instances.choose(known) for _ in range(2)} == {"a", "b"}
    assert instances.choose(["a"]) == "a"


class Server:
    """Run a service on its own port that answers, or breaks off as the test demands."""

    def __init__(self):
        self.requests = []
        self.breaks = None

    async def handle(self, request):
        self.requests.append((request.method, await request.read()))
        if self.breaks == "before":
            request.transport.abort()
            return web.Response()
        if self.breaks == "refuses":
            return web.json_response({"code": "unavailable", "detail": "My bucket is away."}, status=503)
        found = request.headers.get("Range", f"bytes=0-{len(DATA) - 1}")
        start, end = (int(number) for number in found.removeprefix("bytes=").split("-"))
        status, headers = (206, {"Content-Range": f"bytes {start}-{end}/{len(DATA)}"}) if start else (200, {})
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end + 1 - start
        await response.prepare(request)
        if self.breaks == "within":
            await response.write(DATA[start : start + 100_000])
            request.transport.abort()
        else:
            await response.write(DATA[start : end + 1])
        return response


@pytest.fixture
async def servers():
    """Run three servers; yield them by address."""
    async with AsyncExitStack() as stack:
        found = {}
        for _ in range(3):
            server, app = Server(), web.Application()
            app.router.add_route("*", "/{path:.*}", server.handle)
            runner = web.AppRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            found[f"127.0.0.1:{runner.addresses[0][1]}"] = server
        yield found


async def test_a_request_that_did_not_reach_an_instance_is_sent_to_another(servers):
    dead = f"127.0.0.1:{free_port()}"
    async with session() as http:
        for method in ("GET", "POST", "PUT"):
            for addresses in (f"{dead},{next(iter(servers))}", f"{next(iter(servers))},{dead}"):
                connection = Connection(http, Several(addresses), retry_for=0.0)
                assert await connection.call(method, "/x", bytes, body=b"once") == DATA
        assert all(len(server.requests) in (0, 6) for server in servers.values())


async def test_a_request_that_was_received_is_repeated_only_if_that_is_safe(servers):
    for server in servers.values():
        server.breaks = "before"
    list(servers.values())[1].breaks = None
    async with session() as http:
        for _ in range(4):
            assert await Connection(http, Several(",".join(servers)), retry_for=0.0).call("GET", "/x", bytes) == DATA
        received = 0
        for _ in range(12):
            connection = Connection(http, Several(",".join(servers)), retry_for=0.0)
            before = sum(len(server.requests) for server in servers.values())
            try:
                await connection.call("POST", "/x", bytes, body=b"once")
            except Error:
                received += 1
            assert sum(len(server.requests) for server in servers.values()) == before + 1
        assert received > 0


async def test_an_instance_that_lacks_what_it_needs_is_replaced_by_another_for_reads_and_then_avoided(servers, clock):
    """Such as a storage that the network keeps from its bucket, or one with the wrong disk: it answers all the same."""
    (lacking, one), (well, other), _ = servers.items()
    one.breaks = "refuses"
    async with session() as http:
        for addresses in (f"{lacking},{well}", f"{well},{lacking}"):
            for _ in range(3):  # the first address is chosen at random
                connection = Connection(http, Several(addresses), retry_for=0.0)
                async with StorageClient(connection).open(hashlib.sha256(DATA).hexdigest()) as answer:
                    assert await answer.read() == DATA
                assert await connection.call("POST", "/x", bytes) == DATA
        other.breaks = "refuses"
        for method, received in (("GET", 2), ("POST", 1)):
            before = len(one.requests) + len(other.requests)
            with pytest.raises(Error, match="My bucket is away") as refused:
                await Connection(http, Several(f"{lacking},{well}"), retry_for=0.0).call(method, "/x", bytes)
            assert refused.value.code is Code.UNAVAILABLE
            assert len(one.requests) + len(other.requests) == before + received


@pytest.mark.parametrize("breaking", [1, 2])
async def test_a_download_continues_at_another_instance(servers, breaking):
    for server in list(servers.values())[:breaking]:
        server.breaks = "within"
    digest = hashlib.sha256(DATA).hexdigest()
    async with session() as http:
        for address in servers:  # each of them is first once
            others = [other for other in servers if other != address]
            storage = StorageClient(Connection(http, Turns([address, *others]), retry_for=0.0))
            async with storage.open(digest) as answer:
                assert b"".join([chunk async for chunk in answer.chunks()]) == DATA


class Turns:
    """An address that changes to the next one with each request."""

    def __init__(self, addresses):
        self._addresses = addresses

    async def resolve(self, apart=()):
        self._addresses = [*self._addresses[1:], self._addresses[0]]
        return f"http://{self._addresses[-1]}"

    def failed(self, url): ...

    def answered(self, url): ...


async def test_a_service_uses_the_remaining_key_value_store(tmp_path):
    async with AsyncExitStack() as stack:
        running = []
        for number in range(2):
            context = AsyncExitStack()
            config = Config(port=0, data=str(tmp_path / str(number)))
            running.append((context, await context.enter_async_context(serve.running("keyvaluestore", config, build))))
            stack.push_async_callback(context.aclose)
        addresses = ",".join(service.url.removeprefix("http://") for _, service in running)
        http = await stack.enter_async_context(session())
        for _, service in running:
            async with KeyValueStoreClient.connect(service.url) as store:
                await store.set("dbendpoint", "a:1", instance="a:1", ttl=60)
        discovery = await stack.enter_async_context(Discovery.open(http, addresses))
        async with asyncio.timeout(30):
            assert await discovery.wait_for("db") == "a:1"
        used = await discovery.store._connection._address.resolve()
        [gone] = [context for context, service in running if service.url == used]
        [left] = [service for _, service in running if service.url != used]
        await gone.aclose()
        async with KeyValueStoreClient.connect(left.url) as store:
            await store.set("dbendpoint", "b:2", instance="b:2", ttl=60)
        async with asyncio.timeout(30):
            while len(discovery._known["dbendpoint"]) < 2:
                await discovery._wait_change(1.0)
        assert await discovery.store.get("dbendpoint") in ("a:1", "b:2")


async def _chunks(*chunks: bytes, gate: asyncio.Event | None = None):
    for number, chunk in enumerate(chunks):
        if gate is not None and number == len(chunks) - 1:
            await gate.wait()
        yield chunk


async def test_a_short_body_is_read_again_after_its_receiver_died():
    budget, gate = ReplayBudget(100), asyncio.Event()
    replay = Replay([b"01"], _chunks(b"23", b"45", b"67", gate=gate), budget, most=100)

    async def dies(reader: Reader, after: int) -> None:
        with reader:
            async for _ in reader.chunks():
                after -= 1
                if not after:
                    return

    await dies(replay.reader(), 2)
    last = replay.reader()
    task = asyncio.create_task(dies(last, 4))  # it dies while it waits for the last chunk
    await until(lambda: last.at == 3 and replay._reading and not replay._reading.done())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    gate.set()
    assert replay.repeatable
    for _ in range(2):
        with replay.reader() as reader:
            assert b"".join([chunk async for chunk in reader.chunks()]) == b"01234567"
    await replay.close()
    assert budget.left == 100


async def test_a_body_that_became_long_after_its_receiver_died_is_not_begun_again():
    """The chunk that is being read when a receiver dies may be the one that is too much to keep."""
    gate, readers = asyncio.Event(), []
    chunks = _chunks(b"23", b"45", gate=gate)
    replay = Replay([b"01"], chunks, ReplayBudget(100), most=5, on_long=lambda: readers.append(replay.reader()))
    first = replay.reader()
    task = asyncio.create_task(_count(first))
    await until(lambda: first.at == 2 and replay._reading and not replay._reading.done())
    task.cancel()
    replay.leave(first)
    gate.set()
    await until(lambda: bool(readers))
    second = readers[0].chunks()
    assert [await anext(second), await anext(second)] == [b"01", b"23"]
    with pytest.raises(Error) as refused:
        replay.reader()
    assert refused.value.code is Code.UNAVAILABLE
    assert [chunk async for chunk in second] == [b"45"]
    await replay.close()


@pytest.mark.parametrize(("most", "total"), [(5, 100), (100, 5), (100, 1)])
@pytest.mark.parametrize("copies", [1, 2])
async def test_of_a_long_body_only_chunks_that_a_reader_still_needs_are_kept(most, total, copies):
    budget, readers = ReplayBudget(total), []
    replay = Replay([b"01"], _chunks(b"23", b"45", b"67"), budget, most=most, on_long=lambda: begin(copies - 1))

    def begin(count):
        readers.extend(replay.reader() for _ in range(count))

    begin(1)
    first = [chunk async for chunk in readers[0].chunks()]
    assert b"".join(first) == b"01234567"
    assert not replay.repeatable
    assert len(readers) == copies
    assert b"".join(replay._chunks) == (b"01234567" if copies == 2 else b""), "the second reader needs them"
    for late in readers[1:]:
        assert b"".join([chunk async for chunk in late.chunks()]) == b"01234567"
    assert not replay._chunks
    await replay.close()
    assert budget.left == total


async def test_the_faster_reader_waits_for_the_slower_until_that_one_gives_up():
    block = bytes(1 << 20)
    budget = ReplayBudget(1)
    replay = Replay([block], _chunks(*[block] * 5), budget, most=1, on_long=lambda: readers.append(replay.reader()))
    readers = [replay.reader()]
    fast = asyncio.create_task(_count(readers[0]))
    await until(lambda: len(readers) == 2 and readers[0].at == len(replay._chunks))
    slow = readers[1]
    assert await anext(slow.chunks()) == block
    await until(lambda: readers[0].at == slow.at + 2)
    assert not fast.done()
    with slow:  # as when its receiver dies
        pass
    assert await fast == 6
    await replay.close()


async def test_an_error_of_the_body_reaches_every_reader_however_late():
    async def breaks():
        yield b"1"
        raise ConnectionResetError

    replay = Replay([b"0"], breaks(), ReplayBudget(0), most=1, on_long=lambda: readers.append(replay.reader()))
    readers = [replay.reader()]
    for reader in (readers[0], lambda: readers[1]):
        with pytest.raises(ConnectionResetError):
            await _count(reader() if callable(reader) else reader)
    await replay.close()


async def _count(reader):
    return len([chunk async for chunk in reader.chunks()])


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["first", "second"])
async def test_a_long_photo_arrives_although_a_storage_is_killed(tmp_path, killed):
    """Run two storages as processes; if either dies when most of the photo has arrived, the other gets all of it."""
    data = photo(1) + bytes(40 << 20)
    both, dead = asyncio.Event(), asyncio.Event()

    async def body():
        for start in range(0, len(data), 1 << 18):
            if start == 30 << 20:
                both.set()
                await dead.wait()
            yield data[start : start + (1 << 18)]

    async with AsyncExitStack() as stack:
        places = [tmp_path / name for name in ("one", "two")]
        storages = [
            await stack.enter_async_context(service("storage", "--port", "0", "--data", str(place))) for place in places
        ]
        addresses = [await one.address() for one in storages]
        http = await stack.enter_async_context(session())
        several = Several(",".join(addresses))
        ingest = Ingest(StorageClient(Connection(http, several)), Metrics(CollectorRegistry()), limit=1 << 30)
        first = addresses.index(await several.resolve())
        dies = first if killed == "first" else 1 - first
        storing = asyncio.create_task(ingest.store(body()))
        async with asyncio.timeout(60):
            await both.wait()
            storages[dies].send(signal.SIGKILL)
            await storages[dies].ended()
            dead.set()
            stored = await storing
        assert stored.blob.digest == hashlib.sha256(data).hexdigest()
        async with StorageClient.connect(addresses[1 - dies]) as left:
            assert hashlib.sha256(await left.read(stored.blob.digest)).hexdigest() == stored.blob.digest


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:port", "localhost:", "a:1,b", "[::1]", "::1", "a/x:1"])
def test_an_address_without_a_port_is_refused(address):
    with pytest.raises(Error, match=r"has no port\. Write HOST:PORT"):
        Several(address)


@pytest.mark.parametrize("address", ["localhost:65536", "ftp://localhost:1"])
def test_an_address_that_can_never_answer_is_refused(address):
    with pytest.raises(Error) as refused:
        Several(address)
    assert refused.value.code is Code.INVALID_REQUEST


def test_addresses_with_a_port_or_as_urls_are_taken():
    Several("localhost:1,[::1]:2,http://proxy.example/path,https://a:3/")
