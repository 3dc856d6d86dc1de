"""Asking a machine whether its service is up, through the port of the host that leads to it."""

from __future__ import annotations

import asyncio
import http.client
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drumhead.fleet.records import HealthCheck
    from drumhead.machine.records import PortForward

ATTEMPT_TIME = 5.0
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


async def is_healthy(check: HealthCheck, forward: PortForward) -> bool:
    if check.path:
        return await asyncio.to_thread(_answers, check.path, forward)
    return await _accepts(forward)


def _answers(path: str, forward: PortForward) -> bool:
    connection = http.client.HTTPConnection(forward.host_address, forward.host_port, timeout=ATTEMPT_TIME)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
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
