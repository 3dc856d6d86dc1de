"""Wait until a machine has booted and its command runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.instances import Instances, console_end
from drumhead.machine.network.names import tell_names
from drumhead.machine.process import wait_process
from drumhead.machine.stop import exit_status
from drumhead.machine.watch import watching

if TYPE_CHECKING:
    from drumhead.machine.records import Instance

BOOT_TIME = 120.0
"""Seconds within which the command has to run. Under emulation it takes 3 s on an idle host and 30 s on a busy one."""


async def wait_started(instances: Instances, name: str, *, time_limit: float = BOOT_TIME) -> Instance:
    """Wait until a machine's command runs or has ended. Tell it the names of machines that were started meanwhile.

    Raises GUEST if the machine fails before that, and TIMEOUT with the end of its console if it does not boot.
    """
    pid = instances.read(name).pid
    ended = asyncio.create_task(wait_process(pid)) if pid else None
    try:
        with watching(instances.directory(name)) as changed:
            async with asyncio.timeout(time_limit):
                while (instance := instances.read(name)).state == "starting":
                    wake = asyncio.create_task(changed.wait())
                    await asyncio.wait({wake, *([ended] if ended else [])}, return_when=asyncio.FIRST_COMPLETED)
                    wake.cancel()
                    changed.clear()
    except TimeoutError as error:
        raise DrumheadError(
            ErrorCode.TIMEOUT,
            f"{name} did not boot within {time_limit:.0f} s (`drumhead logs --console {name}` shows the whole console)"
            f"{console_end(instances.directory(name))}",
        ) from error
    finally:
        if ended:
            ended.cancel()
    if instance.state == "failed":
        exit_status(instance)
    if instance.state == "running":
        await tell_names(instances, instance)
    return instance
