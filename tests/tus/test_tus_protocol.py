"""Test the tus protocol at the master, request by request."""

import asyncio
import base64
import hashlib
import json
from email.utils import parsedate_to_datetime

import pytest

from safelight.client.access import AccessClient
from safelight.client.partials import PartialClient
from safelight.errors import Code
from safelight.master.recipes import recipe_reader
from safelight.recipe import work_of
from safelight.recipe.operations import WATERMARK_IMAGE_BYTES
from safelight.wire.accounts import Limits
from support.bodies import stream
from support.programs.until import until
from support.tasks import request
from support.tus import encoded, sha1


async def test_options_describe_the_protocol(tus):
    answer = await tus.send("OPTIONS", "/uploads")
    assert answer.status == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) == {
        "creation", "creation-with-upload", "checksum", "expiration", "termination",
    }  # fmt: skip
    assert answer.headers["Tus-Max-Size"] == str(4 << 20)
    assert "sha1" in answer.headers["Tus-Checksum-Algorithm"].split(",")


async def test_the_address_may_end_with_a_slash_as_in_the_examples_of_clients(tus, client, png):
    assert (await tus.send("OPTIONS", "/uploads/")).headers["Tus-Version"] == "1.0.0"
    created = await tus.send("POST", "/uploads/", Upload_Length=str(len(png)))
    assert created.status == 201
    done = await tus.patch(created.headers["Location"], 0, png)
    assert (await client.task(done.headers["Safelight-Task"])).input.size == len(png)


async def test_another_version_is_refused(tus):
    answer = await tus.send("POST", "/uploads", Upload_Length="5", Tus_Resumable="0.2.2")
    assert answer.status == 412
    assert answer.headers["Tus-Version"] == "1.0.0"


async def test_chunks_become_one_task(tus, client, png):
    path = await tus.opened(len(png), filename="kätzchen.png", recipe="grayscale", batch="b1", priority="7")
    head = await tus.send("HEAD", path)
    assert (head.headers["Upload-Offset"], head.headers["Upload-Length"]) == ("0", str(len(png)))
    assert head.headers["Cache-Control"] == "no-store"
    assert f"filename {encoded('kätzchen.png')}" in head.headers["Upload-Metadata"]
    assert parsedate_to_datetime(head.headers["Upload-Expires"]) is not None
    first = await tus.patch(path, 0, png[:1500])
    assert (first.status, first.headers["Upload-Offset"]) == (204, "1500")
    assert "Safelight-Task" not in first.headers
    last = await tus.patch(path, 1500, png[1500:])
    assert (last.status, last.headers["Upload-Offset"]) == (204, str(len(png)))
    task = await client.task(last.headers["Safelight-Task"])
    assert (task.filename, task.recipe, task.batch, task.priority) == ("kätzchen.png", "grayscale", "b1", 7)
    assert task.media_type == "image/png"
    assert task.input is not None
    assert task.input.digest == hashlib.sha256(png).hexdigest()
    for answer in (await tus.send("HEAD", path), await tus.patch(path, len(png), b"")):
        assert answer.headers.get("Safelight-Task", task.id) == task.id
    assert len((await client.tasks()).tasks) == 1


async def test_created_and_sent_in_one_request(tus, client, png):
    answer = await tus.create(len(png), body=png, filename="one.png")
    assert answer.status == 201
    assert (await client.task(answer.headers["Safelight-Task"])).filename == "one.png"


async def test_the_largest_recipe_may_be_used(tus, client, png):
    """Storage keeps it with the upload; it may be a process of its own."""
    image = base64.b64encode(bytes(WATERMARK_IMAGE_BYTES)).decode()
    output = {"operations": [{"op": "watermark", "image": image}], "format": "webp"}
    saved = await client.save_recipe("brand", {"outputs": {f"output{n}": output for n in range(5)}})
    assert len(bytes(saved.spec)) > 3 << 20
    answer = await tus.create(len(png), body=png, recipe="brand")
    assert answer.status == 201, await answer.text()
    task = await client.task(answer.headers["Safelight-Task"])
    lease, *_ = await client.lease(request(n=1))
    assert (lease.task, work_of(bytes(lease.spec))) == (task.id, work_of(bytes(saved.spec)))


async def test_a_long_recipe_waits_its_turn_to_be_read_when_the_upload_ends(tus, client, png, monkeypatch):
    image = base64.b64encode(bytes(64 * 1024)).decode()
    await client.save_recipe("stamped", {"outputs": {"image": {"operations": [{"op": "watermark", "image": image}]}}})
    path = await tus.opened(len(png), recipe="stamped")
    with monkeypatch.context() as busy:
        busy.setattr(recipe_reader, "_MOST_WAITING", 0)
        refused = await tus.patch(path, 0, png)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "2")
        assert (await tus.send("HEAD", path)).status == 423
    task = await client.task((await tus.send("HEAD", path)).headers["Safelight-Task"])
    assert task.recipe == "stamped"


