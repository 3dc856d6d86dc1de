"""Start a machine from its spec. Everything is resolved and recorded before QEMU starts."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import time
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import exclusive, replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest, require
from drumhead.guest.contract import Drive, GuestMount, GuestNic, RunConfig
from drumhead.image.store import ImageStore, encode
from drumhead.machine.instances import IMAGE, STOPPING, Instances, status_lines, supervisor_pid
from drumhead.machine.logs import trim_logs
from drumhead.machine.network import private
from drumhead.machine.network.host import host_netdev
from drumhead.machine.network.names import announce_names
from drumhead.machine.network.relay import bound, doors, start_relay
from drumhead.machine.qemu.acceleration import Acceleration, find_acceleration
from drumhead.machine.qemu.command_line import MAX_DISKS, Card, command_line, private_netdev, user_netdev, user_nic
from drumhead.machine.qemu.spawn import spawn
from drumhead.machine.records import Accelerator, Instance, InstanceSpec, Launch, PortForward
from drumhead.machine.replacement import finish_replacing, replacing_machine
from drumhead.machine.secrets import read_secrets
from drumhead.machine.snapshot.records import spare_drives, write_spares
from drumhead.machine.snapshot.resume import find_snapshot, resume
from drumhead.machine.snapshot.store import Snapshots
from drumhead.machine.spec.check import check_memory, check_spec
from drumhead.machine.spec.options import usage
from drumhead.machine.stop import stopped_while_starting, switch_off
from drumhead.machine.volume.volumes import (
    OVERLAY_SERIAL,
    make_overlay,
    open_volumes,
    overlay_drive,
    refuse_shared_disks,
)
from drumhead.machine.watch import file_size
from drumhead.records import Image, ImageFiles, read_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from drumhead.guest.contract import BootPlan, Guest
    from drumhead.home import Home
    from drumhead.machine.snapshot.records import Snapshot

log = logging.getLogger(__name__)

ADDRESSES = "addresses.lock"
MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True, kw_only=True)
class Started:
    """A machine whose QEMU process (`pid`) is running. Its guest may still be booting."""

    launch: Launch
    acceleration: Acceleration
    pid: int
    log_offset: int
    """The offset in the machine's log at which this run begins."""


async def start_machine(
    home: Home, spec: InstanceSpec, *, attached: bool, fleet: str = "", fresh: bool = True
) -> Started:
    """Start a machine, replacing a stopped one of the same name.

    With `fresh`, the log and the disk of the stopped machine are deleted. A start that is refused deletes nothing.

    The kernel kills an attached machine when this process ends. Raises NOT_FOUND (image), USAGE, CONFLICT (it is
    running, or a volume or an address is taken), UNSUPPORTED, GUEST (QEMU does not start), HOST_TOOL.
    """
    instances, images = Instances(home), ImageStore(home)
    images.find(spec.image, spec.guest)  # before anything is created
    # Until the image's record is in the instance's directory, another command could remove the image's files.
    with images.using(), instances.lock(spec.name):
        image = images.find(spec.image, spec.guest)
        await asyncio.to_thread(check_spec, home, image, spec)
        earlier = instances.find(spec.name)
        refuse_running(earlier, supervisor_pid(instances.directory(spec.name)))
        async with _undoing(instances, spec.name):
            started = await _start(instances, image, spec, attached=attached, fleet=fleet, fresh=fresh)
    async with _undoing(instances, spec.name):
        left = (earlier.launch,) if earlier else ()  # it may have been on another network
        await announce_names(instances, *left, started.launch)
    return started


async def restart_machine(home: Home, name: str, *, attached: bool) -> Started:
    """Start a stopped machine again with the same image, flags, address, ports and disk."""
    instances = Instances(home)
    with instances.lock(name):
        instance = instances.read(name)
        refuse_running(instance)
        image = read_record(instances.directory(name) / IMAGE, Image, f"`drumhead delete {name}` and run it again")
        launch = instance.launch
        spec = msgspec.structs.replace(launch.spec, forwards=launch.forwards)
        async with _undoing(instances, name):
            started = await _start(instances, image, spec, attached=attached, fleet=launch.fleet, fresh=False)
    async with _undoing(instances, name):
        await announce_names(instances, started.launch)
    return started


