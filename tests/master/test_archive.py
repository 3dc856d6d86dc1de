"""Test archives of results, above all how they end."""

from __future__ import annotations

import io
import threading
import zipfile

import pytest

from safelight.errors import Code, Error
from safelight.master.download.archive import zipped
from safelight.master.download.downloads import File
from safelight.wire import State, Task
from support.leases import finish, take
from support.photos import photo


@pytest.fixture
async def members(storage):
    """Return a function that describes files with the longest names that a ZIP can have, changed at some times."""
    blob = await storage.put(b"a result")

    async def described(*changed: float):
        for number, at in enumerate(changed):
            name = f"{number}{'x' * 60_000}.png"
            task = Task(id=f"{number}-a", state=State.FINISHED, seq=1, created=at, changed=at)
            yield task, File(digest=blob.digest, media_type="image/png", filename=name, size=blob.size)

    return described


async def test_the_directory_of_an_archive_is_sent_in_pieces(storage, members):
    """A slow client must read each within a minute."""
    chunks = [chunk async for chunk in zipped(storage, members(*[1e9] * 12), [])]
    assert max(map(len, chunks)) <= 256 * 1024
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 12


async def test_a_time_that_no_zip_can_express_becomes_the_nearest(storage, members):
    chunks = [chunk async for chunk in zipped(storage, members(-1.0, 0.0, 1e9, 1e300), [])]
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        dates = [entry.date_time for entry in archive.infolist()]
    assert dates == [
        (1980, 1, 1, 0, 0, 0), (1980, 1, 1, 0, 0, 0), (2001, 9, 9, 1, 46, 40), (2107, 12, 31, 23, 59, 58),
    ]  # fmt: skip


async def test_the_directory_is_written_beside_the_event_loop_also_if_the_client_leaves(storage, members, monkeypatch):
    """For 100,000 files that takes most of a second."""
    closed_by, close = [], zipfile.ZipFile.close

    def noted(archive):
        if archive.fp is not None:
            closed_by.append(threading.current_thread())
        close(archive)

    monkeypatch.setattr(zipfile.ZipFile, "close", noted)
    chunks = zipped(storage, members(1e9, 1e9), [])
    assert await anext(chunks)
    await chunks.aclose()
    assert [chunk async for chunk in zipped(storage, members(1e9), [])]
    assert len(closed_by) == 2
    assert threading.main_thread() not in closed_by


async def test_results_that_storage_has_lost_are_left_out_and_listed(storage, tmp_path, monkeypatch):
    """One damaged result must not keep a person from the others."""
    monkeypatch.setattr("safelight.storage.directory.store._CHECKED_AT_ONCE", 1 << 20)
    monkeypatch.setattr("safelight.storage.verified._FOR", 0.0)  # not even what was just stored is trusted
    contents = {"damaged": b"d" * 100, "gone": b"g" * 100, "large": b"l" * (3 << 20), "right": b"r" * 100}
    blobs = {name: await storage.put(data) for name, data in contents.items()}
    directory = tmp_path / "storage" / "blobs"
    for name in ("damaged", "gone", "large"):
        (path,) = directory.glob(f"*/{blobs[name].digest}")
        path.unlink() if name == "gone" else path.write_bytes(b"x" * blobs[name].size)

    async def members():
        for number, (name, blob) in enumerate(blobs.items()):
            task = Task(id=f"{number}-a", state=State.FINISHED, seq=1, created=0, changed=1e9)
            yield task, File(digest=blob.digest, media_type="image/png", filename=f"{name}.png", size=blob.size)

    with pytest.raises(Error, match=r"large\.png of task 2-a") as refused:
        [chunk async for chunk in zipped(storage, members(), [])]
    assert refused.value.code is Code.DAMAGED_BLOB
    chunks = [chunk async for chunk in zipped(storage, members(), [])]
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["right.png", "left-out.txt"]
        assert archive.read("right.png") == contents["right"]
        lines = archive.read("left-out.txt").decode().splitlines()
    assert lines[2:] == [
        "damaged.png of task 0-a is damaged in storage", "gone.png of task 1-a is missing in storage",
        "large.png of task 2-a is damaged in storage",
    ]  # fmt: skip


async def test_named_tasks_without_a_result_are_listed(client, http, master, storage):
    done, waiting = await client.upload(photo(1), filename="beach.png"), await client.upload(photo(2))
    (lease, *_) = await take(client)
    await finish(client, storage, lease, {"image": b"a result"})
    async with http.get(f"{master.url}/archive?tasks={waiting.id},999-aaaaaaaaaa,{done.id}") as answer:
        assert answer.status == 200
        whole = await answer.read()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.namelist() == ["beach.image.png", "left-out.txt"]
        lines = archive.read("left-out.txt").decode().splitlines()
    state = (await client.task(waiting.id)).state.name.lower()
    assert lines[2:] == [
        f"task {waiting.id} has no result: it is {state}", "task 999-aaaaaaaaaa does not exist",
    ]  # fmt: skip


async def test_an_archive_tells_a_missing_output_from_a_missing_result(master, http):
    for query, told in (("", "None of these tasks has a result yet."), ("?output=x", "has an output 'x'.")):
        async with http.get(f"{master.url}/archive{query}") as answer:
            assert (answer.status, (await answer.json())["detail"].endswith(told)) == (404, True)


async def test_a_body_of_another_kind_is_told_which_form_to_send(master, http):
    async with http.post(f"{master.url}/archive", json={"tasks": "1"}) as answer:
        assert answer.status == 400
        assert "x-www-form-urlencoded" in (await answer.json())["detail"]


async def test_whoever_downloads_a_lost_file_is_told_what_brings_it_back(client, storage, tmp_path):
    task = await client.upload(photo(1), filename="beach.png")
    (lease,) = await take(client)
    await finish(client, storage, lease, {"image": b"a result"})
    for path in (tmp_path / "storage" / "blobs").glob("*/*"):
        path.unlink()
    for opening, sentence in (
        (client.result(task.id), "beach.image.png is missing in storage. Rerun its task to make it again."),
        (client.original(task.id), "beach.png is missing in storage. Upload it again."),
    ):
        with pytest.raises(Error) as refused:
            async with opening:
                pass
        assert (refused.value.code, refused.value.detail) == (Code.NOT_FOUND, sentence)