async def test_an_upload_that_ended_stays_ended_when_its_task_is_gone(tus, client, png):
    answer = await tus.create(len(png), body=png)
    await client.delete(answer.headers["Safelight-Task"])
    again = await tus.send("HEAD", answer.headers["Location"])
    assert again.headers["Safelight-Task"] == answer.headers["Safelight-Task"]
    assert (await client.tasks()).tasks == []


async def test_wrong_place_and_two_at_once(tus, png):
    path = await tus.opened(len(png))
    answer = await tus.patch(path, 10, png[10:])
    assert (answer.status, answer.headers["Upload-Offset"]) == (409, "0")
    gate = asyncio.Event()

    async def arrive():
        while (answer := await tus.patch(path, 0, stream(png[:3000], png[3000:], gate=gate))).status == 423:
            pass  # the request below was earlier
        return answer

    slow = asyncio.create_task(arrive())

    async def is_refused():
        return (await tus.patch(path, 0, stream())).status == 423

    await until(is_refused)
    assert await tus.offset(path) == 0
    gate.set()
    assert (await slow).headers["Safelight-Task"]


async def test_checksums(tus, png):
    path = await tus.opened(len(png))
    wrong = await tus.patch(path, 0, png[:2000], Upload_Checksum=sha1(b"other"))
    assert (wrong.status, wrong.reason) == (460, "Checksum Mismatch")
    assert await tus.offset(path) == 0
    for bad in ("crc32 AAAA", "sha1 ***", "sha1"):
        assert (await tus.patch(path, 0, png[:2000], Upload_Checksum=bad)).status == 400 or bad == "sha1"
    right = await tus.patch(path, 0, png[:2000], Upload_Checksum=sha1(png[:2000]))
    assert (right.status, right.headers["Upload-Offset"]) == (204, "2000")


async def test_a_file_that_is_not_a_photo_is_refused_at_its_first_bytes(tus, client):
    for text in (b"<html>" + b"x" * 5000, b"%PDF-1.7" + b"x" * 5000, b"<svg xmlns='x'/>", b"MZ"):
        path = await tus.opened(len(text), filename="photo.jpg", filetype="image/jpeg")
        answer = await tus.patch(path, 0, text)
        assert answer.status == 415
        assert json.loads(await answer.text())["code"] in (Code.NOT_AN_IMAGE, Code.UNSUPPORTED_FORMAT)
        assert (await tus.send("HEAD", path)).status == 404
    path = await tus.opened(6)
    assert (await tus.patch(path, 0, b"hel")).status == 204
    assert (await tus.patch(path, 3, b"lo!")).status == 415
    assert (await client.tasks()).tasks == []


async def test_an_upload_that_cannot_be_accepted_is_refused_before_its_first_byte(tus):
    assert (await tus.create(5 << 20)).status == 413
    assert (await tus.create(0)).status == 415
    assert (await tus.create(10, recipe="no-such")).status == 404
    assert (await tus.create(10, recipe='{"outputs": {}}')).status == 422
    assert (await tus.create(10, priority="high")).status == 400
    for headers in ({"Upload_Length": "ten"}, {}, {"Upload_Length": "10", "Upload_Metadata": "filename *"}):
        assert (await tus.send("POST", "/uploads", **headers)).status == 400


async def test_binary_metadata_of_a_program_is_ignored_and_given_back_while_ours_must_be_text(tus):
    path = await tus.opened(100, filename="a.png", thumbhash=b"\xff\x08\x81")
    given = (await tus.send("HEAD", path)).headers["Upload-Metadata"]
    assert given == f"filename {encoded('a.png')},thumbhash {encoded(bytes([255, 8, 129]))}"
    for name in ("filename", "name", "recipe", "batch", "webhook"):
        refused = await tus.create(100, **{name: b"\xff\x08\x81"})
        assert refused.status == 400 and name in (await refused.json())["detail"]


async def test_more_than_announced_is_refused(tus, png):
    path = await tus.opened(100)
    assert (await tus.patch(path, 0, png)).status == 413
    assert (await tus.patch(path, 0, stream(png[:50], png[50:]))).status == 413
    assert (await tus.patch(path, 0, png[:50], Content_Type="image/png")).status == 415


async def test_a_terminated_upload_is_gone(tus, png):
    path = await tus.opened(len(png))
    await tus.patch(path, 0, png[:100])
    looked = await tus.send("POST", path, X_HTTP_Method_Override="HEAD")
    assert (looked.status, looked.headers["Upload-Offset"]) == (200, "100")
    assert (await tus.send("POST", path, X_HTTP_Method_Override="DELETE")).status == 204
    assert (await tus.send("HEAD", path)).status == 404
    assert (await tus.patch(path, 100, png[100:])).status == 404
    assert (await tus.send("DELETE", path)).status == 404


async def test_a_client_that_falls_silent_can_continue(tus, png):
    path = await tus.opened(len(png))
    answer = await tus.patch(path, 0, stream(png[:3000], b"", gate=asyncio.Event()))
    assert answer.status == 503
    assert await tus.offset(path) == 3000
    assert (await tus.patch(path, 3000, png[3000:])).headers["Safelight-Task"]


