"""Keep a machine running: wait for its end and start it again as its restart policy says.

For a machine in the foreground, the command that started it is its supervisor. A detached machine has a separate
process (``python -m drumhead.machine.supervision NAME``). A supervisor holds a lock in the instance's directory; on
SIGTERM it stops the machine and ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode, message_of
from drumhead.machine.boot import wait_started
from drumhead.machine.instances import STOPPING, SUPERVISOR, Instances, end_reason, write_supervision
from drumhead.machine.launch import restart_machine
from drumhead.machine.logs import limiting_logs
from drumhead.machine.process import wait_process
from drumhead.machine.records import Supervision
from drumhead.machine.stop import stop_machine
from drumhead.machine.supervision.activation import SocketActivation
from drumhead.machine.supervision.policy import Restarts
from drumhead.machine.watch import watching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from drumhead.home import Home
    from drumhead.machine.records import Instance

log = logging.getLogger(__name__)

LOG, READY = "supervisor.log", "supervisor.ready"
START_TIME = 30.0
"""Seconds that a new supervisor may take until it is ready."""
SHORTEST_PAUSE = 0.5


@contextmanager
def supervising(directory: Path) -> Iterator[None]:
    """Hold the supervisor's lock of an instance. Raises CONFLICT if another process holds it."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / SUPERVISOR).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"{directory.name} already has a supervisor; `drumhead stop {directory.name}` ends it"
            raise DrumheadError(ErrorCode.CONFLICT, message) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        write_supervision(directory, Supervision())
        yield


async def start_supervisor(home: Home, name: str) -> None:
    """Start a background process that keeps a detached machine running.

    Raises GUEST with its last message if it ends, TIMEOUT.
    """
    directory = Instances(home).directory(name)
    ended = asyncio.create_task(wait_process(_spawn(home, name)))
    try:
        with watching(directory) as changed:
            async with asyncio.timeout(START_TIME):
                while not (directory / READY).exists():
                    if ended.done():
                        last = (directory / LOG).read_text(errors="replace").strip().splitlines()[-1:]
                        reason = " ".join(last).removeprefix("drumhead: ") or f"the supervisor of {name} ended"
                        raise DrumheadError(ErrorCode.GUEST, reason)
                    wake = asyncio.create_task(changed.wait())
                    await asyncio.wait({wake, ended}, return_when=asyncio.FIRST_COMPLETED)
                    wake.cancel()
                    changed.clear()
    except TimeoutError as error:
        message = f"the supervisor of {name} did not start within {START_TIME:.0f} s"
        raise DrumheadError(ErrorCode.TIMEOUT, message) from error
    finally:
        ended.cancel()


def _spawn(home: Home, name: str) -> int:
    directory = Instances(home).directory(name)
    (directory / READY).unlink(missing_ok=True)
    with (directory / LOG).open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "drumhead.machine.supervision", name],
            env={**os.environ, "DRUMHEAD_HOME": str(home.root)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    process.returncode = 0  # it outlives us
    return process.pid


async def supervise(home: Home, name: str) -> None:
    """Restart the machine `name` as its policy says, until SIGTERM or SIGINT, or until it is given up."""
    instances = Instances(home)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with supervising(instances.directory(name)), limiting_logs(instances.directory(name)):
        instance = instances.read(name)
        if instance.launch.spec.sleep_after:
            await _supervise_sleeper(home, instances, instance, stop)
        (instances.directory(name) / READY).touch()
        restarts = Restarts(instance.launch.spec.restart)
        failure: DrumheadError | OSError | None = None
        while not (stop.is_set() or is_stopping(instances.directory(name))):
            began = time.monotonic()
            instance = await _wait_end(instances, instance, stop)
            ends = stop.is_set() or is_stopping(instances.directory(name))
            ran = time.monotonic() - began
            delay = None if ends else note_end(instances, instance, restarts, ran=ran, failure=failure)
            if delay is None or await pause(delay, instances.directory(name), stop):
                break
            failure = None
            try:
                await restart_machine(home, name, attached=False)
            except (DrumheadError, OSError) as error:  # this counts like a machine that ended at once
                failure = error
            instance = instances.read(name)
            if instance.pid:  # another command may have started it during the pause
                failure = None
        if stop.is_set():
            await stop_machine(instances, name)


async def _supervise_sleeper(home: Home, instances: Instances, instance: Instance, stop: asyncio.Event) -> None:
    """Let the machine sleep while nobody is connected, until `stop` is set or a command stops the machine."""
    launch, directory = instance.launch, instances.directory(instance.launch.spec.name)
    idle = launch.spec.sleep_after
    activation = SocketActivation(home, instances, launch.spec.name)
    async with activation.listening(launch.forwards):
        (directory / READY).touch()
        activation.watch(instance.pid)
        wait = idle
        while not await pause(wait, directory, stop):
            awake = bool(instances.read(launch.spec.name).pid)
            if awake and await activation.sleep(idle):
                log.info("%s: nobody was connected for %.0f s; it sleeps", launch.spec.name, idle)
                awake = False
            wait = max(idle - activation.idle_for(), SHORTEST_PAUSE) if awake else idle


async def _wait_end(instances: Instances, instance: Instance, stop: asyncio.Event) -> Instance:
    """Wait until a machine has ended or `stop` is set."""
    name = instance.launch.spec.name
    if instance.pid:
        starting = asyncio.create_task(_wait_started(instances, name))
        ended = asyncio.create_task(wait_process(instance.pid))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (starting, ended, stopped):
            task.cancel()
    return instances.read(name)


async def _wait_started(instances: Instances, name: str) -> None:
    """Wait until a machine's command runs, which tells the machine its neighbours' names."""
    with suppress(DrumheadError, OSError):
        await wait_started(instances, name)


def note_end(
    instances: Instances,
    instance: Instance,
    restarts: Restarts,
    *,
    ran: float,
    failure: DrumheadError | OSError | None = None,
) -> float | None:
    """Count, record and log the end of a machine that ran for `ran` seconds, or the `failure` of its start.

    Return the number of seconds until the restart, or None if there is none.
    """
    name = instance.launch.spec.name
    reason = end_reason(instance) if failure is None else message_of(failure).splitlines()[0]
    given_up = restarts.exhausted
    delay = restarts.after(failed=instance.exit_status != 0, ran=ran)
    if delay is not None:
        log.warning("%s: %s; restarting in %.0f s", name, reason, delay)
    elif given_up and restarts.exhausted:
        log.warning("%s: %s; not restarted again after %d restarts in a row", name, reason, restarts.in_a_row)
    record = Supervision(restarts=restarts.total, reason=reason, waits=delay is not None)
    write_supervision(instances.directory(name), record)
    return delay


def is_stopping(directory: Path) -> bool:
    """Return whether a command is stopping the machine, so that it must not be restarted."""
    return (directory / STOPPING).exists()


async def pause(seconds: float, directory: Path, stop: asyncio.Event) -> bool:
    """Wait for `seconds`. Return whether the wait ended early because `stop` was set or a command stops the machine."""
    try:
        with watching(directory) as changed:
            async with asyncio.timeout(seconds):
                while not (stop.is_set() or is_stopping(directory)):
                    await first_of(changed, stop)
                    changed.clear()
    except TimeoutError:
        return False
    return True


async def first_of(*events: asyncio.Event) -> None:
    """Wait until one of `events` is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
