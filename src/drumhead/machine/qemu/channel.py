"""Talking to a machine: its control port, QEMU's monitor, and sockets whose paths are too long to name."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from qemu.qmp import QMPClient, QMPError

from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ANSWER_TIME = 10.0
"""Seconds that the guest's init, which does nothing else, has for an answer."""
MAX_FRAME = 1 << 17

# The library logs what it also raises.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


@asynccontextmanager
async def connect(directory: Path, name: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the socket `name` in an instance's directory. Raises GUEST when nobody listens."""
    # A socket's path has at most 107 bytes: go by the directory's descriptor, whose path is short.
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{handle}/{name}", limit=MAX_FRAME)
    except OSError as error:
        raise DrumheadError(
            ErrorCode.GUEST, f"{directory.name} does not listen on {name} ({error.strerror})"
        ) from error
    finally:
        os.close(handle)
    try:
        yield reader, writer
    finally:
        writer.close()


async def control(directory: Path, order: dict[str, Any], *, time_limit: float = ANSWER_TIME) -> dict[str, Any]:
    """Ask the guest's init for something; returns its answer.

    Raises GUEST when it refuses, TIMEOUT when it does not answer.
    """
    try:
        async with asyncio.timeout(time_limit), connect(directory, "control.sock") as (reader, writer):
            writer.write(msgspec.json.encode(order) + b"\n")
            await writer.drain()
            line = await reader.readline()
    except TimeoutError as error:
        raise DrumheadError(ErrorCode.TIMEOUT, f"{directory.name} did not answer within {time_limit:.0f} s") from error
    except OSError as error:
        raise DrumheadError(ErrorCode.GUEST, f"{directory.name} closed its control channel") from error
    answer = msgspec.json.decode(line or b'{"ok":false,"reason":"it ended"}', type=dict[str, Any])
    if not answer.get("ok"):
        raise DrumheadError(ErrorCode.GUEST, f"{directory.name} would not {order['do']}: {answer.get('reason')}")
    return answer


@asynccontextmanager
async def monitor(directory: Path) -> AsyncIterator[QMPClient]:
    """QEMU's monitor (QMP). Raises QMPError or OSError when nobody answers."""
    client = QMPClient()
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await client.connect(f"/proc/self/fd/{handle}/qmp.sock")
        yield client
    finally:
        os.close(handle)
        with suppress(QMPError, EOFError, OSError):  # QEMU may have hung up first
            await client.disconnect()


async def is_qemu_ready(directory: Path) -> bool:
    """Tell whether QEMU runs its main loop."""
    try:
        async with monitor(directory):
            return True
    except (QMPError, OSError):
        return False


async def quit_qemu(directory: Path, *, time_limit: float = ANSWER_TIME) -> bool:
    """Tell QEMU to end at once, its disks flushed. False when it did not listen."""
    try:
        async with asyncio.timeout(time_limit), monitor(directory) as client:
            await client.execute("quit")
    except (QMPError, OSError, EOFError, TimeoutError):
        return False
    return True
