"""Test tasks, results and originals at the master."""

from __future__ import annotations

import asyncio

import pytest

from safelight.errors import Code, Error
from safelight.master.download import downloads
from safelight.master.download.downloads import content_disposition
from safelight.wire import Failure, State, TaskFilter, TaskQuery
from support.leases import fail, finish, take
from support.photos import photo


async def finished(client, storage, results, **upload):
    """Upload a photo and finish its task."""
    task = await client.upload(photo(1), **upload)
    (lease,) = await take(client)
    await finish(client, storage, lease, results)
    return await client.task(task.id)


async def test_a_task_is_worked_on_and_finished(client, storage):
    task = await client.upload(photo(1))
    (lease,) = await take(client)
    assert (lease.task, lease.recipe, lease.input) == (task.id, "invert", task.input)
    assert (await client.task(task.id)).state is State.WORKING
    await finish(client, storage, lease, {"image": photo(2)})
    done = await client.wait(task.id, timeout=30.0)
    assert done.state is State.FINISHED
    assert done.lease is None
    async with client.result(task.id) as answer:
        assert await answer.read() == photo(2)


async def test_list_filters_and_pages(client, storage):
    await finished(client, storage, {"image": b"x"}, batch="a")
    made = [await client.upload(photo(n), batch="b", recipe="web") for n in range(5)]
    assert [t.id for t in (await client.tasks(batch="b")).tasks] == [t.id for t in reversed(made)]
    assert len((await client.tasks(states=[State.FINISHED])).tasks) == 1
    assert len((await client.tasks(states=[State.FINISHED, State.WAITING])).tasks) == 6
    assert len((await client.tasks(recipe="web")).tasks) == 5
    seen, before = [], None
    while True:
        page = await client.tasks(limit=4, before=before)
        seen += page.tasks
        before = page.next
        if before is None:
            break
    assert len({task.id for task in seen}) == len(seen) == 6


async def test_a_rerun_of_named_tasks_can_be_repeated(client):
    first = [await client.upload(photo(n), filename=f"{n}.png") for n in range(3)]
    ids = [task.id for task in first]
    for _ in range(2):
        assert (await client.act("rerun", tasks=ids[:2], recipe="web", idempotency_key="k")).changed == 2
    assert (await client.act("rerun", tasks=ids, recipe="web", idempotency_key="k")).changed == 3
    assert len((await client.find(TaskQuery(recipe="web"))).tasks) == 3
    await client.act("rerun", tasks=ids, recipe="web", idempotency_key="another")
    await client.act("rerun", tasks=ids, recipe="web")
    assert len((await client.find(TaskQuery(recipe="web"))).tasks) == 9
    for words, code in (
        ({"tasks": ids, "recipe": "thumbnail"}, Code.CONFLICT),
        ({"filter": TaskFilter(), "recipe": "web"}, Code.INVALID_REQUEST),
    ):
        with pytest.raises(Error) as refused:
            await client.act("rerun", **words, idempotency_key="k")
        assert (refused.value.code, refused.value.extra["position"]) == (code, "Idempotency-Key")


async def test_a_rerun_with_a_recipe_that_has_no_name(client):
    first = await client.upload(photo(1), batch="a")
    smaller = {"outputs": {"tiny": {"operations": [{"op": "resize", "width": 5}], "format": "png"}}}
    assert (await client.act("rerun", tasks=[first.id], recipe=smaller)).changed == 1
    uploaded = await client.upload(photo(1), recipe=smaller, batch="b")
    [again] = (await client.find(TaskQuery(recipe="custom", batch="a"))).tasks
    assert again.recipe_digest == uploaded.recipe_digest != first.recipe_digest
    with pytest.raises(Error) as refused:
        await client.act("rerun", tasks=[first.id], recipe={"outputs": {"tiny": {"format": "bmp"}}})
    assert (refused.value.code, refused.value.extra["position"]) == (Code.INVALID_RECIPE, "$.outputs.tiny.format")