@asynccontextmanager
async def _undoing(instances: Instances, name: str) -> AsyncIterator[None]:
    """Switch the machine off if its start is interrupted (Ctrl-C)."""
    try:
        yield
    except asyncio.CancelledError:
        with suppress(DrumheadError):  # it was not started yet
            await switch_off(instances, name)
        raise


def image_digest(image: Image) -> str:
    """Return the SHA-256 of an image's record, which identifies its exact contents."""
    return hashlib.sha256(encode(image)).hexdigest()


def refuse_running(instance: Instance | None, supervisor: int = 0) -> None:
    """Raise CONFLICT if a machine runs, or if the process `supervisor` would start it again."""
    if instance is not None and (instance.pid or supervisor not in {0, os.getpid()}):
        what = "running" if instance.pid else "asleep or about to be restarted"
        name = instance.launch.spec.name
        raise DrumheadError(ErrorCode.CONFLICT, f"{name} is {what}; stop it first, or choose another name")


def _plan(
    instances: Instances, image: Image, spec: InstanceSpec, accelerator: Accelerator, *, attached: bool, fleet: str
) -> Launch:
    """Return the record of a start, with its addresses and ports. Raises CONFLICT."""
    with_ipv6 = spec.network == "nat" and "ipv6" not in find_guest(image.guest).unsupported
    mac = spec.mac or private.derive_mac(mac_scope(instances.home, spec), spec.name)
    held = supervisor_pid(instances.directory(spec.name))  # of a sleeping machine, and already listening
    launch = Launch(
        spec=spec,
        image_digest=image_digest(image),
        guest=image.guest,
        accelerator=accelerator,
        mac=mac,
        address=private.derive_address(mac) if spec.network == "nat" else "",
        address6=private.derive_address6(spec.private_network, mac) if with_ipv6 else "",
        forwards=spec.forwards if held else tuple(map(find_port, spec.forwards)),
        started_at=time.time(),
        attached=attached,
        fleet=fleet,
    )
    launch = msgspec.structs.replace(launch, inner_forwards=_inner_forwards(launch))
    _refuse_taken(instances, launch)
    return launch


def _refuse_taken(instances: Instances, launch: Launch) -> None:
    private.refuse_taken_address(_others(instances, launch.spec), launch)
    _refuse_taken_mac(instances, launch)


def record_start(instances: Instances, launch: Launch) -> None:
    """Record a start, unless another command has recorded one with the same address meanwhile. Raises CONFLICT."""
    with exclusive(instances.home.root / ADDRESSES):
        _refuse_taken(instances, launch)
        instances.write(launch)


def _others(instances: Instances, spec: InstanceSpec) -> list[Launch]:
    return [one for one in instances.launches() if one.spec.name != spec.name]


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """Everything that a start needs, for booting and for resuming."""

    home: Home
    directory: Path
    guest: Guest
    image: Image
    files: ImageFiles
    acceleration: Acceleration
    launch: Launch
    config: RunConfig
    drives: tuple[Drive, ...]
    boot: BootPlan
    cards: tuple[Card, ...]


async def _start(
    instances: Instances, image: Image, spec: InstanceSpec, *, attached: bool, fleet: str, fresh: bool
) -> Started:
    """Start a machine whose lock is held. A start that is refused leaves the last run's log, disk and record."""
    ready = await _make_ready(instances, image, spec, attached=attached, fleet=fleet)
    launch, directory = ready.launch, ready.directory
    finish_replacing(directory)
    # The supervisor of a machine with --sleep-after listens itself.
    with doors(() if spec.sleep_after else launch.forwards, launch.inner_forwards) as found:
        with replacing_machine(directory) if fresh else nullcontext():
            await _prepare_directory(ready)
            log_offset = file_size(directory / "log")
            launch, pid = await _resume_or_boot(instances, ready)
        start_relay(pid, found)
    return Started(launch=launch, acceleration=ready.acceleration, pid=pid, log_offset=log_offset)


