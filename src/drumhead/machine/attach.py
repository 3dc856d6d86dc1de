"""Run a machine in the foreground: copy its output, forward signals, return its command's exit status."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import msgspec

from drumhead.errors import DrumheadError, ErrorCode, host_error
from drumhead.machine.boot import wait_started
from drumhead.machine.instances import Instances, supervisor_pid
from drumhead.machine.launch import Started, restart_machine, start_machine
from drumhead.machine.logs import limiting_logs
from drumhead.machine.process import wait_process
from drumhead.machine.stop import (
    delete_machine,
    destroy_machine,
    exit_status,
    stop_machine,
    stopped_while_starting,
    switch_off,
)
from drumhead.machine.supervision.policy import Restarts
from drumhead.machine.supervision.supervisor import is_stopping, note_end, pause, start_supervisor, supervising
from drumhead.machine.watch import follow, read_from
from drumhead.text import write_output

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from drumhead.home import Home
    from drumhead.machine.records import Instance, InstanceSpec


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that stop what runs in the foreground: SIGHUP (a closed terminal) unless nohup ignores it."""
    hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangup else []))


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The exit status of a command in a machine, and its output on stdout and stderr."""

    status: int
    output: bytes


class Announce(Protocol):
    """Callbacks for a run: `started` when QEMU runs, `booted` when the machine's command runs, `ended` at its end."""

    def started(self, started: Started, /) -> None: ...

    def booted(self, instance: Instance, /) -> None: ...

    def ended(self, instance: Instance, /) -> None: ...


async def run_attached(home: Home, spec: InstanceSpec, announce: Announce) -> int:
    """Start a machine, copy its log to stdout until it ends, and return its command's exit status.

    SIGINT, SIGTERM and SIGHUP stop it cleanly; a second signal switches it off. Raises the errors of ``start_machine``,
    GUEST if the machine fails, and TIMEOUT if it does not boot within BOOT_TIME.
    """
    return await _attend_supervised(home, await start_machine(home, spec, attached=True), announce)


async def restart_attached(home: Home, name: str, announce: Announce) -> int:
    """Start a stopped machine and attend it as ``run_attached`` does, without repeating its earlier log.

    Raises USAGE for a machine with --sleep-after, and the errors of ``run_attached``.
    """
    if Instances(home).read(name).launch.spec.sleep_after:
        message = (
            f"{name} sleeps while nobody is connected and needs a supervisor in the background; leave out --attach"
        )
        raise DrumheadError(ErrorCode.USAGE, message)
    return await _attend_supervised(home, await restart_machine(home, name, attached=True), announce)


async def run_detached(home: Home, started: Started, announce: Announce) -> None:
    """Wait until the command of a machine runs, and leave the machine running.

    Start a supervisor if the machine restarts or sleeps. Switch off a machine that does not boot, or whose start is
    interrupted. Raises GUEST, also if the command cannot be started or another command stops it, and TIMEOUT.
    """
    instances, name = Instances(home), started.launch.spec.name
    announce.started(started)
    try:
        instance = await wait_started(instances, name)
        _refuse_unstarted(instance)
        announce.booted(instance)
    except (DrumheadError, OSError, asyncio.CancelledError):
        await destroy_machine(instances, name)
        raise
    if not instance.pid and (is_stopping(instances.directory(name)) or instances.find(name) is None):
        raise stopped_while_starting(name)
    spec = started.launch.spec
    if (spec.restart != "no" or spec.sleep_after) and not supervisor_pid(instances.directory(name)):
        await start_supervisor(home, name)


def _refuse_unstarted(instance: Instance) -> None:
    if instance.never_started:
        raise DrumheadError(ErrorCode.GUEST, f"{instance.launch.spec.name}: {instance.reason}")


async def run_to_end(home: Home, spec: InstanceSpec, *, time_limit: float) -> Outcome:
    """Run a command in a machine, then delete the machine. Raises TIMEOUT and the errors of ``start_machine``."""
    instances = Instances(home)
    started = await start_machine(home, spec, attached=True)
    try:
        async with asyncio.timeout(time_limit):
            await wait_process(started.pid)
        status = exit_status(instances.read(spec.name))
        output = b"".join(read_from(instances.directory(spec.name) / "log", 0))
        return Outcome(status=status, output=output)
    except TimeoutError as error:
        raise DrumheadError(
            ErrorCode.TIMEOUT, f"{' '.join(spec.command.argv)} did not end within {time_limit:.0f} s in its machine"
        ) from error
    finally:
        await destroy_machine(instances, spec.name)
        await delete_machine(instances, spec.name)


