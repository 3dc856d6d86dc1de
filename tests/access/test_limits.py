"""Test clients that hold shared resources: idle connections, slow uploads, endless bodies, and many entries."""

from __future__ import annotations

import asyncio
import io
import socket
import stat
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from safelight.access.connections import idle, places
from safelight.access.connections.places import Places
from safelight.errors import Error
from safelight.keyvaluestore.app import CLASSIC_ENTRIES
from support.metrics import until
from support.photos import photo

from .conftest import ELSEWHERE

CONTENT_TYPE = "multipart/form-data; boundary=b"


@asynccontextmanager
async def connection(service):
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def closed(reader) -> None:
    """Wait until the other side has closed."""
    async with asyncio.timeout(60):
        while await reader.read(65536):
            pass


async def asked(request: str, reader, writer) -> None:
    """Send a request and read the head of its answer, which must be 200, and a short body."""
    writer.write(request.encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    await reader.read(65536)


@pytest.mark.slow
async def test_a_connection_whose_head_does_not_end_is_closed(plane, http):
    service = await plane.start("keyvaluestore", header_timeout=0.2)
    async with connection(service) as (half, writer), connection(service) as (silent, _):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half: ")
        await closed(half)
        await closed(silent)
    async with http.get(f"{service.url}/") as answer:
        assert answer.status == 200
    async with connection(service) as (reader, writer):  # after a request, a connection may be idle
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readuntil(b"ok\n")
        async with connection(service) as (another, _):  # opened later, and closed earlier
            await closed(another)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readuntil(b"ok\n")


@pytest.mark.slow
async def test_two_thousand_endless_heads_delay_nobody(plane, http):
    service = await plane.start("keyvaluestore", header_timeout=3.0, trusted_proxies="192.0.2.1")
    async with AsyncExitStack() as stack:
        ends = []
        for _ in range(2000):
            reader, writer = await stack.enter_async_context(connection(service))
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half: ")
            ends.append(asyncio.create_task(closed(reader)))
        async with asyncio.timeout(5), http.get(f"{service.url}/healthz") as answer:
            assert answer.status == 200
        await asyncio.gather(*ends)
    async with http.get(f"{service.url}/healthz") as answer:
        assert answer.status == 200


@pytest.mark.slow
async def test_connections_are_limited_by_address_and_active_ones_stay(plane, http):
    service = await plane.start("keyvaluestore", connections=5, trusted_proxies="192.0.2.1")
    async with AsyncExitStack() as stack:
        asking = [await stack.enter_async_context(connection(service)) for _ in range(3)]
        for reader, writer in asking:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"ok\n")
        # Of 20 silent connections, all but the two that are within the limit are closed.
        silent = [await stack.enter_async_context(connection(service)) for _ in range(20)]
        ends = [asyncio.create_task(closed(reader)) for reader, _ in silent]
        while sum(task.done() for task in ends) < 18:
            await asyncio.wait([task for task in ends if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        for reader, writer in asking:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"ok\n")
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
    # Connections of this system's services do not count, because many clients share them.
    async with AsyncExitStack() as stack:
        ours = [await stack.enter_async_context(connection(service)) for _ in range(12)]
        head = {"Host": "localhost", "Accept": "application/json", **plane.credentials}
        request = "GET / HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in head.items()) + "\r\n"
        await asyncio.gather(*(asked(request, *each) for each in ours))
        silent = [await stack.enter_async_context(connection(service)) for _ in range(6)]
        ends = [asyncio.create_task(closed(reader)) for reader, _ in silent]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*(asked(request, *each) for each in ours))
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


async def unread(service, stack, ending):
    """Request more data than the kernel buffers, and read none of it."""
    writer = (await stack.enter_async_context(connection(service)))[1]
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    writer.transport.pause_reading()
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n"
    writer.write((request + b"\r\n") * 60 + request + ending + b"\r\n")
    return writer


