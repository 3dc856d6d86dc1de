"""Test that a copy outlasts the restart of a service that it reads."""

import asyncio

import pytest
from aiohttp import web

from safelight.cli.backup.archive import Archive
from safelight.cli.backup.copying import Copying, reading
from safelight.cli.backup.taking import fetch_database
from safelight.client.availability.instances import Several
from safelight.client.base import Connection, session
from safelight.client.db import DbClient
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.storage.directory import DirectoryStore
from safelight.wire import Reference
from support.tasks import digest

BLOB = b"1"


@pytest.fixture
async def restarting():
    """Run a service that refuses its first request, as one that starts does; yield a connection to it."""
    requests: list[web.Request] = []

    async def answer(request):
        requests.append(request)
        if len(requests) == 1:
            return web.json_response({"code": Code.UNAVAILABLE, "detail": "It starts."}, status=503)
        return web.Response(body=BLOB)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with asyncio.timeout(30), session() as http:
        yield Connection(http, Several(f"127.0.0.1:{runner.addresses[0][1]}"))
    await runner.cleanup()


async def test_a_blob_is_copied_once_storage_answers(restarting, tmp_path):
    storage = StorageClient(restarting)
    async with DirectoryStore.at(tmp_path) as target:
        copying = Copying(reading(storage), storage.named, target)
        await copying.copy(Reference(digests=[digest(1)], names=[]))
        async with target.open(digest(1)) as blob:
            assert b"".join([chunk async for chunk in blob.chunks()]) == BLOB
    assert (copying.copied, copying.blobs, copying.missing) == (1, 1, set())


async def test_a_database_is_copied_once_db_answers(restarting, tmp_path):
    archive = Archive(tmp_path)
    found, size = await fetch_database(archive, DbClient(restarting))
    assert (found, size) == (digest(1), len(BLOB))
    assert archive.database(found).read_bytes() == BLOB


async def test_a_full_target_is_not_awaited(tmp_path):
    attempts = []

    def full(_digest):
        attempts.append(1)
        raise Error(Code.STORAGE_FULL, "It is full.")

    async with DirectoryStore.at(tmp_path) as target:
        with pytest.raises(Error, match="It is full"):
            await Copying(full, full, target).copy(Reference(digests=[digest(1)], names=[]))
    assert attempts == [1]
