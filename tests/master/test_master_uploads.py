"""Test uploads: forms of all shapes, refusals, idempotency, many at once."""

from __future__ import annotations

import asyncio
import errno
import io
import json

import pytest

from master.forms import FORM, JSON, form, part
from safelight.client.requests.uploads import Upload
from safelight.errors import Code, Error
from safelight.master.upload import uploads
from safelight.wire import State
from support.leases import digest_of
from support.photos import photo

QUOTED = b"\r\nContent-Transfer-Encoding: Quoted-Printable\r\n\r\n"


async def test_a_photo_becomes_a_task(client, storage):
    data = photo(1)
    task = await client.upload(data, filename="holiday.png", recipe="thumbnail", priority=3, batch="may")
    assert task.state is State.WAITING
    assert (task.filename, task.media_type, task.recipe) == ("holiday.png", "image/png", "thumbnail")
    assert (task.priority, task.batch) == (3, "may")
    assert task.input is not None
    assert (task.input.digest, task.input.size) == (digest_of(data), len(data))
    assert await storage.read(task.input.digest) == data
    assert await client.task(task.id) == task


async def test_the_answer_is_a_public_task_with_its_location(master, http):
    async with http.post(f"{master.url}/task", data=form(part("image", photo(1))), headers=FORM) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        task = await answer.json()
        assert answer.headers["Location"] == f"/task/{task['id']}"
    assert "lease" not in task
    assert task["recipe"] == "invert"
    async with http.get(f"{master.url}/task/{task['id']}") as answer:
        assert await answer.json() == task
    async with http.get(f"{master.url}/tasks") as answer:
        assert await answer.json() == {"tasks": [task], "next": None}


@pytest.mark.parametrize("first", ["image", "recipe", "batch", "other"])
async def test_parts_in_any_order(master, http, first):
    parts = {
        "image": part("image", photo(1), filename="p.png"),
        "recipe": part("recipe", "web"),
        "batch": part("batch", "b"),
        "other": part("something-else", "x" * 100_000),
    }
    body = form(parts.pop(first), *parts.values())
    async with http.post(f"{master.url}/task", data=body, headers=JSON) as answer:
        task = await answer.json()
    assert (task["recipe"], task["batch"], task["filename"]) == ("web", "b", "p.png")


async def test_a_recipe_may_come_with_the_request(client):
    task = await client.upload(photo(1), recipe={"outputs": {"small": {"operations": [{"op": "resize", "width": 9}]}}})
    assert task.recipe == "custom"
    with pytest.raises(Error) as caught:
        await client.upload(photo(1), recipe={"outputs": {"small": {"operations": [{"op": "resize", "width": -9}]}}})
    assert caught.value.code is Code.INVALID_RECIPE
    assert caught.value.extra["position"] == "$.outputs.small.operations[0].width"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.png", "photo.png"),
        ("naïve 写真.png", "naïve 写真.png"),
        ("..", ""),
        ("a" * 400 + ".png", "a" * 251 + ".png"),
        ("tab\there.png", "tabhere.png"),
    ],
)
async def test_file_names_never_become_paths(client, name, expected):
    assert (await client.upload(photo(1), filename=name)).filename == expected


async def test_a_hostile_name_in_raw_bytes(master, http):
    body = form(part("image", photo(1), filename='x\\".html'))
    async with http.post(f"{master.url}/task", data=body, headers=JSON) as answer:
        assert "/" not in (await answer.json())["filename"]


@pytest.mark.parametrize(
    ("data", "code", "word"),
    [
        (b"", Code.NOT_AN_IMAGE, "empty"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', Code.UNSUPPORTED_FORMAT, "SVG"),
        (b'\xef\xbb\xbf \n<?xml version="1.0"?>\n<!-- x -->\n<svg>', Code.UNSUPPORTED_FORMAT, "SVG"),
        (b"%PDF-1.7 ...", Code.UNSUPPORTED_FORMAT, "PDF"),
        (b"BM\x10\x00\x00\x00\x00\x00\x00\x00" + bytes(60), Code.UNSUPPORTED_FORMAT, "BMP"),
        (b"<!DOCTYPE html><html>", Code.NOT_AN_IMAGE, "web page"),
        (b"  <script>alert(1)</script>", Code.NOT_AN_IMAGE, "web page"),
        (b"#!/bin/sh\nrm -rf /", Code.NOT_AN_IMAGE, "script"),
        (b"PK\x03\x04" + bytes(60), Code.NOT_AN_IMAGE, "ZIP"),
        (b"\x7fELF" + bytes(60), Code.NOT_AN_IMAGE, "program"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(60), Code.NOT_AN_IMAGE, "video"),
        (b"just some words", Code.NOT_AN_IMAGE, "any known kind"),
    ],
)
async def test_files_that_are_not_photos_never_reach_storage(client, storage, data, code, word):
    with pytest.raises(Error) as caught:
        await client.upload(data)
    assert caught.value.code is code
    assert word in caught.value.detail
    assert "Upload a JPEG" in caught.value.detail
    assert (await storage.info()).blobs == 0
    assert (await client.tasks()).tasks == []


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("GIF", "image/gif"), ("WEBP", "image/webp"),
     ("TIFF", "image/tiff"), ("AVIF", "image/avif")],
)  # fmt: skip
async def test_formats_that_are_accepted(client, kind, media_type):
    assert (await client.upload(photo(1, kind=kind))).media_type == media_type