async def test_many_tasks_at_once(client, storage):
    done = await finished(client, storage, {"image": b"x"}, batch="a", recipe="web", filename="beach.png")
    waiting = [await client.upload(photo(n), batch="b", filename=f"forest-{n}.png") for n in range(3)]
    counts = await client.count(TaskFilter(search="forest"))
    assert (counts.total, counts.states) == (3, {"waiting": 3})
    first = await client.act("cancel", filter=TaskFilter(batch="b"), limit=2)
    assert (first.changed, first.skipped) == (2, 0)
    rest = await client.act("cancel", filter=TaskFilter(batch="b"), before=first.next)
    assert (rest.changed, rest.next) == (1, None)
    assert (await client.act("retry", tasks=[waiting[0].id, done.id, "none"])).skipped == 2
    again = await client.act("rerun", tasks=[done.id, waiting[1].id], recipe="thumbnail")
    assert again.changed == 2
    made = (await client.find(TaskQuery(recipe="thumbnail"))).tasks
    assert {task.input.digest for task in made} == {done.input.digest, waiting[1].input.digest}
    assert {task.batch for task in made} == {"a", "b"}
    for action, wrong in (("rerun", None), ("rerun", ""), ("rerun", "x" * 65), ("rerun", 5), ("retry", "thumbnail")):
        with pytest.raises(Error) as refused:
            await client.act(action, tasks=[done.id], recipe=wrong)
        assert refused.value.extra["position"] == "$.recipe"
    with pytest.raises(Error):
        await client.act("delete")
    batches = (await client.batches()).batches
    assert {batch.name: sum(batch.tasks.values()) for batch in batches} == {"a": 2, "b": 4}
    assert (await client.batch("a")).tasks == {"finished": 1, "waiting": 1}
    assert (await client.act("delete", filter=TaskFilter(batch="a"))).changed == 2
    with pytest.raises(Error) as gone:
        await client.batch("a")
    assert gone.value.code is Code.NOT_FOUND


async def test_an_empty_filter_is_refused_instead_of_meaning_all(client, http, master):
    await client.upload(photo(1))
    for name in ("state", "recipe", "batch", "search", "reason", "since", "until"):
        for empty in ("", ",", " , ") if name == "state" else ("",):
            sent = {"action": "delete", "filter": {name: empty}}
            async with http.post(f"{master.url}/tasks/actions", json=sent) as answer:
                assert (answer.status, (await answer.json())["position"].rpartition(".")[2]) == (400, name)
            for path in ("tasks", "tasks/counts", "archive"):
                async with http.get(f"{master.url}/{path}", params={name: empty}) as answer:
                    assert (answer.status, (await answer.json())["position"]) == (400, name)
    for asked in (client.find(TaskQuery(state="")), client.count(TaskFilter(batch=""))):
        with pytest.raises(Error) as refused:
            await asked
        assert refused.value.code is Code.INVALID_REQUEST
    assert len((await client.tasks(states=[])).tasks) == 1
    assert (await client.act("delete", filter=TaskFilter(state="waiting, failed"))).changed == 1


async def test_the_recipe_of_a_task_does_not_change(client, http, master):
    recipe = {"outputs": {"small": {"operations": [{"op": "resize", "width": 50}], "format": "png"}}}
    await client.save_recipe("mine", recipe)
    task = await client.upload(photo(1), recipe="mine")
    await client.delete_recipe("mine")
    async with http.get(f"{master.url}/task/{task.id}/recipe") as answer:
        found = await answer.json()
    assert found["name"] == "mine"
    assert found["spec"]["outputs"]["small"]["operations"][0]["width"] == 50


@pytest.mark.parametrize(
    "query", ["state=finishd", "limit=0", "limit=1001", "limit=x", "colour=red", "limit=1&limit=2"]
)
async def test_wrong_filters_are_named(master, http, query):
    async with http.get(f"{master.url}/tasks?{query}") as answer:
        assert answer.status == 400
        assert query.partition("=")[0] in (await answer.json())["detail"]