async def _attend_supervised(home: Home, started: Started, announce: Announce) -> int:
    """Attend a machine, and restart it as its restart policy says."""
    spec, instances = started.launch.spec, Instances(home)
    directory, restarts = instances.directory(spec.name), Restarts(spec.restart)
    stops = (lambda: stop_machine(instances, spec.name), lambda: destroy_machine(instances, spec.name))
    with _stopping_on_signals(*stops) as signalled:
        if spec.restart == "no":
            return _end(await _attend(home, started, announce), announce)
        with supervising(directory):
            run: Started | DrumheadError = started
            while True:
                began = time.monotonic()
                failure = await _failure(home, run, announce) if isinstance(run, Started) else run
                ended, ran = instances.read(spec.name), time.monotonic() - began
                stopping = signalled.is_set() or is_stopping(directory)
                delay = None if stopping else note_end(instances, ended, restarts, ran=ran, failure=failure)
                if delay is None or await pause(delay, directory, signalled):
                    if failure is not None:
                        raise failure
                    return _end(ended, announce)
                run = await _start_again(home, spec.name, signalled)


async def _failure(home: Home, started: Started, announce: Announce) -> DrumheadError | None:
    """Attend one run of a machine. Return its error."""
    try:
        await _attend(home, started, announce)
    except DrumheadError as error:
        return error
    return None


async def _start_again(home: Home, name: str, signalled: asyncio.Event) -> Started | DrumheadError:
    """Restart a machine. Return the error if that fails, which counts like a machine that ended at once."""
    try:
        started = await restart_machine(home, name, attached=True)
    except DrumheadError as error:
        return error
    except OSError as error:  # the disk of the host is full, for example
        return host_error(error)
    if signalled.is_set():  # before there was a machine to stop
        await stop_machine(Instances(home), name)
    return started


def _end(instance: Instance, announce: Announce) -> int:
    announce.ended(instance)
    return exit_status(instance)


async def _attend(home: Home, started: Started, announce: Announce) -> Instance:
    """Attend one run of a machine, and return the machine after its end. Raises GUEST, TIMEOUT if it did not boot."""
    instances, name = Instances(home), started.launch.spec.name
    log = instances.directory(name) / "log"
    booting = asyncio.create_task(_await_boot(instances, name, announce))
    try:
        with limiting_logs(log.parent):
            announce.started(started)
            async for _, part in follow(log, offset=started.log_offset, until=wait_process(started.pid)):
                await asyncio.wait({booting})  # print announcements before the output of the command
                await asyncio.to_thread(write_output, part)
    finally:
        found = instances.find(name)
        if found and found.pid == started.pid:
            await stop_machine(instances, name)
        await asyncio.wait({booting})
        failure = booting.exception()
    if instances.find(name) is None:
        raise DrumheadError(ErrorCode.CONFLICT, f"{name} was deleted by another command while it ran")
    if failure:
        raise failure
    return instances.read(name)


async def _await_boot(instances: Instances, name: str, announce: Announce) -> None:
    """Announce that a machine has booted. If it fails to boot, switch it off and raise the error."""
    try:
        announce.booted(await wait_started(instances, name))
    except DrumheadError:
        await switch_off(instances, name)
        raise


@contextmanager
def _stopping_on_signals(*stops: Callable[[], Awaitable[object]]) -> Iterator[asyncio.Event]:
    """Call the next of `stops` for each received stop signal. The first one sets the event that is yielded."""
    loop, signalled = asyncio.get_running_loop(), asyncio.Event()
    earlier = {number: signal.getsignal(number) for number in stop_signals()}
    left = list(stops)
    tasks: set[asyncio.Future[object]] = set()

    def on_signal() -> None:
        signalled.set()
        if left:
            tasks.add(asyncio.ensure_future(left.pop(0)()))

    for number in earlier:
        loop.add_signal_handler(number, on_signal)
    try:
        yield signalled
    finally:
        for number, handler in earlier.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)  # asyncio's own, which ends commands cleanly
        for task in tasks:
            task.cancel()