async def test_a_classic_client_gets_errors_as_sentences(master, http):
    async with http.post(f"{master.url}/task", data=form(part("image", b"words")), headers=FORM) as answer:
        assert (answer.status, answer.content_type) == (415, "text/plain")
    async with http.post(f"{master.url}/task", data=form(part("picture", b"words")), headers=FORM) as answer:
        assert answer.status == 400
        assert (await answer.text()).startswith("Image not found")


@pytest.mark.parametrize(
    ("parts", "position"),
    [
        ([part("image", photo(1)), part("image", photo(2))], "image"),
        ([part("image", photo(1)), part("priority", "1000")], "priority"),
        ([part("image", photo(1)), part("priority", "high")], "priority"),
        ([part("image", photo(1)), part("batch", "x" * 65)], "batch"),
        ([part("image", photo(1)), part("batch", "a\0b")], "batch"),
        ([part("image", photo(1)), part("batch", "two\n")], "batch"),
        ([part("image", photo(1)), part("batch", "..")], "batch"),
        ([part("batch", "a"), part("batch", "b"), part("image", photo(1))], "batch"),
        ([part("batch", b"\xff\xfe"), part("image", photo(1))], "batch"),
        ([part("image", photo(1)), part("webhook", "ftp://example.org/")], "webhook"),
        ([part("image", photo(1)), part("webhook", "not a url")], "webhook"),
    ],
)
async def test_wrong_fields_are_named(master, http, client, parts, position):
    async with http.post(f"{master.url}/task", data=form(*parts), headers=JSON) as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"
        assert (await answer.json())["position"] == position
    assert (await client.tasks()).tasks == []


async def test_an_unknown_recipe(client):
    with pytest.raises(Error) as caught:
        await client.upload(photo(1), recipe="thumbnial")
    assert caught.value.code is Code.NOT_FOUND
    assert "thumbnail" in caught.value.detail


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/json"}, b"{}"),
        ({"Content-Type": "multipart/form-data"}, b"no boundary"),
        (FORM, b""),
        (FORM, b"no boundary in it"),
        (FORM, form(part("image", photo(1)))[:-200]),
        (FORM, part("image", photo(1))),
        (FORM, form(part("image", photo(1)).replace(b"name=", b"nome="))),
        (FORM, form(part("batch", "caf=C3=A9").replace(b"\r\n\r\n", QUOTED, 1), part("image", photo(1)))),
    ],
)
async def test_broken_forms(master, http, client, storage, headers, body):
    async with http.post(f"{master.url}/task", data=body, headers={**headers, "Accept": "application/json"}) as answer:
        assert answer.status == 400
        assert (await answer.json())["code"] == "invalid_request"
    assert (await client.tasks()).tasks == []


async def test_too_large_by_length_and_by_count(master, http, client, storage):
    big = photo(1) + bytes(5 << 20)
    async with http.post(f"{master.url}/task", data=io.BytesIO(form(part("image", big))), headers=JSON) as answer:
        assert answer.status == 413

    async def pieces():
        yield form(part("image", big))

    async with http.post(f"{master.url}/task", data=pieces(), headers=JSON) as answer:
        assert answer.status == 413
        assert (await answer.json())["limit"] == 4 << 20
    assert (await storage.info()).blobs == 0


async def test_a_request_that_becomes_too_large_within_a_photo_is_refused_as_a_whole(master, http, client, monkeypatch):
    monkeypatch.setattr(uploads, "_PHOTOS", 2)

    async def pieces():
        for number in range(2):
            yield part("image", photo(number).ljust(4 << 20, b"\0"))

    async with http.post(f"{master.url}/tasks", data=pieces(), headers=JSON) as answer:
        assert answer.status == 413
        assert (await answer.json())["limit"] == 8 << 20
    assert (await client.tasks()).tasks == []


async def test_the_same_key_makes_one_task(client):
    first = await client.upload(photo(1), idempotency_key="mine")
    assert await client.upload(photo(1), idempotency_key="mine") == first
    with pytest.raises(Error) as caught:
        await client.upload(photo(2), idempotency_key="mine")
    assert caught.value.code is Code.CONFLICT
    assert caught.value.extra["position"] == "Idempotency-Key"
    with pytest.raises(Error) as caught:
        await client.upload(photo(1), idempotency_key="no blanks")
    assert caught.value.extra["position"] == "Idempotency-Key"


