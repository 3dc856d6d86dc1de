"""Test that a file opened by a thread is closed, even if its caller has left."""

import asyncio
import threading

import pytest

from safelight.files.opening import opened


@pytest.fixture
def slow(tmp_path):
    """Return the path of a file, a function that opens it when allowed, and the list of opened files."""
    path, may, files = tmp_path / "file", threading.Event(), []
    path.write_bytes(b"bytes")

    def open_it():
        assert may.wait(30)
        files.append(path.open("rb"))
        return files[0]

    return open_it, may, files


async def test_the_file_is_open_for_as_long_as_the_context(slow):
    open_it, may, files = slow
    may.set()
    async with opened(open_it) as file:
        assert file.read() == b"bytes"
    assert files[0].closed


@pytest.mark.parametrize("moment", ["before it is open", "as soon as it is open"])
async def test_the_file_of_a_cancelled_caller_is_closed(slow, moment):
    open_it, may, files = slow
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def announced():
        loop.call_soon_threadsafe(begun.set)
        return open_it()

    async def use():
        async with opened(announced):
            raise AssertionError

    task = asyncio.create_task(use())
    await begun.wait()
    if moment == "as soon as it is open":
        may.set()
        while not files:  # blocks the loop, so the task does not notice
            threading.Event().wait(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may.set()
    async with asyncio.timeout(30):
        while not files or not files[0].closed:
            await asyncio.to_thread(lambda: None)


async def test_the_error_of_the_opener_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        async with opened((tmp_path / "none").open):
            raise AssertionError