async def test_a_client_that_falls_silent_within_the_first_bytes_can_start_again(tus, png):
    """Nothing is stored before these bytes show that they are of a photo."""
    path = await tus.opened(len(png))
    answer = await tus.patch(path, 0, stream(png[:500], b"", gate=asyncio.Event()))
    assert answer.status == 503
    assert "Nothing more arrived" in await answer.text()
    assert await tus.offset(path) == 0
    assert (await tus.patch(path, 0, png)).headers["Safelight-Task"]


async def test_a_part_of_a_photo_does_not_become_a_task(tus, client, png):
    """Clients upload parts of a file in parallel (`parallelUploads`) where a server can join them."""
    answer = await tus.send("POST", "/uploads", Upload_Length=str(len(png)), Upload_Concat="partial")
    assert (answer.status, answer.headers["Tus-Resumable"]) == (400, "1.0.0")
    assert "Upload-Concat" in await answer.text()
    answer = await tus.send("POST", "/uploads", Upload_Defer_Length="1")
    assert answer.status == 400
    assert "Upload-Defer-Length" in await answer.text()


async def test_the_webhook_of_an_upload_is_kept_or_refused(tus, client, png):
    refused = await tus.create(len(png), webhook="http://127.0.0.1/hook")
    assert refused.status == 400
    assert (await refused.json())["position"] == "webhook"
    done = await tus.create(len(png), body=png, webhook="https://receiver.invalid/hook", recipe="grayscale")
    await client.cancel(done.headers["Safelight-Task"])
    async with asyncio.timeout(30):
        while not (calls := (await client.webhook_calls()).calls):
            await client.changes(0)
    assert [call.url for call in calls] == ["https://receiver.invalid/hook"]


async def test_an_empty_chunk_at_the_end_is_answered_with_the_task_and_a_longer_one_refused(tus, png):
    done = await tus.create(len(png), body=png)
    path, task = done.headers["Location"], done.headers["Safelight-Task"]
    again = await tus.patch(path, len(png), b"")
    assert (again.status, again.headers["Safelight-Task"]) == (204, task)
    assert (await tus.patch(path, len(png), b"x")).status == 413


async def test_a_problem_document_has_the_status_of_its_answer(tus, png):
    path = await tus.opened(len(png))
    answer = await tus.patch(path, 0, png, Upload_Checksum=sha1(b"other"))
    assert (answer.status, (await answer.json())["status"]) == (460, 460)


async def limit_waiting(master, most):
    async with AccessClient.connect(master.url) as access:
        await access.change_tenant("default", name="", weight=1.0, limits=Limits(waiting=most))


@pytest.mark.parametrize("reason", ["checksum", "length", "limit"])
async def test_an_upload_that_is_refused_with_its_creation_is_not_kept(master, tus, png, tmp_path, reason):
    """Its answer has no address, so the client opens another one each time it tries again."""
    if reason == "limit":
        await limit_waiting(master, 0)
    answer = await tus.send(
        "POST",
        "/uploads",
        body=png,
        Content_Type="application/offset+octet-stream",
        Upload_Length=str(len(png) - (reason == "length")),
        Upload_Checksum=sha1(b"other") if reason == "checksum" else None,
    )
    assert (answer.status, answer.headers.get("Location")) == (
        {"checksum": 460, "length": 413, "limit": 429}[reason],
        None,
    )
    assert kept(tmp_path) == []


async def test_an_upload_whose_connection_breaks_at_its_creation_is_not_kept(master, tus, png, tmp_path):
    gate = asyncio.Event()
    sending = asyncio.create_task(tus.create(len(png), body=stream(png[:3000], png[3000:], gate=gate)))
    await until(lambda: len(kept(tmp_path)) == 1)
    sending.cancel()
    await until(lambda: kept(tmp_path) == [], timeout=10)


def kept(data):
    """Return the records of the uploads that storage keeps."""
    return list((data / "storage").rglob("record.json"))


async def test_a_complete_upload_that_cannot_become_a_task_yet_is_locked_until_it_can(master, tus, png):
    """After any other error of HEAD, tus-js-client and Uppy open another upload and send everything again."""
    path = await tus.opened(len(png))
    await tus.patch(path, 0, png[:-1])
    await limit_waiting(master, 0)
    (storage,) = master.discovery.known("storage")
    async with PartialClient.connect(storage) as partials:  # a master took the last byte, and then died
        await partials.append(path.rpartition("/")[2], len(png) - 1, stream(png[-1:]))
    locked = await tus.send("HEAD", path)
    assert (locked.status, locked.headers["Retry-After"], locked.headers["Tus-Resumable"]) == (423, "5", "1.0.0")
    refused = await tus.patch(path, len(png), b"")
    assert refused.status == 429
    await limit_waiting(master, None)
    assert (await tus.send("HEAD", path)).headers["Safelight-Task"]
