"""Test renditions and previews, with workers that the tests play."""

from __future__ import annotations

import asyncio

import pytest

from safelight.client.access import AccessClient
from safelight.errors import Code, Error
from safelight.master.download import renditions
from safelight.master.upload.task_batcher import TaskBatcher
from safelight.wire import Failure, State, TaskQuery
from safelight.wire.accounts import Limits
from support.leases import digest_of, fail, finish, take
from support.photos import photo
from support.programs.until import until

RECIPE = {"outputs": {"image": {"format": "png"}}}


@pytest.fixture
async def scan(client):
    """Upload a photo that browsers cannot show, and cancel its own task."""
    task = await client.upload(photo(0, kind="TIFF"), filename="scan.tif")
    return await client.cancel(task.id)


async def test_a_preview_is_deleted_some_time_after_it_was_answered(master, client, storage, http, scan, monkeypatch):
    """Keys that may only upload cannot delete it themselves."""
    monkeypatch.setattr(renditions, "_PREVIEW_KEPT", 0.0)
    asking = asyncio.create_task(asked(http, master, scan.id))
    (lease,) = await take(client)
    await finish(client, storage, lease, {"image": b"made"})
    assert await asking == 200

    async def is_gone():
        try:
            await client.task(lease.task)
        except Error as error:
            return error.code is Code.NOT_FOUND
        return False

    await until(is_gone, timeout=10)


async def test_a_preview_that_nobody_waits_for_is_deleted_while_it_is_created(
    master, client, db, http, scan, monkeypatch
):
    created, gate = asyncio.Event(), asyncio.Event()
    create = TaskBatcher.create

    async def slow(batcher, task):
        made = await create(batcher, task)
        created.set()
        await gate.wait()
        return made

    monkeypatch.setattr(TaskBatcher, "create", slow)
    asking = asyncio.create_task(asked(http, master, scan.id))
    await created.wait()
    assert (await internal(db))[0].state is State.WAITING
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await client.summary()  # the master has seen that the client left
    gate.set()

    async def is_gone():
        return await internal(db) == []

    await until(is_gone, timeout=10)


@pytest.mark.parametrize("limits", [Limits(waiting=1), Limits(bytes=1)])
async def test_the_limits_of_a_tenant_apply_to_previews(master, client, db, http, limits):
    task = await client.upload(photo(1))
    async with AccessClient.connect(master.url) as access:
        await access.change_tenant("default", name="", weight=1.0, limits=limits)
    assert await asked(http, master, task.id) == 429
    assert await internal(db) == []


async def test_the_failure_of_a_rendition_is_its_answer_only_for_a_while(master, client, http, scan, monkeypatch):
    """Its cause may end: a damaged photo is replaced when it is uploaded again."""

    async def shown(wait: float) -> int:
        async with http.get(f"{master.url}/task/{scan.id}/rendition?wait={wait}") as answer:
            return answer.status

    asking = asyncio.create_task(shown(20.0))
    (lease,) = await take(client)
    await fail(client, lease, Failure(code=Code.DAMAGED_IMAGE, detail="The photo is damaged."))
    assert await asking == 422
    assert await shown(0.0) == 422
    monkeypatch.setattr(renditions, "_FAILED_KEPT", 0.0)
    assert await shown(0.0) == 202
    assert len(await take(client)) == 1


async def test_a_rendition_that_is_damaged_is_made_again(tmp_path, master, client, storage, http, scan):
    async def shown(wait: float) -> tuple[int, bytes]:
        async with http.get(f"{master.url}/task/{scan.id}/rendition?wait={wait}") as answer:
            return answer.status, await answer.read()

    async def made() -> None:
        asking = asyncio.create_task(shown(20.0))
        (lease,) = await take(client)
        await finish(client, storage, lease, {"rendition": b"made"})
        assert await asking == (200, b"made")

    await made()
    digest = digest_of(b"made")
    (tmp_path / "storage/blobs" / digest[:2] / digest).write_bytes(b"rot!")
    with pytest.raises(Error) as found:  # as when the scrubber passes
        async with storage.open(digest, verify=True):
            pass
    assert found.value.code is Code.DAMAGED_BLOB
    assert await shown(0.0) == (202, b"")
    await made()


async def asked(http, master, task: str) -> int:
    """Ask for a preview; return the status of the answer."""
    async with http.post(f"{master.url}/preview", json={"task": task, "recipe": RECIPE}) as answer:
        return answer.status


async def internal(db):
    return (await db.find(TaskQuery(internal=True))).tasks
