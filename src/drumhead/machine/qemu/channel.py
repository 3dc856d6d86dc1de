"""Talk to a machine through its sockets: the control channel and QEMU's monitor."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from qemu.qmp import QMPClient, QMPError

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.instances import lock_holder
from drumhead.machine.process import is_stopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ANSWER_TIME = 10.0
"""Seconds that the guest's init may take to answer."""
MONITOR_TIME = 2.0
"""Seconds that QEMU may take to say whether a machine that does not answer is paused."""
MAX_FRAME = 1 << 17
TURN = 0.02
"""Seconds between two attempts to connect to a socket at which others wait."""

# The library logs the errors that it raises, and a traceback if QEMU ends while it connects.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)


@asynccontextmanager
async def connect(directory: Path, name: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the socket `name` in an instance's directory. Raises GUEST if nothing listens."""
    _refuse_stopped(directory)
    try:
        reader, writer = await asyncio.open_unix_connection(sock=await _dial(directory, name), limit=MAX_FRAME)
    except OSError as error:
        raise DrumheadError(
            ErrorCode.GUEST,
            f"{directory.name} does not answer, because it is starting or has just ended; "
            "`drumhead instances` shows its state",
        ) from error
    try:
        yield reader, writer
    finally:
        if writer.transport.get_write_buffer_size():
            writer.transport.abort()  # closing would wait for the machine to take it, and QEMU has one client at a time
        writer.close()


def _refuse_stopped(directory: Path) -> None:
    """Raise GUEST if a signal has stopped QEMU. The kernel would take connections for it, and nobody would answer."""
    pid = lock_holder(directory / "pid")
    if is_stopped(pid):
        message = f"the QEMU process of {directory.name} is stopped; `kill -CONT {pid}` lets it continue"
        raise DrumheadError(ErrorCode.GUEST, message)


async def _dial(directory: Path, name: str) -> socket.socket:
    """Return a connection to the socket `name` in an instance's directory. Raises OSError if nothing takes it.

    QEMU serves one client at a time and lets two wait. The kernel refuses a third one, which then tries again here
    (asyncio would take it for connected).
    """
    # The path of a socket may have at most 107 bytes, so use the short path of the directory's descriptor.
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(ANSWER_TIME):
            while True:
                try:
                    link.connect(f"/proc/self/fd/{handle}/{name}")
                except BlockingIOError:
                    await asyncio.sleep(TURN)
                else:
                    return link
    except BaseException:
        link.close()
        raise
    finally:
        os.close(handle)


async def control(directory: Path, request: dict[str, Any], *, time_limit: float = ANSWER_TIME) -> dict[str, Any]:
    """Send a request to the guest's init and return its answer.

    Raises GUEST if init refuses or sends something else, TIMEOUT if it does not answer.
    """
    try:
        async with asyncio.timeout(time_limit), connect(directory, "control.sock") as (reader, writer):
            writer.write(msgspec.json.encode(request) + b"\n")
            await writer.drain()
            line = await reader.readline()
            answer = msgspec.json.decode(line, type=dict[str, Any]) if line else None
    except TimeoutError as error:
        raise DrumheadError(ErrorCode.TIMEOUT, f"{directory.name} did not answer within {time_limit:.0f} s") from error
    except OSError as error:
        raise DrumheadError(ErrorCode.GUEST, f"{directory.name} closed its control channel") from error
    except (ValueError, RecursionError) as error:  # a guest may write anything, also a line without an end
        message = f"{directory.name} did not answer in the way of drumhead's guests"
        raise DrumheadError(ErrorCode.GUEST, message) from error
    if answer is None:
        raise DrumheadError(ErrorCode.GUEST, f"{directory.name} has ended")
    if not answer.get("ok"):
        reason = answer.get("reason")
        raise DrumheadError(ErrorCode.GUEST, f"{directory.name} refused the request {request['do']}: {reason}")
    return answer


@asynccontextmanager
async def monitor(directory: Path) -> AsyncIterator[QMPClient]:
    """Connect to QEMU's monitor (QMP). Raises QMPError, EOFError or OSError if it does not answer."""
    client = QMPClient()
    try:
        try:
            await client.connect(await _dial(directory, "qmp.sock"))
        except AssertionError:  # the library asserts if the connection is closed at once
            raise EOFError("QEMU has closed the connection") from None
        yield client
    finally:
        with suppress(QMPError, EOFError, OSError):  # QEMU may have closed the connection first
            await client.disconnect()


async def plug(directory: Path, name: str, time_limit: float) -> None:
    """Plug in the virtio-serial port of a channel that is used on demand, unless it is there already. Raises GUEST."""
    _refuse_stopped(directory)
    port = {"driver": "virtserialport", "id": name, "chardev": name, "name": name}
    # QEMU refuses what it already has. Who uses the port then notices if the machine does not answer.
    with suppress(QMPError, OSError, EOFError, TimeoutError):
        async with asyncio.timeout(time_limit):
            while True:
                async with monitor(directory) as client:
                    # QEMU loads a snapshot only into the devices that were saved, and its monitor serves one at a time.
                    if await _status(client) != "inmigrate":
                        await client.execute("device_add", port)
                        return
                await asyncio.sleep(TURN)


async def _status(client: QMPClient) -> str:
    status = await client.execute("query-status")
    return str(status.get("status")) if isinstance(status, dict) else ""


async def ignore_shared(client: QMPClient) -> None:
    """Let migrations leave out memory that is a file, so that they save or load only the state of the devices."""
    await client.execute(
        "migrate-set-capabilities", {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
    )


async def load_state(directory: Path, state: int) -> None:
    """Let QEMU load the state of its devices from its descriptor `state` and run the machine. Raises GUEST."""
    try:
        async with asyncio.timeout(ANSWER_TIME), monitor(directory) as client:
            await ignore_shared(client)
            await client.execute("migrate-incoming", {"uri": f"fd:{state}"})
    except (QMPError, OSError, EOFError, TimeoutError) as error:
        raise DrumheadError(ErrorCode.GUEST, f"QEMU could not resume {directory.name} ({error})") from error


async def is_qemu_ready(directory: Path) -> bool:
    """Return whether QEMU's main loop runs."""
    try:
        async with monitor(directory):
            return True
    except (QMPError, EOFError, OSError):
        return False


async def quit_qemu(directory: Path, *, time_limit: float = ANSWER_TIME) -> bool:
    """Tell QEMU to flush its disks and end. Return False if it does not answer."""
    try:
        async with asyncio.timeout(time_limit), monitor(directory) as client:
            await client.execute("quit")
    except (QMPError, OSError, EOFError, TimeoutError):
        return False
    return True


async def is_paused(directory: Path, *, resume: bool = False) -> bool:
    """Return whether QEMU has paused a machine because a write to one of its disks did not fit on the host.

    With `resume`, let the machine try that write again, and set its clock, which stood still. It is paused again if
    there is still no space.
    """
    try:
        async with asyncio.timeout(MONITOR_TIME), monitor(directory) as client:
            paused = await _status(client) == "io-error"
            if paused and resume:
                await client.execute("cont")
    except (QMPError, OSError, EOFError, TimeoutError):
        return False
    if paused and resume:
        with suppress(DrumheadError):  # it is paused again, or its guest cannot set the clock
            await control(directory, {"do": "clock", "time": time.time()}, time_limit=MONITOR_TIME)
    return paused
