"""Test live events: resumed streams, long polls, slow readers."""

from __future__ import annotations

import asyncio
import socket
import time

import msgspec
import pytest

from safelight.client.master import Client
from safelight.client.requests.uploads import Upload
from safelight.errors import Code, Error
from safelight.wire import Event, NewTask, State, Task
from support.leases import finish, take
from support.metrics import metric, until
from support.photos import photo

STREAM = {"Accept": "text/event-stream"}


async def read_events(answer, count: int) -> list[Event]:
    """Read `count` events from an open stream."""
    events: list[Event] = []
    async with asyncio.timeout(60):
        while len(events) < count:
            line = await answer.content.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: "):
                events.append(msgspec.json.decode(line[6:], type=Event))
    return events


async def test_a_stream_reports_every_change(master, http, client, storage):
    async with http.get(f"{master.url}/events", headers=STREAM) as answer:
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readline() == b"retry: 2000\n"
        task = await client.upload(photo(1))
        (lease,) = await take(client)
        await finish(client, storage, lease, {"image": b"x"})
        events = await read_events(answer, 3)
    assert [event.kind for event in events] == ["created", "leased", "finished"]
    assert {event.task for event in events} == {task.id}
    assert [event.seq for event in events] == sorted(event.seq for event in events)


async def test_a_cut_stream_resumes_by_its_last_id(master, http, client):
    tasks = [await client.upload(photo(n)) for n in range(4)]
    first = tasks[0].seq
    async with http.get(f"{master.url}/events", headers={**STREAM, "Last-Event-ID": str(first)}) as answer:
        seen = await read_events(answer, 1)
    async with http.get(f"{master.url}/events?after={seen[-1].seq}", headers=STREAM) as answer:
        seen += await read_events(answer, 1)
        kept = (await client.changes(seen[-1].seq - 1)).db
    async with http.get(
        f"{master.url}/events", headers={**STREAM, "Last-Event-ID": f"{seen[-1].seq}-{kept}"}
    ) as answer:
        seen += await read_events(answer, 1)
    # A browser repeats the address with which it began.
    async with http.get(f"{master.url}/events?after=0", headers={**STREAM, "Last-Event-ID": str(first)}) as answer:
        assert (await read_events(answer, 1))[0].task == tasks[1].id
    assert [event.task for event in seen] == [task.id for task in tasks[1:]]


async def test_without_a_number_a_stream_begins_now(master, http, client):
    await client.upload(photo(1))
    async with http.get(f"{master.url}/events") as answer:
        second = await client.upload(photo(2))
        assert (await read_events(answer, 1))[0].task == second.id


async def test_one_tasks_events(master, http, client):
    tasks = [await client.upload(photo(n)) for n in range(3)]
    async with http.get(f"{master.url}/task/{tasks[1].id}/events?after=0") as answer:
        (event,) = await read_events(answer, 1)
        assert (event.task, event.kind) == (tasks[1].id, "created")
        await client.upload(photo(9))
        await client.cancel(tasks[1].id)
        assert [event.kind for event in await read_events(answer, 1)] == ["cancelled"]
    async with http.get(f"{master.url}/task/none/events") as answer:
        assert answer.status == 404


async def test_ids_advance_without_events(master, http, client):
    """A reader of one task that reconnects does not read the changes of all other tasks again."""
    task = await client.upload(photo(1))
    async with http.get(f"{master.url}/task/{task.id}/events") as answer:
        line = [await answer.content.readline() for _ in range(3)][2].decode().strip()
        assert line.partition("-")[0] == f"id: {task.seq}"


async def test_long_poll_of_json(client, master, http):
    task = await client.upload(photo(1))
    page = await client.changes(task.seq, wait=0.0)
    assert (page.events, page.last) == ([], task.seq)
    waiting = asyncio.create_task(client.changes(task.seq, wait=20.0))
    other = asyncio.create_task(client.changes(task.seq, wait=20.0, task=task.id))
    second = await client.upload(photo(2))
    assert [event.task for event in (await waiting).events] == [second.id]
    assert not other.done()
    await client.cancel(task.id)
    assert [event.kind for event in (await other).events] == ["cancelled"]


async def test_a_page_without_waiting_has_every_acknowledged_change(client):
    """While nobody waits, the master fetches changes once a second, so what it keeps in memory is often older."""
    task = await client.upload(photo(1))
    await client.changes(task.seq - 1, wait=10.0)
    kinds = ["created"]
    for _ in range(3):
        await take(client)
        kinds.append("leased")
        assert [event.kind for event in (await client.changes(0, task=task.id)).events] == kinds
        await take(client, n=0, wait=0.0)  # returns what it does not hold
        kinds.append("returned")
        assert [event.kind for event in (await client.changes(0, task=task.id)).events] == kinds