def held(service):
    """Count the connections for which a service has a descriptor, as the kernel knows them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port, listening = f"{service.port:04X}", "0A"
    return sum(row[1].endswith(f":{port}") and row[3] != listening and row[9] != "0" for row in rows)


@pytest.mark.slow
async def test_a_connection_whose_answer_is_not_read_is_closed(plane, http, monkeypatch):
    monkeypatch.setattr(idle, "_MOST_LOOKS", 2)
    await plane.start_all()
    service = plane.services["master"]
    async with AsyncExitStack() as stack:
        for ending in (b"", b"Connection: close\r\n"):
            await unread(service, stack, ending)
        closed = 'safelight_connections_closed_total{reason="stalled"}'
        await until(http, service.url, closed, lambda count: count == 2)
        async with http.get(f"{service.url}/healthz") as answer:
            assert answer.status == 200


@pytest.mark.slow
async def test_connections_with_unread_answers_count_against_the_limit(plane, http, monkeypatch):
    """A closed transport waits without limit for the client to read the written data, so it must be aborted."""
    await plane.start_all(trusted_proxies="192.0.2.1")
    service = plane.services["master"]
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        for _ in range(12):
            await unread(service, stack, b"")
        while len(service.connections._untaken) < 12:
            async with http.get(f"{service.url}/healthz") as answer:
                assert answer.status == 200
        assert held(service) >= 12
        monkeypatch.setattr(service.connections, "_per_address", 3)
        while held(service) > 4:  # three of these, and this test's own
            async with http.get(f"{service.url}/healthz") as answer:
                assert answer.status == 200


@pytest.mark.slow
async def test_slow_uploads_give_way_to_fast_ones(plane, http, monkeypatch):
    monkeypatch.setattr(places, "_GRACE", 0.5)
    await plane.start_all()
    master = await plane.start("master", uploads=64)
    assert master.discovery is not None
    for name in ("db", "storage"):
        await master.discovery.wait_for(name)
    head = f"POST /task HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nContent-Type: {CONTENT_TYPE}\r\n\r\n"

    async def trickle(reader, writer) -> bytes:
        writer.write(head.encode() + b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n')
        answered = asyncio.create_task(reader.readline())
        while not answered.done():
            writer.write(b"x")
            await asyncio.wait([answered], timeout=0.1)
        return answered.result()

    async with AsyncExitStack() as stack:
        ends = [asyncio.create_task(trickle(*await stack.enter_async_context(connection(master)))) for _ in range(64)]
        await until(http, master.url, "safelight_uploads_in_progress", lambda count: count == 64)
        await asyncio.sleep(0.6)  # past the grace period for slow beginnings
        for n in range(20):
            async with http.post(f"{master.url}/task", data={"image": io.BytesIO(photo(n))}) as answer:
                assert answer.status == 200, await answer.text()
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            assert b"429" in task.result()
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


async def test_a_client_that_holds_most_places_gives_one_to_another(monkeypatch):
    monkeypatch.setattr(places, "_GRACE", 0.0)
    monkeypatch.setattr(places, "_SLOW", 0)
    shared = Places(4)
    outcomes: list[str] = []
    holding, release = asyncio.Semaphore(0), asyncio.Event()

    async def hold(client: str) -> None:
        try:
            with shared.take(client) as place, place.waiting():
                place.came(10)
                holding.release()
                await release.wait()
            outcomes.append(f"{client} done")
        except Error as error:
            outcomes.append(f"{client} {error.code.value}")

    tasks = [asyncio.create_task(hold("many")) for _ in range(4)]
    for _ in range(4):
        await holding.acquire()
    tasks += [asyncio.create_task(hold("few")) for _ in range(2)]
    for _ in range(2):
        await holding.acquire()
    # Each client now holds two places, so neither can take another one.
    for client in ("few", "many"):
        await hold(client)
    release.set()
    await asyncio.gather(*tasks)
    assert sorted(outcomes) == sorted(
        ["many too_many_requests"] * 3 + ["few too_many_requests"] + ["many done"] * 2 + ["few done"] * 2
    )
    assert len(shared) == 0


async def test_a_body_that_cannot_be_read_is_refused_with_a_sentence(plane, http):
    await plane.start_all()
    master, store, db = plane.url("master"), plane.url("keyvaluestore"), plane.url("db")
    packed = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    for method, url in [
        ("POST", f"{master}/recipes/check"), ("PUT", f"{master}/recipes/some"), ("POST", f"{master}/lease"),
        ("POST", f"{master}/preview"), ("POST", f"{master}/archive"), ("POST", f"{master}/task"),
        ("POST", f"{store}/key"), ("PUT", f"{store}/key"), ("POST", f"{db}/tasks"),
        ("POST", f"{plane.url('storage')}/blobs"), ("POST", f"{plane.url('storage')}/upload/x"),
    ]:  # fmt: skip
        for encoding in ("gzip", "br", "deflate", "zstd", "nonsense"):
            headers = {**packed, "Content-Encoding": encoding}
            async with http.request(method, url, data=b"not packed at all", headers=headers) as answer:
                assert answer.status == 415, (url, encoding, answer.status)
    for kind in (
        "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 300,
        "multipart/form-data; boundary=b", "application/x-www-form-urlencoded; charset=nonsense", "multipart/mixed",
        "application/x-www-form-urlencoded; charset=utf-16",
    ):  # fmt: skip
        for url in (f"{store}/key", f"{master}/archive", f"{master}/task", f"{plane.url('storage')}/upload/x"):
            for body in (b"--b\r\nnonsense", b"value=%ff", b"", b"--b\r\nContent-Length: x\r\n\r\nx\r\n--b--\r\n"):
                async with http.post(url, data=body, headers={"Content-Type": kind}) as answer:
                    assert answer.status < 500, (url, kind, body, await answer.text())


def test_only_the_owner_can_read_a_data_directory(tmp_path):
    from safelight.serve import keep_private

    (tmp_path / "old").mkdir(mode=0o755)
    for name in ("old", "new/below"):
        keep_private(str(tmp_path / name))
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700


async def test_programs_without_a_key_cannot_fill_the_keyvaluestore(plane, http):
    store = await plane.start("keyvaluestore", trusted_proxies=ELSEWHERE, classic_networks="127.0.0.1")

    async def post(key: str, value: str) -> tuple[int, str]:
        async with http.post(f"{store.url}/{key}", json={"value": value}) as answer:
            return answer.status, await answer.text()

    answers = await asyncio.gather(*(post(f"k{n}", "127.0.0.1:1") for n in range(CLASSIC_ENTRIES + 20)))
    refused = [text for status, text in answers if status == 507]
    assert [status for status, _ in answers].count(200) == CLASSIC_ENTRIES
    assert len(refused) == 20
    assert "have an operator delete some" in refused[0]
    assert (await post("k0", "é" * 512))[0] == 200, "an entry can be replaced"
    assert (await post("k0", "é" * 513))[0] == 413
    body = {"value": "v" * 2000, "instance": "i", "ttl": 60.0}
    for key in ("k0", "dbendpoint"):
        async with http.put(f"{store.url}/{key}", json=body, headers=plane.credentials) as answer:
            assert answer.status == 200, "services are not limited"
    assert (await post("k0", "127.0.0.1:1"))[0] == 403
