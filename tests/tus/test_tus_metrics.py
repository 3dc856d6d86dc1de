"""Test that the master's metrics count resumable uploads as they count forms."""

import asyncio

from safelight.client import base
from safelight.client.access import AccessClient
from safelight.wire.accounts import Limits
from support.bodies import stream
from support.metrics import metric, until

DURATIONS = "safelight_upload_seconds_count"
IN_PROGRESS = "safelight_uploads_in_progress"


def refusals(code: str) -> str:
    return f'safelight_uploads_refused_total{{code="{code}"}}'


async def test_each_upload_is_measured_once(master, tus, png):
    async with base.session() as http:
        assert (await tus.create(len(png), body=png)).status == 201
        assert await metric(http, master.url, DURATIONS) == 1
        path = await tus.opened(len(png))
        assert (await tus.patch(path, 0, png[:1500])).status == 204
        assert await metric(http, master.url, DURATIONS) == 1
        assert (await tus.patch(path, 1500, png[1500:])).status == 204
        assert await metric(http, master.url, DURATIONS) == 2
        await tus.send("HEAD", path)
        assert await metric(http, master.url, DURATIONS) == 2


async def test_refused_uploads_are_counted_once_by_their_reason(master, tus, png):
    async with AccessClient.connect(master.url) as access, base.session() as http:
        assert (await tus.create(2000, body=b"x" * 2000)).status == 415
        assert await metric(http, master.url, refusals("not_an_image")) == 1
        assert (await tus.create(1 << 30)).status == 413
        assert await metric(http, master.url, refusals("too_large")) == 1
        path = await tus.opened(len(png))
        await access.change_tenant("default", name="", weight=1.0, limits=Limits(waiting=0))
        assert await metric(http, master.url, refusals("too_many_requests")) == 0
        assert (await tus.patch(path, 0, png)).status == 429
        assert (await tus.create(len(png), body=png)).status == 429
        chunk = {"Content_Type": "application/offset+octet-stream", "Upload_Offset": "0"}
        overridden = await tus.send("POST", path, body=png, X_HTTP_Method_Override="PATCH", **chunk)
        assert overridden.status == 429
        assert await metric(http, master.url, refusals("too_many_requests")) == 3


async def test_uploads_in_progress_are_counted_until_they_end(master, tus, png):
    gate = asyncio.Event()
    async with base.session() as http:
        sending = asyncio.create_task(tus.create(len(png), body=stream(png[:3000], png[3000:], gate=gate)))
        await until(http, master.url, IN_PROGRESS, lambda count: count == 1)
        gate.set()
        assert (await sending).status == 201
        assert await metric(http, master.url, IN_PROGRESS) == 0