async def _make_ready(instances: Instances, image: Image, spec: InstanceSpec, *, attached: bool, fleet: str) -> _Ready:
    """Check and plan a start. Raises the errors of ``start_machine``."""
    home, directory = instances.home, instances.directory(spec.name)
    refuse_shared_disks(home, spec.volumes, spec.name, instances.all())
    guest = find_guest(image.guest)
    check_memory(guest, spec.memory)
    if spec.sleep_after:
        require(guest, "listening")
    if image.overlay_size:
        require(guest, "overlay")
    files = await asyncio.to_thread(ImageStore(home).mounted_files, image)
    acceleration = await find_acceleration(home, guest.probe(files))
    launch = _plan(instances, image, spec, acceleration.accelerator, attached=attached, fleet=fleet)
    members = [*_others(instances, spec), launch]
    drives, mounts = await open_volumes(home, spec.volumes, guest)
    drives = (overlay_drive(directory), *drives) if image.overlay_size else drives
    config = run_config(launch, members, drives, mounts)
    config = msgspec.structs.replace(config, secrets=read_secrets(home, spec.secrets))
    boot = guest.plan(image, files, config, directory, drives)
    if len(boot.drives) > MAX_DISKS:
        parts = f"{len(boot.drives) - len(spec.volumes)} of its image and {len(spec.volumes)} volumes"
        raise usage(f"{spec.name} would have {len(boot.drives)} disks, {parts}; a machine has at most {MAX_DISKS}")
    return _Ready(
        home=home,
        directory=directory,
        guest=guest,
        image=image,
        files=files,
        acceleration=acceleration,
        launch=launch,
        config=config,
        drives=drives,
        boot=boot,
        cards=cards(home, launch),
    )


async def _prepare_directory(ready: _Ready) -> None:
    """Keep the image's record, and make the machine's disk if there is none."""
    directory, size = ready.directory, ready.image.overlay_size
    with replacing(directory / IMAGE) as temporary:
        temporary.write_bytes(encode(ready.image))
    if size:
        await make_overlay(directory, size, ready.guest)
    trim_logs(directory)


async def _resume_or_boot(instances: Instances, ready: _Ready) -> tuple[Launch, int]:
    """Start a machine from its snapshot, or boot it if there is none, or none that can be resumed."""
    snapshot = find_snapshot(ready.home, ready.guest, ready.image, ready.files, ready.launch)
    if snapshot is None:
        return await _boot(instances, ready)
    try:
        return await _resume(instances, ready, snapshot)
    except DrumheadError as error:
        if error.code is ErrorCode.CONFLICT:  # one of its disks is in use
            raise
        if (ready.directory / STOPPING).exists():
            raise stopped_while_starting(ready.launch.spec.name) from error
        log.warning("%s boots, because its snapshot cannot be resumed: %s", ready.launch.spec.name, error.message)
        # A guest that reported a failure ran, so the fault is this machine's (a disk that it cannot mount).
        ran = any(line.event == "failed" for line in status_lines(ready.directory / "status"))
        started = await _boot(instances, ready)
        # It was the snapshot's fault if booting works, unless a busy host was too slow.
        if not ran and error.code is not ErrorCode.TIMEOUT:
            Snapshots(ready.home).delete(snapshot.key)
        return started


async def _resume(instances: Instances, ready: _Ready, snapshot: Snapshot) -> tuple[Launch, int]:
    launch = msgspec.structs.replace(ready.launch, snapshot=snapshot.key)
    record_start(instances, launch)
    disks = spare_drives(ready.directory, ready.drives)
    write_spares(disks)
    boot = ready.guest.plan_snapshot(ready.image, ready.files, None, ready.directory, disks)
    order = ready.guest.warm_order(snapshot.interpreter, launch.spec.command)
    return launch, await resume(ready.home, snapshot, launch, boot, ready.cards, ready.config, order)


async def _boot(instances: Instances, ready: _Ready) -> tuple[Launch, int]:
    launch, directory = ready.launch, ready.directory
    argv = command_line(
        ready.boot,
        name=launch.spec.name,
        memory=launch.spec.memory,
        cpus=launch.spec.cpus,
        accelerator=launch.accelerator,
        cards=ready.cards,
        state=directory,
    )
    record_start(instances, launch)
    try:
        return launch, await spawn(argv, ready.boot, directory, attached=launch.attached)
    except DrumheadError as error:
        if (directory / STOPPING).exists():
            raise stopped_while_starting(launch.spec.name) from error
        raise


