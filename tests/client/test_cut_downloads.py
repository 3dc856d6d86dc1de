"""Test that the download of a blob continues when its storage has started again."""

import asyncio

from aiohttp import web

from safelight.client.availability.instances import Several
from safelight.client.base import Connection, session
from safelight.client.storage import StorageClient
from safelight.errors import Code

BLOB = bytes(range(256))


async def test_a_download_waits_for_the_only_storage_to_start_again():
    ranges = []

    async def answer(request):
        ranges.append(request.headers.get("Range"))
        match len(ranges):
            case 1:
                response = web.StreamResponse(headers={"Content-Length": str(len(BLOB))})
                await response.prepare(request)
                await response.write(BLOB[:100])
                request.transport.close()
                return response
            case 2:
                return web.json_response({"code": Code.UNAVAILABLE, "detail": "It starts."}, status=503)
            case _:
                return web.Response(status=206, body=BLOB[100:])

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with asyncio.timeout(30), session() as http:
        storage = StorageClient(Connection(http, Several(f"127.0.0.1:{runner.addresses[0][1]}")))
        async with storage.open("0" * 64) as blob:
            assert await blob.read() == BLOB
    await runner.cleanup()
    assert ranges == [None, "bytes=100-255", "bytes=100-255"]