async def test_cancel_retry_delete(client):
    task = await client.upload(photo(1))
    assert (await client.cancel(task.id)).state is State.CANCELLED
    with pytest.raises(Error) as caught:
        async with client.result(task.id):
            pass
    assert caught.value.code is Code.CONFLICT
    assert "cancelled" in caught.value.detail
    assert (await client.retry(task.id)).state is State.WAITING
    with pytest.raises(Error) as caught:
        await client.release(task.id)
    assert caught.value.code is Code.CONFLICT
    await client.delete(task.id)
    with pytest.raises(Error) as caught:
        await client.task(task.id)
    assert caught.value.code is Code.NOT_FOUND


async def test_no_result_before_the_end(client):
    task = await client.upload(photo(1))
    for word in ("is waiting", "processing"):
        with pytest.raises(Error) as caught:
            async with client.result(task.id):
                pass
        assert caught.value.code is Code.CONFLICT
        assert word in caught.value.detail
        await take(client)


async def test_a_failed_task_has_a_reason(client):
    task = await client.upload(photo(1))
    (lease,) = await take(client)
    await fail(client, lease, Failure(code="too_many_pixels", detail="It has 9 gigapixels.", extra={"limit": 5}))
    with pytest.raises(Error) as caught:
        async with client.result(task.id):
            pass
    assert caught.value.code is Code.TOO_MANY_PIXELS
    assert caught.value.detail == "It has 9 gigapixels."
    assert caught.value.extra["limit"] == 5


async def test_a_task_that_failed_of_a_transient_error_is_not_retried(client):
    task = await client.upload(photo(1))
    (lease,) = await take(client)
    await fail(client, lease, Failure(code="unavailable", detail="Storage was away."))
    with pytest.raises(Error) as caught:
        async with client.result(task.id):
            pass
    assert caught.value.code is Code.CONFLICT


async def test_outputs_by_name(client, storage):
    task = await finished(client, storage, {"small": b"s" * 10, "large": b"l" * 20}, filename="me.png")
    async with client.result(task.id) as first, client.result(task.id, output="large") as large:
        assert await first.read() == b"s" * 10
        assert await large.read() == b"l" * 20
        assert 'filename="me.large.png"' in large.headers["Content-Disposition"]
    with pytest.raises(Error) as caught:
        async with client.result(task.id, output="huge"):
            pass
    assert caught.value.code is Code.NOT_FOUND
    assert "small, large" in caught.value.detail


async def test_ranges_and_conditions_pass_through(master, http, client, storage):
    data = photo(2)
    task = await finished(client, storage, {"image": data})
    url = f"{master.url}/task/{task.id}/result"
    async with http.get(url) as answer:
        etag = answer.headers["ETag"]
        assert answer.headers["Accept-Ranges"] == "bytes"
    async with http.get(url, headers={"Range": "bytes=10-19"}) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes 10-19/{len(data)}"
        assert await answer.read() == data[10:20]
    async with http.get(url, headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
        assert await answer.read() == b""
    async with http.get(url, headers={"Range": "bytes=10-19", "If-Range": '"other"'}) as answer:
        assert (answer.status, await answer.read()) == (200, data)
    async with http.get(url, headers={"Range": f"bytes={len(data)}-"}) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
        assert (await answer.json())["size"] == len(data)
    async with http.head(url) as answer:
        assert answer.status == 200
        assert answer.content_length == len(data)


async def test_a_large_photo_is_sent_in_pieces(client, monkeypatch):
    """A slow client must read each within a minute."""
    sizes, send = [], downloads.send_file

    async def noted(transport, file, start, size):
        sizes.append(size)
        await send(transport, file, start, size)

    monkeypatch.setattr(downloads, "send_file", noted)
    data = photo(1) + bytes(2 << 20)
    task = await client.upload(data)
    async with client.original(task.id) as answer:
        assert await answer.read() == data
    assert max(sizes, default=0) <= 256 * 1024


async def test_files_of_users_never_run_as_a_page(master, http, client, storage):
    task = await finished(client, storage, {"image": b"<script>alert(1)</script>"})
    for place in ("result", "original"):
        async with http.get(f"{master.url}/task/{task.id}/{place}") as answer:
            assert answer.content_type == "image/png"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
            assert answer.headers["Content-Disposition"].startswith("inline")
        async with http.get(f"{master.url}/task/{task.id}/{place}?download=true") as answer:
            assert answer.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a photo.png", 'inline; filename="a photo.png"'),
        ('a"b\\c;d%/e.png', "inline; filename=\"a_b_c_d__e.png\"; filename*=UTF-8''a%22b%5Cc%3Bd%25%2Fe.png"),
        ("a\r\nSet-Cookie: x", "inline; filename=\"a__Set-Cookie: x\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x"),
        ("写真.png", "inline; filename=\"__.png\"; filename*=UTF-8''%E5%86%99%E7%9C%9F.png"),
    ],
)
def test_names_of_downloads(name, header):
    assert content_disposition(name, attached=False) == header


