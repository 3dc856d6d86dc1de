"""Test that photos and results are passed as files if a worker shares a file system with storage."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest

from safelight.client.master import Client
from safelight.client.shared import _write
from safelight.files import writeback
from safelight.wire import Blob, State
from safelight.worker.inputs import _cached, _copied
from support.photos import is_inverse, photo
from support.programs.system import System
from worker.conftest import Start

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def sent_and_received(whole: System) -> tuple[float, float]:
    url = f"http://127.0.0.1:{whole.ports['storage']}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        lines = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line[0] != "#")
    return float(lines["safelight_storage_sent_bytes_total"]), float(lines["safelight_storage_received_bytes_total"])


async def result_of(client: Client, number: int, **options: str) -> tuple[State, bytes]:
    task = await client.upload(photo(number), **options)
    task = await client.wait(task.id, timeout=30)
    async with client.result(task.id) as response:
        return task.state, await response.read()


@pytest.mark.slow
async def test_a_worker_that_sees_a_photos_file_is_sent_no_bytes(whole: System, client: Client, start: Start) -> None:
    worker = await start()
    sent, _ = await sent_and_received(whole)
    task = await client.wait((await client.upload(photo(301))).id, timeout=30)
    assert task.state is State.FINISHED
    assert (await sent_and_received(whole))[0] == sent
    await worker.log("Photos and results go by file")


@pytest.mark.slow
async def test_a_photo_that_is_too_large_for_memory_is_a_file(whole: System, client: Client, start: Start) -> None:
    await start()
    sent, _ = await sent_and_received(whole)
    task = await client.wait((await client.upload(photo(304) + bytes(17 << 20))).id, timeout=60)
    assert task.state is State.FINISHED
    assert (await sent_and_received(whole))[0] == sent


async def test_a_missing_or_incomplete_file_is_not_used(tmp_path: Path) -> None:
    data, at = os.urandom(3_000_000), tmp_path / "blob"
    blob = Blob(digest=hashlib.sha256(data).hexdigest(), size=len(data))

    def taken() -> bool:
        with (tmp_path / "copy").open("wb", buffering=0) as file:
            return _copied(at, file, blob)

    assert not taken()
    for stored in (data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1])):
        at.write_bytes(stored)  # noqa: ASYNC240 - of a test
        assert not taken()
    at.write_bytes(data)  # noqa: ASYNC240
    assert taken()
    assert (tmp_path / "copy").read_bytes() == data  # noqa: ASYNC240


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory whose files can be read without waiting, which file systems in memory do not support."""
    with TemporaryDirectory(dir="/var/tmp") as other:  # noqa: S108 - unlike /tmp, kept on a disk
        for place in (tmp_path, Path(other)):
            (place / "file").write_bytes(b"1")
            with (place / "file").open("rb", buffering=0) as file, suppress(OSError):
                os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
                yield place
                return
    pytest.skip("not run: no file system here supports RWF_NOWAIT")


async def test_a_small_file_is_read_without_a_thread_only_if_it_is_whole(on_disk: Path) -> None:
    data, at = os.urandom(70_000), on_disk / "blob"
    blob = Blob(digest=hashlib.sha256(data).hexdigest(), size=len(data))
    assert _cached(at, blob) is None
    for stored in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        at.write_bytes(stored)  # noqa: ASYNC240 - of a test
        assert _cached(at, blob) is None
    at.write_bytes(data)  # noqa: ASYNC240
    assert _cached(at, blob) == data


async def test_a_large_result_is_on_its_way_to_the_disk_before_storage_flushes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    start = writeback.start
    monkeypatch.setattr(writeback, "start", lambda file: begun.append(os.fstat(file).st_size) or start(file))
    for size in (1000, 300_000):
        _write(tmp_path / str(size), data := os.urandom(size))
        assert (tmp_path / str(size)).read_bytes() == data  # noqa: ASYNC240
    assert begun == [300_000]


@pytest.mark.slow
async def test_a_directory_that_disappears_costs_no_photo(whole: System, client: Client, start: Start) -> None:
    await start()
    assert (await result_of(client, 302))[0] is State.FINISHED
    handover = whole.data / "storage" / "handover"
    moved = handover.with_name("moved")
    handover.rename(moved)
    try:
        state, data = await result_of(client, 303)
        assert state is State.FINISHED
        assert is_inverse(photo(303), data)
    finally:
        shutil.rmtree(handover, ignore_errors=True)
        moved.rename(handover)
