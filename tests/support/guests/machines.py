"""Observe drumhead's machines in tests, and signal the commands that run them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drumhead.fleet.store import FleetStore
from drumhead.machine.instances import Instances, lock_holder
from drumhead.machine.process import wait_process
from drumhead.machine.watch import watching
from support.programs.forked import popen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drumhead.home import Home

COMMAND = [sys.executable, "-m", "drumhead"]
LIMIT = 400.0
"""The time limit of all waits in seconds. A boot takes 2 s alone, and 20 s beside other work."""


@contextmanager
def command(home: Home, *arguments: object, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run the drumhead command as a process that the test can signal; kill it at the end of the block."""
    env = {**os.environ, "DRUMHEAD_HOME": str(home.root)}
    words = [*COMMAND, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE}
    with popen(words, env=env, **{**pipes, **more}) as process:
        try:
            yield process
        finally:
            process.kill()


def find(drumhead: Any, name: str) -> dict[str, Any]:
    """Return the record of an instance from ``instances --json``."""
    return next(one for one in drumhead.json("instances") if one["launch"]["spec"]["name"] == name)


def forwarded(record: dict[str, Any], guest_port: int) -> int:
    """Return the host's port that is forwarded to a port of a machine."""
    return next(one["host_port"] for one in record["launch"]["forwards"] if one["guest_port"] == guest_port)


async def wait_until(directory: Path, ready: Callable[[], Any]) -> Any:
    """Wait until `ready` returns a true value, and return it; `ready` is called at each change in `directory`."""
    with watching(directory) as changed:
        async with asyncio.timeout(LIMIT):
            while not (answer := ready()):
                await changed.wait()
                changed.clear()
    return answer


async def wait_running(home: Home, name: str) -> int:
    """Wait until a machine's QEMU runs; return its process id."""
    directory = Instances(home).directory(name)
    directory.mkdir(parents=True, exist_ok=True)
    return await wait_until(directory, lambda: lock_holder(directory / "pid"))


async def wait_log(home: Home, name: str, text: str) -> None:
    """Wait until a machine's command has printed `text`."""
    log = Instances(home).directory(name) / "log"
    log.parent.mkdir(parents=True, exist_ok=True)
    await wait_until(log.parent, lambda: log.exists() and text.encode() in log.read_bytes())


async def wait_healthy_again(home: Home, fleet: str, machine: str, *, restarts: int) -> None:
    """Wait until a fleet's supervisor reports a machine as healthy after more than `restarts` restarts."""
    store = FleetStore(home, fleet)

    def well() -> bool:
        state = store.read_state().machines[machine]
        return state.health == "healthy" and state.restarts > restarts

    await wait_until(store.directory, well)


def restarts_of(home: Home, fleet: str, machine: str) -> int:
    """Return how often a fleet's supervisor has restarted a machine, which may have happened before the test."""
    return FleetStore(home, fleet).read_state().machines[machine].restarts


async def wait_gone(pid: int) -> None:
    async with asyncio.timeout(LIMIT):
        await wait_process(pid)
