"""Test what a client makes of the answer to a second attempt, when the answer to the first was lost."""

from __future__ import annotations

import pytest
from aiohttp import web

from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.http import problem_response


@pytest.fixture
async def photos():
    """Run a master with the tasks of a set, which breaks off as many answers to DELETE as `lost` says; yield them."""
    tasks, lost = {"1-a", "2-b"}, [0]

    async def delete(request):
        if request.match_info["id"] not in tasks:
            return problem_response(Error(Code.NOT_FOUND, "There is no such task."))
        tasks.remove(request.match_info["id"])
        if lost[0]:
            lost[0] -= 1
            request.transport.abort()
        return web.Response(status=204)

    async def healthz(_request):
        return web.Response()

    app = web.Application()
    app.router.add_delete("/task/{id}", delete)
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Client.connect(f"127.0.0.1:{runner.addresses[0][1]}") as client:
        yield client, tasks, lost
    await runner.cleanup()


@pytest.mark.parametrize("kept", [True, False], ids=["over a kept connection", "over a new connection"])
async def test_a_task_that_was_deleted_without_an_answer_is_deleted(photos, kept):
    client, tasks, lost = photos
    if kept:  # aiohttp repeats requests by itself only if the connection was used before
        assert await client.health()
    lost[0] = 1
    await client.delete("1-a")
    assert (tasks, lost) == ({"2-b"}, [0])


async def test_a_task_that_was_never_there_is_not_found(photos):
    client, tasks, _ = photos
    with pytest.raises(Error) as refused:
        await client.delete("3-c")
    assert refused.value.code is Code.NOT_FOUND
    assert tasks == {"1-a", "2-b"}