async def test_the_original_comes_back_under_its_name(client):
    task = await client.upload(photo(1), filename="été.png")
    async with client.original(task.id) as answer:
        assert await answer.read() == photo(1)
        assert (
            answer.headers["Content-Disposition"] == "inline; filename=\"_t_.png\"; filename*=UTF-8''%C3%A9t%C3%A9.png"
        )


@pytest.mark.parametrize(
    ("name", "saved"), [("a.html", "a.html.gif"), ("a.gif.hta", "a.gif.hta.gif"), ("A.JPEG", "A.JPEG"), ("a", "a.gif")]
)
async def test_an_original_is_saved_with_an_extension_of_photos(client, name, saved):
    """A GIF may be a page as well: a browser shows a saved file by its extension."""
    task = await client.upload(b"GIF89a\x01\x00\x01\x00<script>alert(1)</script>", filename=name)
    async with client.original(task.id) as answer:
        assert answer.headers["Content-Disposition"] == f'inline; filename="{saved}"'


async def test_saving_a_result(client, storage, tmp_path):
    task = await finished(client, storage, {"image": photo(2)})
    assert await client.save(task.id, tmp_path / "result.png") == len(photo(2))
    assert (tmp_path / "result.png").read_bytes() == photo(2)
    assert [path.name for path in tmp_path.glob("*.png")] == ["result.png"]
    with pytest.raises(Error):
        await client.save(task.id, tmp_path / "other.png", output="none")
    assert not list(tmp_path.glob("*other*"))


async def seen(client) -> None:
    """Wait until db has heard of a worker."""
    async with asyncio.timeout(60):
        while not (await client.summary()).workers:
            pass


async def test_a_worker_that_hangs_up_loses_no_task(client, master):
    async with asyncio.timeout(60):
        waiting = asyncio.create_task(take(client, wait=30.0))
        await seen(client)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await client.upload(photo(1))
        (lease,) = await take(client)
    assert lease.attempt == 1


async def test_waiting_workers_are_released_at_a_stop(system, master, client):
    waiting = asyncio.create_task(take(client, wait=30.0))
    await seen(client)
    master.stop()
    assert await asyncio.wait_for(waiting, 5.0) == []


async def test_outcomes_of_lost_leases_are_answered_one_by_one(client, storage):
    task = await client.upload(photo(1))
    (lease,) = await take(client)
    await client.cancel(task.id)
    with pytest.raises(AssertionError, match="lease_lost"):
        await finish(client, storage, lease, {"image": b"late"})


async def test_summary_and_metrics(master, http, client):
    await client.upload(photo(1))
    assert (await client.summary()).tasks["waiting"] == 1
    async with http.get(f"{master.url}/metrics") as answer:
        text = await answer.text()
    assert 'safelight_tasks{state="waiting"} 1.0' in text
    assert "safelight_uploads_total 1.0" in text


async def test_not_ready_without_services(tmp_path, http):
    from safelight import serve
    from safelight.master.__main__ import Config, build

    config = Config(keyvaluestore="127.0.0.1:1", port=0, data=str(tmp_path))
    async with serve.running("master", config, build) as alone:
        async with http.get(f"{alone.url}/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["waiting_for"] == ["db", "storage"]
        async with http.get(f"{alone.url}/healthz") as answer:
            assert answer.status == 200
