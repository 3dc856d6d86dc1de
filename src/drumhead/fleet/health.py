"""Asking a machine whether its service is up, through the port of the host that leads to it."""

from __future__ import annotations

import asyncio
import http.client
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drumhead.fleet.records import HealthCheck
    from drumhead.machine.records import PortForward

ATTEMPT_TIME = 5.0
LIFE_TIME = 10.0
"""Seconds to any answer at all of a service that was healthy: it may be busy."""
QUIET_TIME = 1.0
"""Seconds after which a connection that nobody refused counts as accepted: QEMU accepts at once, and hangs up when the
guest refuses.
"""


async def wait_healthy(check: HealthCheck, forward: PortForward) -> bool:
    """Ask until the service is up; False when it is not within the check's time limit."""
    try:
        async with asyncio.timeout(check.timeout):
            while not await is_healthy(check, forward):  # noqa: ASYNC110 - nothing tells us; we have to ask
                await asyncio.sleep(check.interval)
    except TimeoutError:
        return False
    return True


async def wait_silent(check: HealthCheck, forward: PortForward) -> None:
    """Ask a healthy service every `check.recheck` seconds until it is silent `check.failures` times in a row.

    Whatever it answers, it lives: a service that says that it is not ready waits for another one, and a restart of
    this one would not help.
    """
    silent = 0
    while silent < check.failures:
        await asyncio.sleep(check.recheck)
        silent = 0 if await is_alive(check, forward) else silent + 1


async def is_alive(check: HealthCheck, forward: PortForward) -> bool:
    """Whether the service answers anything (or, without a path, still accepts)."""
    if check.path:
        return await asyncio.to_thread(_status, check.path, forward, LIFE_TIME) is not None
    return await _accepts(forward)


async def is_healthy(check: HealthCheck, forward: PortForward) -> bool:
    if check.path:
        status = await asyncio.to_thread(_status, check.path, forward, ATTEMPT_TIME)
        return status is not None and 200 <= status < 300
    return await _accepts(forward)


def _status(path: str, forward: PortForward, time_limit: float) -> int | None:
    """The status of the answer to a GET; None when there was no answer."""
    connection = http.client.HTTPConnection(forward.host_address, forward.host_port, timeout=time_limit)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


async def _accepts(forward: PortForward) -> bool:
    try:
        reader, writer = await asyncio.open_connection(forward.host_address, forward.host_port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(QUIET_TIME):
            return bool(await reader.read(1))
    except TimeoutError:
        return True
    except OSError:
        return False
    finally:
        writer.close()
