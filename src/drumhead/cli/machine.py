"""``drumhead run`` and what can be done with machines then."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from drumhead.cli.flags import Json, MachineFlags
from drumhead.cli.output import notice, print_json, print_table, size_text
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.text import write_output

if TYPE_CHECKING:
    from drumhead.machine.instances import Instances
    from drumhead.machine.launch import Started
    from drumhead.machine.records import Instance, InstanceSpec

Flag = Parameter(negative="")


async def run_command(name: str, instance: str = "", /, *, flags: MachineFlags | None = None) -> int:
    """Run a machine in the foreground, print what its command prints and exit with its exit status.

    Parameters
    ----------
    name:
        The image; with -i, the name of the instance. Without -i, the instance has the name of the image.
    instance:
        The name of the instance.
    """
    from drumhead.image.store import ImageStore  # noqa: PLC0415 - each command imports what it uses
    from drumhead.machine.options import read_variables  # noqa: PLC0415
    from drumhead.machine.request import choose_command  # noqa: PLC0415

    flags = flags or MachineFlags()
    spec, variables = _read_spec(name, instance, flags), read_variables(list(flags.env))
    # The image comes last, so a wrong flag is reported whether there is such an image or not.
    found = ImageStore(find_home()).find(spec.image, spec.guest)
    command = choose_command(found, config_set=flags.run, command_line=flags.execute, env=variables)
    return await _run(msgspec.structs.replace(spec, command=command), detach=flags.detach)


def _read_spec(name: str, instance: str, flags: MachineFlags) -> InstanceSpec:
    """Return the spec of a machine without its command. Raises USAGE."""
    from drumhead.machine import options  # noqa: PLC0415
    from drumhead.machine.records import InstanceSpec  # noqa: PLC0415
    from drumhead.machine.request import default_instance_name  # noqa: PLC0415
    from drumhead.records import Command  # noqa: PLC0415

    if flags.image and instance:
        raise DrumheadError(ErrorCode.USAGE, f"the instance is called {name} or {instance}? give one name beside -i")
    return InstanceSpec(
        name=options.read_instance_name(name if flags.image else instance or default_instance_name(name)),
        image=flags.image or name,
        guest=flags.guest or "",
        command=Command(argv=()),
        memory=options.read_memory(flags.memory),
        cpus=flags.cpus,
        network=flags.network,
        network_device=flags.device,
        private_network=flags.private_network,
        mac=options.read_mac(flags.mac) if flags.mac else "",
        forwards=tuple(map(options.read_forward, flags.forward)),
        volumes=tuple(map(options.read_volume, flags.volume)),
    )


async def _run(spec: InstanceSpec, *, detach: bool) -> int:
    from drumhead.machine.attach import run_attached, run_detached  # noqa: PLC0415
    from drumhead.machine.launch import start_machine  # noqa: PLC0415

    if not detach:
        return await run_attached(find_home(), spec, _Announce())
    started = await start_machine(find_home(), spec, attached=False)
    await run_detached(find_home(), started, _Announce())
    print(spec.name)
    return 0


class _Announce:
    """Tell the person at the terminal about a start, as the seed shows it."""

    def started(self, started: Started) -> None:
        launch = started.launch
        spec = launch.spec
        notice(f"Created instance: {spec.name}")
        notice(f"Setting cmdline: {' '.join(spec.command.argv)}")
        words = {"kvm": "KVM", "tcg": f"software emulation ({started.acceleration.reason})"}[launch.accelerator]
        notice(f"Running on {words}, {spec.memory} MiB, {spec.cpus} CPU{'s' if spec.cpus > 1 else ''}")
        if launch.address:
            notice(f"eth0: {launch.address}")
        for forward in launch.forwards:
            notice(f"{forward.host_address}:{forward.host_port} -> {forward.guest_port}/{forward.protocol}")

    def booted(self, instance: Instance) -> None:
        """Tell the address that a DHCP server gave, which is known only now."""
        name = instance.launch.spec.name
        if instance.launch.address:
            return
        if instance.address:
            notice(f"eth0: {instance.address}")
        else:
            notice(
                f"eth0: no DHCP server has answered yet; `drumhead instances` shows the address of {name} once it has"
            )


async def instances_command(*, json: Json = False) -> None:
    """List the machines with their state, address, uptime and the memory that they use of their own.

    Parameters
    ----------
    json:
        Print everything that is known, as JSON.
    """
    from drumhead.machine.instances import Instances  # noqa: PLC0415
    from drumhead.machine.logs import trim_logs  # noqa: PLC0415
    from drumhead.machine.memory import with_memory  # noqa: PLC0415

    instances = Instances(find_home())
    found = await with_memory(instances, instances.all())
    for one in found:
        if one.pid:  # a detached machine has nobody else who looks after its logs
            trim_logs(instances.directory(one.launch.spec.name))
    if json:
        print_json(found)
        return
    heads = ("Name", "Image", "State", "Address", "Uptime", "Memory", "Ports")
    print_table(heads, [_row(instance) for instance in found])


def _row(instance: Instance) -> tuple[str, ...]:
    launch = instance.launch
    state: str = instance.state
    if instance.exit_status is not None:
        state = f"exited ({instance.exit_status})"
    uptime = _duration(time.time() - launch.started_at) if instance.pid else ""
    memory = f"{launch.spec.memory} MiB" if instance.pid else ""
    if instance.memory:
        memory = f"{size_text(instance.memory.total - instance.memory.free)} of {memory}"
    ports = ", ".join(f"{one.host_port}->{one.guest_port}/{one.protocol}" for one in launch.forwards)
    return launch.spec.name, launch.spec.image, state, instance.address, uptime, memory, ports


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


async def stop_command(
    *names: str, grace: Annotated[float, Parameter(name=["--grace", "-t"])] = 10.0, force: Annotated[bool, Flag] = False
) -> None:
    """Stop machines: send SIGTERM to the command, SIGKILL when the grace period is over, then switch off.

    Parameters
    ----------
    names:
        The names of the instances.
    grace:
        The number of seconds between SIGTERM and SIGKILL.
    force:
        Switch off at once, like pulling the plug.
    """
    from drumhead.machine.instances import Instances  # noqa: PLC0415
    from drumhead.machine.stop import destroy_machine, stop_machine  # noqa: PLC0415

    instances = Instances(find_home())
    if force:
        await asyncio.gather(*[destroy_machine(instances, name) for name in names])
    else:
        await asyncio.gather(*[stop_machine(instances, name, grace=grace) for name in names])


async def start_command(
    name: str,
    /,
    *,
    attach: Annotated[bool, Parameter(name=["--attach", "-a"], negative="")] = False,
) -> int:
    """Start a stopped machine again, with the same image, flags, address and disk.

    Parameters
    ----------
    name:
        The name of the instance.
    attach:
        Stay in the foreground, as `drumhead run` does.
    """
    from drumhead.machine.attach import restart_attached, run_detached  # noqa: PLC0415
    from drumhead.machine.launch import restart_machine  # noqa: PLC0415

    if attach:
        return await restart_attached(find_home(), name, _Announce())
    started = await restart_machine(find_home(), name, attached=False)
    await run_detached(find_home(), started, _Announce())
    return 0


async def delete_command(
    *names: str, force: Annotated[bool, Parameter(name=["--force", "-f"], negative="")] = False
) -> None:
    """Delete stopped machines with their logs and disks; volumes are kept.

    Parameters
    ----------
    names:
        The names of the instances.
    force:
        Switch off machines that are running.
    """
    from drumhead.machine.instances import Instances  # noqa: PLC0415
    from drumhead.machine.stop import destroy_machine  # noqa: PLC0415

    instances = Instances(find_home())
    for name in names:
        if force:
            await destroy_machine(instances, name)
        instances.delete(name)


async def logs_command(
    name: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    tail: Annotated[int | None, Parameter(name=["--tail", "-n"])] = None,
    console: Annotated[bool, Flag] = False,
) -> None:
    """Print the output of a machine's command.

    Parameters
    ----------
    name:
        The name of the instance, or of a fleet to print the output of all its machines.
    follow:
        Print further output until the machine ends.
    tail:
        Print only this many of the last lines.
    console:
        Print the output of the kernel and of init instead.
    """
    from drumhead.machine.instances import Instances  # noqa: PLC0415

    instances = Instances(find_home())
    if instances.find(name) is None and (find_home().fleets / name).is_dir():
        from drumhead.cli.fleet import print_logs  # noqa: PLC0415

        await print_logs(name, follow=follow, tail=tail)
        return
    instances.read(name)
    await _print_file(instances, name, "console" if console else "log", follow=follow, tail=tail)


async def _print_file(instances: Instances, name: str, file: str, *, follow: bool, tail: int | None) -> None:
    """Print a file of an instance, with `follow` until the machine ends."""
    from drumhead.machine.stop import wait_machine  # noqa: PLC0415
    from drumhead.machine.watch import follow as follow_file  # noqa: PLC0415
    from drumhead.machine.watch import read_from, tail_offset  # noqa: PLC0415

    path = instances.directory(name) / file
    offset = 0 if tail is None else tail_offset(path, tail)
    if not follow:
        for chunk in read_from(path, offset):
            write_output(chunk)
        return
    async for chunk in follow_file(path, offset=offset, until=wait_machine(instances, name)):
        write_output(chunk)


async def console_command(name: str, /) -> None:
    """Open the serial console of a machine. Any key starts a shell there; Ctrl-] leaves the console.

    Parameters
    ----------
    name:
        The name of the instance.
    """
    from drumhead.guest import find_guest  # noqa: PLC0415
    from drumhead.machine.instances import Instances  # noqa: PLC0415
    from drumhead.machine.session.terminal import run_console  # noqa: PLC0415
    from drumhead.machine.watch import read_from, tail_offset  # noqa: PLC0415

    instances = Instances(find_home())
    running = instances.read_running(name)
    path = instances.directory(name) / "console"
    for part in read_from(path, tail_offset(path, 20)):
        write_output(part)
    shell = find_guest(running.launch.guest).unsupported.get("shell", "")
    notice(f"Console of {name}; Ctrl-] leaves it.{f' {shell}.' if shell else ''}")
    await run_console(instances.directory(name))


async def exec_command(
    name: str,
    /,
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    tty: Annotated[bool, Parameter(name=["--tty", "-t"], negative="")] = False,
    env: Annotated[tuple[str, ...], Parameter(name="--env")] = (),
    cwd: str = "/",
) -> int:
    """Run a program in a running machine, with this terminal, and exit with its exit status.

    Parameters
    ----------
    name:
        The name of the instance.
    command:
        The program and its arguments, after --.
    tty:
        Give the program a terminal.
    env:
        An environment variable for the program, NAME=VALUE; repeatable.
    cwd:
        The directory to start the program in.
    """
    from drumhead.guest import find_guest, require  # noqa: PLC0415
    from drumhead.machine.instances import Instances  # noqa: PLC0415
    from drumhead.machine.options import read_variables  # noqa: PLC0415
    from drumhead.machine.session.terminal import run_session  # noqa: PLC0415
    from drumhead.records import Command  # noqa: PLC0415

    instances = Instances(find_home())
    running = instances.read_running(name)
    require(find_guest(running.launch.guest), "exec")
    if not command:
        raise DrumheadError(ErrorCode.USAGE, f"which program? drumhead exec {name} -- PROGRAM ARGUMENTS")
    words = Command(argv=command, env={**running.launch.spec.command.env, **read_variables(list(env))}, cwd=cwd)
    return await run_session(instances.directory(name), words, terminal=tty)


async def wait_command(name: str, /, *, timeout: float | None = None) -> int:
    """Wait until a machine has ended, and exit with the exit status of its command.

    Parameters
    ----------
    name:
        The name of the instance.
    timeout:
        The number of seconds to wait at most.
    """
    from drumhead.machine.instances import Instances  # noqa: PLC0415
    from drumhead.machine.stop import exit_status, wait_machine  # noqa: PLC0415

    try:
        async with asyncio.timeout(timeout):
            return exit_status(await wait_machine(Instances(find_home()), name))
    except TimeoutError as error:
        raise DrumheadError(ErrorCode.TIMEOUT, f"{name} still runs after {timeout} s") from error
