"""Check the health of a machine's service through its forwarded port and from its network."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from drumhead.machine.network.neighbour import Neighbour, Reach, reach

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from drumhead.fleet.records import HealthCheck
    from drumhead.machine.records import PortForward

ATTEMPT_TIME = 5.0
LIFE_TIME = 10.0
"""Seconds that a service that was healthy may take to answer; it may be busy."""
QUIET_TIME = 1.0
"""Seconds after which an open connection counts as accepted; QEMU accepts at once and hangs up if the guest refuses."""
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})\b")

UNREACHED: dict[Reach, str] = {
    "silent": "answered this host, but no neighbour on its network",
    "refused": "answered this host, but refused its neighbours",
}
"""Messages for a machine that only the host can reach."""
LOCAL_ONLY = "; a program that listens on 127.0.0.1 only cannot be reached"
"""The usual cause, which only shows from outside."""


async def wait_healthy(check: HealthCheck, forward: PortForward, neighbour: Neighbour | None = None) -> str:
    """Poll until the service is healthy and `neighbour` reaches it, within the check's time limit.

    Return an empty string, or the reason why it is not healthy, to be written after the name of the machine.
    """
    reason = "did not become healthy"
    try:
        async with asyncio.timeout(check.timeout):
            while True:
                fault = await _fault(check, forward) or await _unreached(neighbour)
                if not fault:
                    return ""
                reason = f"did not become healthy: it {fault}"
                await asyncio.sleep(check.interval)
    except TimeoutError:
        return reason


async def _count(_failure: str) -> bool:
    return False


async def wait_unresponsive(
    check: HealthCheck,
    forward: PortForward,
    neighbour: Neighbour | None = None,
    excuse: Callable[[str], Awaitable[bool]] = _count,
) -> str:
    """Poll a healthy service every `check.recheck` seconds until it fails to answer `check.failures` times in a row.

    Return the last failure. Both the host and a neighbour must get an answer. Any answer counts: a service
    that reports that it is not ready is waiting for another service, and restarting it would not help. `excuse` gets
    the failure of each check, or an empty text, and returns whether it does not count.
    """
    unanswered, reason = 0, ""
    while unanswered < check.failures:
        await asyncio.sleep(check.recheck)
        reason = await _unreached(neighbour) if await is_alive(check, forward) else "did not answer"
        if await excuse(reason):
            continue
        unanswered = unanswered + 1 if reason else 0
    return f"{reason} {check.failures} times in a row"


async def _unreached(neighbour: Neighbour | None) -> str:
    """Return why a neighbour cannot reach the service, or an empty string if it can or if that is unknown."""
    return UNREACHED.get(await asyncio.to_thread(reach, neighbour), "") if neighbour else ""


async def is_alive(check: HealthCheck, forward: PortForward) -> bool:
    """Return whether the service gives any answer or, without a path, accepts connections."""
    if check.path:
        return await _status(check.path, forward, LIFE_TIME) is not None
    return await _accepts(forward)


async def _fault(check: HealthCheck, forward: PortForward) -> str:
    """Return why the service is not healthy, or an empty string if it is."""
    if not check.path:
        return "" if await _accepts(forward) else f"accepted no connection on port {check.port}{LOCAL_ONLY}"
    status = await _status(check.path, forward, ATTEMPT_TIME)
    if status is None:
        return f"gave no answer to GET {check.path} on port {check.port}{LOCAL_ONLY}"
    return "" if 200 <= status < 300 else f"answered GET {check.path} with status {status}"


async def _status(path: str, forward: PortForward, time_limit: float) -> int | None:
    """Send a GET request and return the status of the answer, or None if there was no answer within the time."""
    request = f"GET {path} HTTP/1.1\r\nHost: {forward.endpoint}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(time_limit), _connected(forward) as (reader, writer):
            writer.write(request.encode())
            answer = STATUS_LINE.match(await reader.readline())
    except (OSError, ValueError):  # TimeoutError is an OSError; a line without an end is a ValueError
        return None
    return int(answer[1]) if answer else None


async def _accepts(forward: PortForward) -> bool:
    try:
        async with asyncio.timeout(ATTEMPT_TIME), _connected(forward) as (reader, _):
            try:
                async with asyncio.timeout(QUIET_TIME):
                    return bool(await reader.read(1))
            except TimeoutError:
                return True
    except OSError:
        return False


@asynccontextmanager
async def _connected(forward: PortForward) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(forward.host_address, forward.host_port)
    try:
        yield reader, writer
    finally:
        writer.close()