async def test_the_same_key_at_once(system, client):
    tasks = await asyncio.gather(*(client.upload(photo(1), idempotency_key="mine") for _ in range(4)))
    assert len({task.id for task in tasks}) == 1
    assert len((await client.tasks()).tasks) == 1


async def test_a_conflict_does_not_affect_other_tasks(client):
    await client.upload(photo(1), idempotency_key="mine")
    results = await asyncio.gather(
        *(client.upload(photo(n), idempotency_key="mine" if n == 3 else f"key-{n}") for n in range(2, 6)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, Error)]
    assert [error.code for error in refused] == [Code.CONFLICT]
    assert len((await client.tasks()).tasks) == 4


async def test_many_in_one_request(client):
    uploads = [
        Upload(source=photo(1), filename="one.png"),
        Upload(source=b"words", filename="two.txt"),
        Upload(source=photo(3) + bytes(5 << 20), filename="three.png"),
        Upload(source=photo(4), filename="four.png"),
    ]
    made = await client.upload_many(uploads, recipe="web", batch="b", idempotency_key="k")
    assert [one.filename for one in made] == ["one.png", "two.txt", "three.png", "four.png"]
    assert [one.problem and one.problem["code"] for one in made] == [None, "not_an_image", "too_large", None]
    again = await client.upload_many(uploads, recipe="web", batch="b", idempotency_key="k")
    assert [one.task and one.task.id for one in again] == [one.task and one.task.id for one in made]
    page = await client.tasks(batch="b")
    assert [task.filename for task in page.tasks] == ["four.png", "one.png"]


@pytest.mark.parametrize("reason", [OSError(errno.EIO, "Input/output error"), KeyError("no such object in a bucket")])
async def test_a_photo_that_cannot_be_read_to_its_end_is_an_error_of_its_own(client, reason):
    tries = 0

    async def failing():
        nonlocal tries
        tries += 1
        yield photo(1)[:100]
        raise reason

    for sending in (client.upload(failing), client.upload_many([Upload(source=photo(2)), Upload(source=failing)])):
        with pytest.raises(type(reason)) as raised:
            await sending
        assert raised.value is reason
    assert tries == 2, "nobody mends a file by sending it again"
    assert (await client.tasks()).tasks == []


async def test_what_is_no_photo_for_the_client_is_named(client):
    with pytest.raises(TypeError, match="a Path, bytes or a function that opens a stream, not str"):
        await client.upload("photo.jpg")


@pytest.mark.parametrize("mark", ["", "\ufeff"])  # as some editors begin a file
async def test_json_recipe_as_text(master, http, mark):
    spec = mark + json.dumps({"outputs": {"a": {"format": "webp"}}})
    body = form(part("image", photo(1)), part("recipe", spec))
    async with http.post(f"{master.url}/task", data=body, headers=JSON) as answer:
        assert (await answer.json())["recipe"] == "custom"


async def test_routes_that_answer_get_answer_head(master, http):
    async with http.get(f"{master.url}/openapi.json") as answer:
        paths = [path for path, methods in (await answer.json())["paths"].items() if "get" in methods]
    for path in paths:
        if "{" in path or path in {"/events", "/shutdown"}:
            continue
        async with http.get(master.url + path) as got, http.head(master.url + path) as headed:
            assert (headed.status, headed.content_type) == (got.status, got.content_type), path
            assert await headed.read() == b""


async def test_a_field_whose_name_is_not_text_is_refused(http, master):
    """UTF-7 can express half a surrogate pair."""
    body = b"--b\r\nContent-Disposition: form-data; name*=utf-7''+2AA-\r\n\r\nx\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with http.post(f"{master.url}/archive", data=body, headers=headers) as answer:
        assert (answer.status, (await answer.json())["position"]) == (400, "?")


async def test_a_misspelt_field_is_refused_and_not_left_out(master, http, client):
    body = form(part("image", photo(1)), part("reciep", "web"))
    for path in ("/task", "/tasks"):
        async with http.post(f"{master.url}{path}", data=body, headers=JSON) as answer:
            document = await answer.json()
        assert (answer.status, document["code"]) == (400, "invalid_request")
        assert document["detail"] == "The form has no field 'reciep'; did you mean recipe?"
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "9", "Upload-Metadata": "relativePath eA==,reciep d2Vi"}
    async with http.post(f"{master.url}/uploads", headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["detail"] == "Upload-Metadata has no field 'reciep'; did you mean recipe?"
    assert (await client.tasks()).tasks == []
