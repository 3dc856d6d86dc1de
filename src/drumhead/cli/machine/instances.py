"""``drumhead instances``, ``stop``, ``delete`` and ``wait``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from drumhead.cli.flags import Json, Seconds
from drumhead.cli.output import notice, print_json, print_table, size_text
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.machine import process
from drumhead.machine.instances import Instances
from drumhead.machine.logs import trim_logs
from drumhead.machine.memory import with_memory
from drumhead.machine.stop import delete_machine, destroy_machine, exit_status, stop_machine, wait_machine

if TYPE_CHECKING:
    from drumhead.machine.instances import Instances
    from drumhead.machine.records import Instance, Supervision

Flag = Parameter(negative="")


async def instances_command(*, json: Json = False) -> None:
    """List the machines with their state, address, uptime and memory use.

    Parameters
    ----------
    json:
        Print everything that is known, as JSON.
    """
    instances = Instances(find_home())
    found = await with_memory(instances, instances.all())
    for one in found:
        if one.pid:  # no other process trims the logs of a detached machine
            trim_logs(instances.directory(one.launch.spec.name))
    if json:
        print_json(found)
        return
    heads = ("Name", "Image", "State", "Address", "IPv6", "Uptime", "Memory", "Restarts", "Ports")
    print_table(heads, [_row(instance) for instance in found])


async def stop_command(
    name: str,
    /,
    *names: str,
    grace: Annotated[float, Seconds, Parameter(name=["--grace", "-t"])] = 10.0,
    force: Annotated[bool, Flag] = False,
) -> None:
    """Stop machines: send SIGTERM to the command, SIGKILL after the grace period, then switch off.

    Parameters
    ----------
    name:
        The name of an instance.
    names:
        Further instances.
    grace:
        The number of seconds between SIGTERM and SIGKILL.
    force:
        Switch off at once, like pulling the plug.
    """
    instances = Instances(find_home())
    for one in (name, *names):
        instances.read(one)  # a wrong name changes nothing
    if force:
        await asyncio.gather(*[destroy_machine(instances, one) for one in (name, *names)])
    else:
        await asyncio.gather(*[stop_machine(instances, one, grace=grace) for one in (name, *names)])


async def delete_command(
    name: str, /, *names: str, force: Annotated[bool, Parameter(name=["--force", "-f"], negative="")] = False
) -> None:
    """Delete stopped machines with their logs and disks; volumes are kept.

    Parameters
    ----------
    name:
        The name of an instance.
    names:
        Further instances.
    force:
        Switch off machines that are running.
    """
    instances = Instances(find_home())
    for one in (name, *names):
        instances.read(one)
    for one in (name, *names):
        if force:
            await destroy_machine(instances, one)
        await delete_machine(instances, one)


async def wait_command(name: str, /, *, timeout: Annotated[float | None, Seconds] = None) -> int:
    """Wait until a machine has ended, and exit with the exit status of its command.

    Parameters
    ----------
    name:
        The name of the instance.
    timeout:
        The maximum number of seconds to wait.
    """
    try:
        async with asyncio.timeout(timeout):
            ended = await wait_machine(Instances(find_home()), name)
    except TimeoutError as error:
        raise DrumheadError(ErrorCode.TIMEOUT, f"{name} is still running after {timeout} s") from error
    if ended.state == "asleep":
        reason = f"{name} sleeps until somebody connects, and has not ended; `drumhead stop {name}` ends it"
        raise DrumheadError(ErrorCode.CONFLICT, reason)
    if ended.exit_status is not None and ended.reason:
        notice(f"{name}: {ended.reason}")
    return exit_status(ended)


def _row(instance: Instance) -> tuple[str, ...]:
    launch = instance.launch
    state: str = instance.state
    if instance.exit_status is not None:
        state = f"exited ({instance.exit_status})"
    if instance.paused:
        state = "paused (disk full)"
    uptime = _duration(process.age(instance.pid)) if instance.pid else ""
    memory = f"{launch.spec.memory} MiB" if instance.pid else ""
    if instance.memory:
        memory = f"{size_text(instance.memory.total - instance.memory.free)} of {memory}"
    ports = ", ".join(f"{one.host_port}->{one.guest_port}/{one.protocol}" for one in launch.forwards)
    restarts = _restarts(instance.supervision, running=bool(instance.pid)) if instance.supervision else ""
    return (
        launch.spec.name,
        launch.spec.image,
        state,
        instance.address,
        launch.address6,
        uptime,
        memory,
        restarts,
        ports,
    )


def _restarts(supervision: Supervision, *, running: bool) -> str:
    if supervision.lost:
        return f"{supervision.restarts}, without its supervisor"
    return f"{supervision.restarts}, restarting" if supervision.waits and not running else str(supervision.restarts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
