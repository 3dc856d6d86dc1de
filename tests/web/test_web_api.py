"""Test the parts of the master that only the page uses: archives, views, previews, the last hour, services."""

import asyncio
import hashlib
import io
import json
import zipfile

import aiohttp
import pytest
import pytest_asyncio
from PIL import Image

from safelight.client.db import DbClient
from safelight.wire import TaskQuery
from support.photos import photo
from support.programs.until import until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module")
async def ask(whole):
    async with aiohttp.ClientSession(f"http://{whole.master}") as session:

        async def send(method, path, **options):
            async with session.request(method, path, **options) as answer:
                return answer, await answer.read()

        yield send


async def finished(client, data, **options):
    task = await client.wait((await client.upload(data, **options)).id, timeout=90)
    assert task.failure is None
    return task


async def test_an_archive_contains_the_requested_photos(client, ask):
    first = await finished(client, photo(0), filename="../../cat.png", recipe="web", batch="b1")
    second = await finished(client, photo(1), filename="cat.png", recipe="invert")
    third = await finished(client, photo(2), filename="CAT.png", recipe="invert")
    _, body = await ask("GET", "/archive")
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(names) == 8
        assert {"CAT.image.png", "cat.image-2.png", "cat.small-webp.webp"} <= set(names), (
            "also where case does not count"
        )
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        digests = {hashlib.sha256(archive.read(name)).hexdigest() for name in names}
    assert digests == {output.digest for task in (first, second, third) for output in task.outputs}
    two = f"tasks={second.id},no-such,{third.id}"
    # Of `two`: both results, and the list of what is left out.
    for query, count in ((two, 3), ("batch=b1&output=small-webp", 1), ("recipe=web", 6)):
        _, body = await ask("GET", f"/archive?{query}")
        assert len(zipfile.ZipFile(io.BytesIO(body)).namelist()) == count, query
    answer, body = await ask("POST", "/archive", data={"tasks": second.id})
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert zipfile.ZipFile(io.BytesIO(body)).namelist() == ["cat.image.png"]
    assert (await ask("GET", "/archive?batch=none"))[0].status == 404
    for both in ("search=cat", "since=1", "state=failed"):
        assert (await ask("GET", f"/archive?{two}&{both}"))[0].status == 400, both
    assert (await ask("POST", "/archive", data={"no": "such"}))[0].status == 400
    assert (await ask("HEAD", "/archive"))[1] == b""


async def test_a_rendition_is_small_and_not_listed(client, whole, ask):
    task = await finished(client, photo(0, width=1200, kind="TIFF"), recipe="invert", filename="scan.tif")
    views = await asyncio.gather(*(ask("GET", f"/task/{task.id}/rendition") for _ in range(4)))
    assert len({body for _, body in views}) == 1
    answer, body = views[0]
    assert (answer.status, answer.content_type) == (200, "image/webp")
    assert max(Image.open(io.BytesIO(body)).size) == 480
    _, body = await ask("GET", f"/task/{task.id}/rendition?output=image&size=large")
    assert Image.open(io.BytesIO(body)).size == (1200, 1200)
    async with DbClient.connect(f"127.0.0.1:{whole.ports['db']}") as db:
        assert [found.id for found in (await db.find(TaskQuery())).tasks] == [task.id]
    assert (await ask("GET", f"/task/{task.id}/rendition?output=none"))[0].status == 404


async def test_a_batch_may_have_any_name(client, ask):
    async def counted():
        minutes = json.loads((await ask("GET", "/last-hour"))[1])["minutes"]
        return sum(minute["created"] for minute in minutes)

    async def created():
        events, after = [], 0
        while (page := await client.changes(after, wait=0)).events:
            events += page.events
            after = page.last
        return sum(event.kind == "created" and not event.internal for event in events)

    before = await created()  # tasks of other tests may not be counted yet
    task = await finished(client, photo(4), recipe="invert", batch="view")
    assert [found.id for found in (await client.tasks()).tasks] == [task.id]
    assert len(zipfile.ZipFile(io.BytesIO((await ask("GET", "/archive"))[1])).namelist()) == 1

    assert await created() == before + 1

    async def all_counted():
        return await counted() == before + 1

    await until(all_counted)


async def test_a_preview_is_made_by_the_engine(client, ask):
    task = await finished(client, photo(1, width=300))
    recipe = {"outputs": {"try": {"operations": [{"op": "resize", "width": 50}], "format": "png"}}}
    answer, _ = await ask("POST", "/preview", json={"task": task.id, "recipe": recipe})
    made = await answer.json()
    assert (made["internal"], made["outputs"][0]["width"]) == (True, 50)
    _, body = await ask("GET", "/archive")
    assert len(zipfile.ZipFile(io.BytesIO(body)).namelist()) == len(task.outputs)
    later = await finished(client, photo(2), recipe="invert")
    answer, _ = await ask("POST", "/preview", json={"task": later.id, "recipe": recipe})
    newest = await answer.json()
    # The two previews, one newer than both photos and one between them, do not appear in pages of one photo.
    first = await client.tasks(limit=1)
    assert [found.id for found in first.tasks] == [later.id]
    second = await client.tasks(limit=1, before=first.next)
    assert [found.id for found in second.tasks] == [task.id]
    for preview in (made, newest):
        await client.delete(preview["id"])
    recipe["outputs"]["try"]["operations"][0]["width"] = 0
    answer, _ = await ask("POST", "/preview", json={"task": task.id, "recipe": recipe})
    assert answer.status == 422
    assert (await answer.json())["position"] == "$.outputs.try.operations[0].width"


async def test_the_last_hour_is_known_after_a_restart(client, whole, ask):
    await finished(client, photo(3))
    failed = await client.wait((await client.upload(photo(0)[:5000])).id, timeout=90)
    assert failed.failure is not None

    async def counted():
        _, body = await ask("GET", "/last-hour")
        minutes = json.loads(body)["minutes"]
        return {name: sum(minute[name] for minute in minutes) for name in ("finished", "failed", "created")}

    async def both_counted():
        return (now := await counted())["finished"] >= 1 and now["failed"] >= 1

    await until(both_counted)
    before = await counted()
    await whole.kill("master")
    await whole.start("master")
    await whole.ready()

    async def known_again():
        return await counted() == before

    await until(known_again)


async def test_an_unavailable_service_is_reported(client, whole, ask):
    await whole.kill("storage")
    try:
        answer, _ = await ask("GET", "/services")
        found = {service["name"]: service["ready"] for service in await answer.json()}
        assert found["storage"] is False
        assert found["db"] is True
    finally:
        await whole.start("storage")
        await whole.ready()