def run_config(
    launch: Launch, members: list[Launch], drives: tuple[Drive, ...], mounts: tuple[GuestMount, ...]
) -> RunConfig:
    """Return the configuration of the guest. Its cards are in the order of ``cards``; the names come from `members`.

    A machine on a network of the host does not reach the private network, so it gets no names of its members.
    """
    uplink = user_nic(uplink_mac(launch), outgoing=launch.spec.outgoing)
    members = members if launch.spec.network == "nat" else []
    between = GuestNic(
        mac=launch.mac,
        address=f"{launch.address}/{private.PREFIX}" if launch.address else "",
        address6=f"{launch.address6}/{private.PREFIX6}" if launch.address6 else "",
    )
    return RunConfig(
        hostname=private.host_name(launch.spec.name),
        command=launch.spec.command,
        before=launch.spec.before,
        nics=(between, uplink),
        hosts=private.network_hosts(members, launch.spec.private_network),
        hosts6=private.network_hosts6(members, launch.spec.private_network),
        mounts=mounts,
        memory=launch.spec.memory,
        overlay=OVERLAY_SERIAL if any(drive.serial == OVERLAY_SERIAL for drive in drives) else "",
    )


def cards(home: Home, launch: Launch) -> tuple[Card, ...]:
    """Return two cards: eth0 on the private or host network, then QEMU's user network for outgoing traffic and
    forwards.

    Programs announce the first address that they find, so this must be the one that their neighbours can reach.
    """
    spec = launch.spec
    if spec.network == "nat":
        beside = private_netdev(private.multicast_group(home, spec.private_network))
    else:
        beside = host_netdev(spec.network, spec.network_device)
    beyond = user_netdev(launch.inner_forwards or launch.forwards, outgoing=spec.outgoing)
    uplink = Card(netdev=beyond, mac=uplink_mac(launch), has_channels=True)
    return Card(netdev=beside, mac=launch.mac), uplink


def mac_scope(home: Home, spec: InstanceSpec) -> str:
    """Return a scope that makes MAC addresses of equally named machines differ.

    A network of the host also reaches machines of other hosts and homes, so their scope includes host and home.
    """
    if spec.network == "nat":
        return spec.private_network
    machine_id = MACHINE_ID.read_text().strip() if MACHINE_ID.exists() else socket.gethostname()
    return f"{machine_id}{home.root}"


def _refuse_taken_mac(instances: Instances, launch: Launch) -> None:
    """Raise CONFLICT if another machine that runs or is being started has this MAC on a network of the host."""
    for one in instances.all() if launch.spec.network != "nat" else ():
        name = one.launch.spec.name
        same = one.launch.spec.network != "nat" and one.launch.mac == launch.mac and name != launch.spec.name
        if same and (one.pid or instances.is_locked(name)):
            raise DrumheadError(ErrorCode.CONFLICT, f"{name} already has the MAC {launch.mac}; give another --mac")


def uplink_mac(launch: Launch) -> str:
    """Return the MAC address of the second card, which only QEMU sees."""
    return private.derive_mac(f"{launch.spec.private_network}/out", launch.spec.name)


def _inner_forwards(launch: Launch) -> tuple[PortForward, ...]:
    """Return the forwards for QEMU if another process listens on the host's side of a forward, otherwise nothing."""
    sleeps = bool(launch.spec.sleep_after)
    if not sleeps and not any(one.is_ipv6 for one in launch.forwards):
        return ()
    return tuple(
        find_port(msgspec.structs.replace(one, host_address="127.0.0.1", host_port=0)) if sleeps or one.is_ipv6 else one
        for one in launch.forwards
    )


def find_port(forward: PortForward) -> PortForward:
    """Return a forward with its host port filled in. Raises CONFLICT if the port is taken."""
    with bound(forward) as probe:
        return msgspec.structs.replace(forward, host_port=probe.getsockname()[1])
