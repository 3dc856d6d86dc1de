"""Test an older copy of the database under a running master: its readers are informed, and read again."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from safelight.client.base import session
from safelight.client.master import Client
from safelight.wire import LeaseRequest
from support.leases import WORKER
from support.photos import photo
from support.programs.system import System, system

pytestmark = pytest.mark.slow


async def restart_db(whole: System) -> None:
    await (await whole.start("db")).address()


async def stop_db(whole: System) -> None:
    assert await whole.running.pop("db").stop(signal.SIGTERM) == 0


async def streamed(http, url: str, seen: list[str], began: asyncio.Event) -> None:
    async with http.get(f"{url}/events", headers={"Accept": "text/event-stream"}) as answer:
        async for line in answer.content:
            seen.append(line.decode().strip())
            began.set()


async def id_of_the_next(http, url: str, after: int) -> str:
    """Return the last id that a browser keeps when a stream breaks after its first change."""
    async with http.get(f"{url}/events?after={after}", headers={"Accept": "text/event-stream"}) as answer:
        kept = ""
        async for line in answer.content:
            name, _, value = line.decode().strip().partition(": ")
            kept = value if name == "id" else kept
            if name == "data":
                return kept
    raise AssertionError("the stream ended")


async def first_of_all(http, url: str, headers: dict[str, str], query: str = "") -> str:
    """Return the first line about a change in a resumed stream."""
    async with http.get(f"{url}/events{query}", headers={"Accept": "text/event-stream", **headers}) as answer:
        async for line in answer.content:
            if line.startswith((b"event", b"data")):
                return line.decode().strip()
    raise AssertionError("the stream ended")


async def told_of_missed(reading: asyncio.Task[None], seen: list[str]) -> None:
    """Wait until an open stream has reported that changes were missed."""
    async with asyncio.timeout(60):
        while "event: missed" not in seen:
            await asyncio.wait([reading], timeout=0.1)
            assert not reading.done()


@pytest.mark.parametrize("grown", [False, True])
async def test_readers_are_told_of_a_restored_database(tmp_path: Path, grown: bool) -> None:
    """With `grown`, the copy has more events than the readers know, so that event numbers alone do not show it."""
    async with system(tmp_path) as whole, Client.connect(whole.master) as client, session() as http:
        kept = await client.upload(photo(1))
        await stop_db(whole)
        shutil.copytree(whole.data / "db", tmp_path / "copy")
        await restart_db(whole)
        await whole.ready()
        lost = await client.upload(photo(2))
        page = await client.changes(lost.seq - 1, wait=10.0)
        left = await id_of_the_next(http, f"http://{whole.master}", lost.seq - 1)
        seen, began = list[str](), asyncio.Event()
        reading = asyncio.create_task(streamed(http, f"http://{whole.master}", seen, began))
        await began.wait()
        waiting = asyncio.create_task(client.wait(kept.id, timeout=60))
        await stop_db(whole)
        shutil.rmtree(whole.data / "db")
        shutil.copytree(tmp_path / "copy", whole.data / "db")
        await restart_db(whole)
        await whole.ready()
        if grown:
            for number in range(3, 8):
                await client.upload(photo(number))
        await told_of_missed(reading, seen)
        assert await first_of_all(http, f"http://{whole.master}", {"Last-Event-ID": left}) == "event: missed"
        after, _, known = left.partition("-")
        query = f"?after={after}&known={known}"  # as the page does
        assert await first_of_all(http, f"http://{whole.master}", {}, query) == "event: missed"
        told = await client.changes(page.last, known=page.db)
        assert told.restored
        assert told.db != page.db
        fresh = await client.changes(0)
        assert lost.id not in {event.task for event in fresh.events}
        (lease, *_) = await client.lease(LeaseRequest(worker=WORKER, n=1, wait=10.0))
        assert lease.task == kept.id
        await client.cancel(kept.id)
        assert (await waiting).id == kept.id
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
