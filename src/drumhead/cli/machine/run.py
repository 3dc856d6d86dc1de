"""``drumhead run`` and ``start``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from drumhead.cli.flags import MachineFlags
from drumhead.cli.output import notice
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.image.store import ImageStore
from drumhead.machine.attach import restart_attached, run_attached, run_detached
from drumhead.machine.instances import Instances
from drumhead.machine.launch import restart_machine, start_machine
from drumhead.machine.qemu.channel import is_paused
from drumhead.machine.records import InstanceSpec
from drumhead.machine.spec import options
from drumhead.machine.spec.options import read_variables
from drumhead.machine.spec.request import choose_commands, default_instance_name
from drumhead.records import Command

if TYPE_CHECKING:
    from drumhead.machine.launch import Started
    from drumhead.machine.records import Instance, InstanceSpec

Flag = Parameter(negative="")
MAX_SLEEP = 366 * 86400


async def run_command(name: str, instance: str = "", /, *, flags: MachineFlags | None = None) -> int:
    """Run a machine in the foreground, print the output of its command and exit with its exit status.

    Parameters
    ----------
    name:
        The image; with -i, the name of the instance. Without -i, the instance has the name of the image.
    instance:
        The name of the instance.
    """
    flags = flags or MachineFlags()
    if flags.verbose:
        logging.getLogger("drumhead").setLevel(logging.INFO)
    spec, variables = _read_spec(name, instance, flags), read_variables(list(flags.env))
    # Look up the image last, so that a wrong flag is reported even if the image does not exist.
    found = ImageStore(find_home()).find(spec.image, spec.guest)
    *before, command = choose_commands(found, config_sets=flags.run, command_line=flags.execute, env=variables)
    return await _run(msgspec.structs.replace(spec, command=command, before=tuple(before)), detach=flags.detach)


async def start_command(
    name: str,
    /,
    *,
    attach: Annotated[bool, Parameter(name=["--attach", "-a"], negative="")] = False,
) -> int:
    """Start a stopped machine again, with the same image, flags, address and disk.

    A machine that was paused because a disk of the host was full continues.

    Parameters
    ----------
    name:
        The name of the instance.
    attach:
        Stay in the foreground, as `drumhead run` does.
    """
    if await is_paused(Instances(find_home()).directory(name), resume=True):
        notice(f"{name} continues")
        return 0
    if attach:
        return await restart_attached(find_home(), name, _Announce())
    started = await restart_machine(find_home(), name, attached=False)
    await run_detached(find_home(), started, _Announce())
    return 0


def _read_spec(name: str, instance: str, flags: MachineFlags) -> InstanceSpec:
    """Return the spec of a machine without its command. Raises USAGE."""
    if flags.verbose and ":/" in name:
        message = f"-v prints the programs that drumhead runs; to mount a volume, write --volume {name}"
        raise DrumheadError(ErrorCode.USAGE, message)
    if flags.image and instance:
        raise DrumheadError(ErrorCode.USAGE, f"both {name} and {instance} name the instance; with -i, give one name")
    if flags.execute is not None and flags.run:
        raise DrumheadError(ErrorCode.USAGE, "-e and --run both choose the command; give only one of them")
    if flags.device and flags.network == "nat":
        raise DrumheadError(
            ErrorCode.USAGE,
            f"-b {flags.device} is a device for -n bridge, tap or vhost; give one of them, or leave it out",
        )
    return InstanceSpec(
        name=options.read_instance_name(name if flags.image else instance or default_instance_name(name)),
        image=flags.image or name,
        guest=flags.guest or "",
        command=Command(argv=()),
        memory=options.read_memory(flags.memory),
        cpus=options.read_cpus(flags.cpus),
        network=flags.network,
        network_device=flags.device,
        private_network=options.read_private_network(flags.private_network),
        mac=options.read_mac(flags.mac) if flags.mac else "",
        outgoing=_read_outgoing(flags),
        forwards=options.read_forwards(flags.forward),
        volumes=options.read_volumes(flags.volume),
        restart=flags.restart,
        sleep_after=_read_sleep(flags),
        cold=flags.cold,
    )


def _read_outgoing(flags: MachineFlags) -> bool:
    """Return whether the machine has outgoing traffic. Raises USAGE if other flags do not allow --no-outgoing."""
    reasons = {
        f"it cannot close a network of the host; leave out -n {flags.network}": flags.network != "nat",
        options.UDP_IS_OUTGOING: any(forward.endswith("/udp") for forward in flags.forward),
    }
    for reason, is_so in reasons.items():
        if flags.no_outgoing and is_so:
            raise DrumheadError(ErrorCode.USAGE, f"--no-outgoing: {reason}")
    return not flags.no_outgoing


def _read_sleep(flags: MachineFlags) -> float:
    """Return the flag --sleep-after after checking that the other flags allow it. Raises USAGE."""
    if not flags.sleep_after:
        return 0.0
    reasons = {
        f"give a number of seconds from 1 to {MAX_SLEEP}": not 1 <= flags.sleep_after <= MAX_SLEEP,
        "it needs a forwarded port (-f HOST:GUEST) for connections to arrive at": not flags.forward,
        "it works with TCP ports only": any(forward.endswith("/udp") for forward in flags.forward),
        "leave out --restart, because a connection starts the machine anyway": flags.restart != "no",
        "add -d, because the supervisor runs in the background": not flags.detach,
    }
    for reason, is_so in reasons.items():
        if is_so:
            raise DrumheadError(ErrorCode.USAGE, f"--sleep-after: {reason}")
    return flags.sleep_after


async def _run(spec: InstanceSpec, *, detach: bool) -> int:
    if not detach:
        return await run_attached(find_home(), spec, _Announce())
    started = await start_machine(find_home(), spec, attached=False)
    await run_detached(find_home(), started, _Announce())
    print(spec.name)
    return 0


class _Announce:
    """Announce a start on stderr, in the words of Capstan."""

    def started(self, started: Started) -> None:
        launch = started.launch
        spec = launch.spec
        notice(f"Created instance: {spec.name}")
        notice(f"Setting cmdline: {' '.join(spec.command.argv)}")
        words = {"kvm": "KVM", "tcg": f"software emulation ({started.acceleration.reason})"}[launch.accelerator]
        resumed = ", resumed from a snapshot" if launch.snapshot else ""
        notice(f"Running on {words}, {spec.memory} MiB, {spec.cpus} CPU{'s' if spec.cpus > 1 else ''}{resumed}")
        if launch.address:
            notice(f"eth0: {launch.address}")
        if launch.address6:
            notice(f"eth0: {launch.address6}")
        for forward in launch.forwards:
            notice(f"{forward.endpoint} -> {forward.guest_port}/{forward.protocol}")

    def booted(self, instance: Instance) -> None:
        """Announce the address from a DHCP server, which is not known earlier."""
        name = instance.launch.spec.name
        if instance.launch.address or not instance.pid:
            return
        if instance.address:
            notice(f"eth0: {instance.address}")
        else:
            notice(
                f"eth0: no DHCP server has answered yet; `drumhead instances` shows the address of {name} once it has"
            )

    def ended(self, instance: Instance) -> None:
        """Say why the command was killed. (The log says why it could not be started.)"""
        if instance.exit_status is not None and instance.reason and not instance.never_started:
            notice(f"{instance.launch.spec.name}: {instance.reason}")
