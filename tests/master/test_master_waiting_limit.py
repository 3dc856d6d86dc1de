"""Test uploads that reach db together when there is room for only some of them."""

import asyncio

import aiohttp
import pytest

from safelight.client.access import AccessClient
from safelight.client.master import Client
from safelight.client.requests.uploads import Upload
from safelight.errors import Code, Error
from safelight.wire import Task, TaskFilter, TaskQuery, WorkerInfo
from safelight.wire.accounts import Limits
from support.leases import digest_of, take
from support.photos import photo


@pytest.fixture
async def client(master):
    """Return a client that does not repeat what was refused."""
    async with Client.connect(master.url) as connected:
        connected._connection.retry_for = 0.0
        yield connected


async def _let_wait(master, most: int) -> None:
    async with AccessClient.connect(master.url) as access:
        await access.change_tenant("default", name="", weight=1.0, limits=Limits(waiting=most))


async def test_uploads_that_arrive_together_are_refused_one_by_one(master, client):
    await _let_wait(master, 2)
    first = await client.upload(photo(0), idempotency_key="0")
    sent = (client.upload(photo(n), idempotency_key=str(n)) for n in range(4))
    answers = await asyncio.gather(*sent, return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, Task)]
    refused = [answer for answer in answers if isinstance(answer, Error)]
    assert first.id in {task.id for task in made}, "a repeated upload makes no task, so it needs no room"
    assert (len(made), len(refused)) == (2, 2)
    assert {(error.code, error.extra["limit"]) for error in refused} == {(Code.TOO_MANY_REQUESTS, 2)}


async def test_photos_without_a_key_of_which_some_were_accepted_are_not_refused_as_a_whole(master, client, http):
    """Whoever is refused sends all of them again, and without a key the accepted ones would become tasks twice."""
    await _let_wait(master, 2)

    async def send():
        form = aiohttp.FormData()
        for n in range(3):
            form.add_field("image", photo(n), filename=f"{n}.png")
        async with http.post(f"{master.url}/tasks", data=form) as answer:
            return answer.status, await answer.json()

    status, uploaded = await send()
    assert (status, [bool(each["task"]) for each in uploaded]) == (200, [True, True, False])
    assert uploaded[2]["problem"]["code"] == "too_many_requests"
    status, refused = await send()
    assert (status, refused["code"]) == (429, "too_many_requests")
    assert len((await client.tasks()).tasks) == 2


async def test_more_photos_than_may_wait_are_uploaded_as_the_queue_empties(master, client):
    await _let_wait(master, 2)
    photos = [Upload(source=photo(n)) for n in range(5)]
    for made in (2, 4):
        with pytest.raises(Error) as refused:
            await client.upload_many(photos, idempotency_key="k")
        assert refused.value.code is Code.TOO_MANY_REQUESTS
        assert len((await client.tasks()).tasks) == made
        await take(client, n=2, worker=WorkerInfo(id=f"worker-{made}"))
    answers = await client.upload_many(photos, idempotency_key="k")
    assert len({answer.task.id for answer in answers}) == 5


async def test_a_rerun_of_more_photos_than_may_wait_goes_on_where_it_met_the_limit(master, client):
    """Whoever repeats a page that was refused would otherwise process the photos before the limit twice."""
    ids = [(await client.upload(photo(n), recipe="invert")).id for n in range(5)]
    await client.act("cancel", tasks=ids)
    await _let_wait(master, 2)
    before, changed = None, []
    while not changed or before is not None:
        changes = await client.act("rerun", filter=TaskFilter(recipe="invert"), recipe="thumbnail", before=before)
        changed.append(changes.changed)
        if (before := changes.next) is not None:
            with pytest.raises(Error) as refused:
                await client.act("rerun", filter=TaskFilter(recipe="invert"), recipe="thumbnail", before=before)
            assert refused.value.code is Code.TOO_MANY_REQUESTS
            await take(client, n=2, worker=WorkerInfo(id=f"worker-{len(changed)}"))
    assert changed == [2, 2, 1]
    again = (await client.find(TaskQuery(recipe="thumbnail"))).tasks
    assert sorted(task.input.digest for task in again) == sorted(digest_of(photo(n)) for n in range(5))


async def test_a_rerun_of_named_tasks_without_a_key_is_refused_as_a_whole(master, client):
    ids = [(await client.upload(photo(n), recipe="invert")).id for n in range(3)]
    await client.act("cancel", tasks=ids)
    await _let_wait(master, 2)
    with pytest.raises(Error) as refused:
        await client.act("rerun", tasks=ids, recipe="thumbnail")
    assert refused.value.code is Code.TOO_MANY_REQUESTS
    assert not (await client.find(TaskQuery(recipe="thumbnail"))).tasks
    with pytest.raises(Error):
        await client.act("rerun", tasks=ids, recipe="thumbnail", idempotency_key="k")
    kept = {task.id for task in (await client.find(TaskQuery(recipe="thumbnail"))).tasks}
    assert len(kept) == 2, "the same request with this key creates only the rest"
    await take(client, n=2)
    await client.act("rerun", tasks=ids, recipe="thumbnail", idempotency_key="k")
    assert kept < {task.id for task in (await client.find(TaskQuery(recipe="thumbnail"))).tasks}
