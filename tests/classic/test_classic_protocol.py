"""Test that programs for the classic protocol work without changes."""

from __future__ import annotations

import asyncio
import json

import pytest

from classic.classic_protocol import Worker, ask, inverted, multipart, upload
from safelight.client.master import Client
from safelight.wire import State
from support.photos import is_inverse, photo

pytestmark = pytest.mark.slow


async def test_a_client_and_a_worker(running):
    await asyncio.to_thread(_client_and_worker, running.keyvaluestore, running.master)


def _client_and_worker(keyvaluestore: str, master: str) -> None:
    worker = Worker(keyvaluestore)
    assert worker.next() is None
    photos = [photo(n) for n in range(5)]
    ids = []
    for number, data in enumerate(photos):
        status, body = upload(master, data, None if number % 2 else "photo.png")
        assert status == 200
        ids.append(json.loads(body)["id"])
    assert ask(master, "GET", f"/task/{ids[0]}/ready") == (200, b"false")
    assert ask(master, "GET", "/task/there-is-none/ready")[0] == 404
    while worker.work():
        pass
    for made, data in zip(ids, photos, strict=True):
        assert ask(master, "GET", f"/task/{made}/ready") == (200, b"true")
        status, result = ask(master, "GET", f"/task/{made}/download")
        assert status == 200
        assert is_inverse(data, result)


async def test_new_clients_can_read_the_result(running):
    async with Client.connect(running.master) as client:
        task = await client.upload(photo(1), filename="me.png")
        worker = await asyncio.to_thread(Worker, running.keyvaluestore)
        assert await asyncio.to_thread(worker.work)
        done = await client.wait(task.id, timeout=30.0)
        assert (done.state, done.engine) == (State.FINISHED, "classic")
        assert [(made.name, made.media_type) for made in done.outputs] == [("image", "image/png")]
        async with client.result(task.id, output="image") as answer:
            assert is_inverse(photo(1), await answer.read())
            assert 'filename="me.image.png"' in answer.headers["Content-Disposition"]
        async with client.original(task.id) as answer:
            assert await answer.read() == photo(1)


async def test_a_classic_worker_gets_only_tasks_that_it_can_do(running):
    async with Client.connect(running.master) as client:
        await client.upload(photo(1), recipe="thumbnail")
        worker = await asyncio.to_thread(Worker, running.keyvaluestore)
        assert await asyncio.to_thread(worker.next) is None
        same = {"outputs": {"image": {"operations": [{"op": "invert"}]}}}
        await client.upload(photo(2), recipe=same)
        assert await asyncio.to_thread(worker.next) is not None


async def test_a_worker_that_lost_its_task_cannot_finish_it(running):
    async with Client.connect(running.master) as client:
        task = await client.upload(photo(1))
        late = await asyncio.to_thread(Worker, running.keyvaluestore)
        held = await asyncio.to_thread(late.next)
        await asyncio.to_thread(late.process, held)
        while (await client.task(task.id)).state is State.WORKING:
            await client.changes(task.seq + 1, wait=5.0, task=task.id)  # its lease expires
        other = await asyncio.to_thread(Worker, running.keyvaluestore)
        assert await asyncio.to_thread(other.work)
        first = await client.task(task.id)
        assert await asyncio.to_thread(late.finish, held) == 409
        now = await client.task(task.id)
        assert (now.state, now.outputs, now.failure) == (first.state, first.outputs, first.failure)
        assert (first.deaths, now.deaths) == (1, 0), "it was late and not dead"
        status, result = await asyncio.to_thread(ask, running.master, "GET", f"/task/{task.id}/download")
        assert status == 200
        assert is_inverse(photo(1), result)


async def test_finishing_takes_a_result_and_the_right_id(running):
    async with Client.connect(running.master) as client:
        task = await client.upload(photo(1))
        worker = await asyncio.to_thread(Worker, running.keyvaluestore)
        held = await asyncio.to_thread(worker.next)
        assert await asyncio.to_thread(worker.finish, held) == 409  # no result has been uploaded yet
        assert await asyncio.to_thread(worker.finish, "unknown") == 404
        await asyncio.to_thread(worker.process, held)
        for _ in range(2):  # a client repeats a request whose answer was lost
            assert await asyncio.to_thread(worker.finish, held) == 200
        assert (await client.task(task.id)).state is State.FINISHED


async def test_a_client_that_calls_db_and_storage_itself(running):
    """The seed's master did these three requests for its clients; some did them themselves."""
    made = await asyncio.to_thread(_by_hand, running)
    async with Client.connect(running.master) as client:
        async with client.original(made) as answer:
            assert await answer.read() == photo(3)
        worker = await asyncio.to_thread(Worker, running.keyvaluestore)
        assert await asyncio.to_thread(worker.work)
        async with client.result(made) as answer:
            assert is_inverse(photo(3), await answer.read())


def _by_hand(running) -> str:
    db, storage = (f"127.0.0.1:{running.ports[name]}" for name in ("db", "storage"))
    status, body = ask(db, "POST", "/task")
    assert status == 200
    made = body.decode()
    assert ask(running.master, "GET", f"/task/{made}/download")[0] == 409
    assert ask(storage, "POST", f"/upload/{made}", *multipart(photo(3), None))[0] == 200
    assert ask(db, "POST", f"/task/{made}/ready")[0] == 200
    return made


async def test_a_worker_that_finishes_at_db(running):
    async with Client.connect(running.master) as client:
        task = await client.upload(photo(1))
        worker = await asyncio.to_thread(Worker, running.keyvaluestore)
        held = await asyncio.to_thread(worker.next)
        await asyncio.to_thread(worker.process, held)
        db = f"127.0.0.1:{running.ports['db']}"
        assert (await asyncio.to_thread(ask, db, "POST", f"/task/{held}/finish"))[0] == 200
        async with client.result(task.id) as answer:
            assert await answer.read() == inverted(photo(1))