async def test_pages_of_json(client):
    tasks = [await client.upload(photo(n)) for n in range(5)]
    seen, after = [], 0
    while True:
        page = await client.changes(after, limit=2)
        if not page.events:
            break
        assert len(page.events) <= 2
        seen += page.events
        after = page.last
    assert [event.task for event in seen] == [task.id for task in tasks]


async def test_two_masters_report_the_same_events(system, master, client):
    other = await system.master()
    async with Client.connect(other.url) as there:
        before = (await there.summary()).seq
        waiting = asyncio.create_task(there.changes(before, wait=20.0))
        task = await client.upload(photo(1))
        assert [event.task for event in (await waiting).events] == [task.id]


async def test_streams_end_at_a_stop(master, http):
    async with http.get(f"{master.url}/events", headers=STREAM) as answer:
        await answer.content.readline()
        master.stop()
        async with asyncio.timeout(20):
            await answer.read()


@pytest.mark.parametrize("sent", ["x", "-1", "9" * 30, "1-", "1-a b", "1-" + "a" * 65, "\xb2"])
async def test_a_wrong_last_id_is_refused(master, http, sent):
    async with http.get(f"{master.url}/events", headers={"Last-Event-ID": sent}) as answer:
        assert answer.status == 400


async def test_the_number_of_streams_is_limited(system, http):
    master = await system.master(event_readers=1)
    async with http.get(f"{master.url}/events") as first:
        assert first.status == 200
        async with http.get(f"{master.url}/events") as second:
            assert (second.status, (await second.json())["code"]) == (429, Code.TOO_MANY_REQUESTS)


@pytest.mark.slow
async def test_a_slow_reader_is_disconnected_without_affecting_others(system, http, db):
    master = await system.master(event_stall_timeout=0.5)
    host, port = master.url.removeprefix("http://").split(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, (host, int(port)))
        await loop.sock_sendall(slow, b"GET /events?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with Client.connect(master.url) as client:
            task = await client.upload(photo(1))
            for batch in range(5):
                await db.create([like(task, f"{batch}-{n}") for n in range(1000)])
            await until(http, master.url, "safelight_event_readers_dropped_total", lambda count: count == 1)
            assert (await client.task(task.id)).id == task.id


def like(task: Task, key: str) -> NewTask:
    return NewTask(
        input=task.input,
        recipe="invert",
        recipe_digest=task.recipe_digest,
        spec=msgspec.Raw(b"{}"),
        idempotency_key=key,
    )


async def test_a_reader_far_behind_is_served_by_db(master, http, client, db):
    """A reader also gets events that this master's follower has not seen."""
    with pytest.raises(Error) as caught:
        await client.changes(-1)
    assert caught.value.code is Code.INVALID_REQUEST
    task = await client.upload(photo(1))
    page = await client.changes(0)
    assert page.events[0].task == task.id


@pytest.mark.slow
@pytest.mark.parametrize("system", ["separate"], indirect=True)
async def test_changes_that_nobody_reads_are_fetched_once_a_second(system, master, http, client):
    """With several masters, each fetches every change, so pages of one change cost a lot."""

    async def pages() -> float:
        name = 'safelight_requests_total{method="GET",route="/events",status="200"}'
        return await metric(http, system.address("db"), name)

    before, began = await pages(), time.monotonic()
    for number in range(40):
        await client.upload(photo(number))
    assert await pages() - before <= 1.5 * (time.monotonic() - began) + 10
    events, last = [], 0
    async with asyncio.timeout(10):  # a new reader must not wait for the end of the pause
        while len(events) < 40:
            page = await client.changes(last, wait=5.0)
            events, last = [*events, *page.events], page.last
    assert [event.kind for event in events] == ["created"] * 40


@pytest.mark.slow
async def test_more_tasks_are_waited_for_than_there_are_connections(client):
    uploads = [Upload(source=photo(1), filename=f"{n}.png") for n in range(110)]
    tasks = [one.task.id for one in await client.upload_many(uploads)]
    waiting = [asyncio.create_task(client.wait(each)) for each in tasks]
    await asyncio.gather(*map(client.task, tasks))  # connections are given in turn, so now those who wait have theirs
    async with asyncio.timeout(20):
        await client.act("cancel", tasks=tasks)
        assert {(await each).state for each in waiting} == {State.CANCELLED}
