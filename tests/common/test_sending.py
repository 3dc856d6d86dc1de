"""Test that a range of a file arrives wherever its position is, and that a file that is too short is an error."""

import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from safelight.errors import Code, Error
from safelight.files.sending import send_file

DATA = os.urandom(3 << 20)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    with (tmp_path / "file").open("r+b", buffering=0) as opened:
        yield opened


@asynccontextmanager
async def connected():
    """Yield the transport of a server, and a task that reads all it sends."""
    accepted = asyncio.get_running_loop().create_future()
    async with await asyncio.start_server(lambda *both: accepted.set_result(both), "127.0.0.1", 0) as server:
        reader, leaving = await asyncio.open_connection(*server.sockets[0].getsockname())
        _, writer = await accepted
        reading = asyncio.create_task(reader.read())
        try:
            yield writer.transport, reading
        finally:
            writer.close()
            leaving.close()
            await asyncio.gather(writer.wait_closed(), reading)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("span", [range(10), range(len(DATA)), range(5, 2 << 20)])
async def test_a_range_is_sent_wherever_the_position_of_the_file_is(file, monkeypatch, span, native):
    if not native:
        monkeypatch.delattr(os, "sendfile")  # asyncio reads and writes instead, as it does over TLS
    file.seek(0, os.SEEK_END)
    async with connected() as (transport, reading):
        await send_file(transport, file, span.start, len(span))
        transport.close()
        assert await reading == DATA[span.start : span.stop]


@pytest.mark.parametrize("native", [True, False])
async def test_a_file_that_ends_before_its_range_is_an_error(file, monkeypatch, native):
    if not native:
        monkeypatch.delattr(os, "sendfile")
    file.truncate(1000)
    async with connected() as (transport, _):
        with pytest.raises(Error) as refused:
            await send_file(transport, file, 10, 1000)
        assert refused.value.code is Code.DAMAGED_BLOB
