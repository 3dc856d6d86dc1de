"""QEMU's command line, from records alone. Nothing here touches the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead.guest.contract import CHANNEL_ADDRESS

if TYPE_CHECKING:
    from drumhead.guest.contract import BootPlan, Channel, Drive
    from drumhead.machine.network.private import MulticastGroup
    from drumhead.machine.records import Accelerator, PortForward

PROGRAM = "qemu-system-x86_64"
USER_ADDRESS, USER_GATEWAY, USER_NAMESERVER = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"
"""What QEMU's user network gives its one guest; told to the guest, which then need not ask for it."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A network card: QEMU's -netdev without its id, and the MAC."""

    netdev: str
    mac: str


def user_netdev(forwards: tuple[PortForward, ...]) -> str:
    """Return the network of QEMU itself: the way out, and ports of the host that lead in."""
    rules = [f"hostfwd={one.protocol}:{one.host_address}:{one.host_port}-:{one.guest_port}" for one in forwards]
    return ",".join(["user", *rules])


def private_netdev(group: MulticastGroup) -> str:
    """Return the -netdev of the private network: frames as datagrams to a multicast group on the loopback interface."""
    return f"socket,mcast={group.address}:{group.port},localaddr=127.0.0.1"


def command_line(
    boot: BootPlan,
    *,
    name: str,
    memory: int,
    cpus: int,
    accelerator: Accelerator,
    cards: tuple[Card, ...],
    state: Path,
) -> list[str]:
    """Return the words that start a machine.

    QEMU is to be started in `state`: sockets and logs are named from there, as a socket's path may not be longer than
    107 bytes. `memory` is in MiB.
    """
    words = [PROGRAM, "-name", f"{_escape(name)},process=drumhead:{_escape(name)}"]
    words += ["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-pidfile", "pid"]
    words += [
        "-machine",
        "q35",
        "-m",
        f"{memory}M",
        "-smp",
        _cpus(cpus, accelerator),
        *accelerator_arguments(accelerator),
    ]
    words += ["-qmp", "unix:qmp.sock,server=on,wait=off"]
    console = f"id=console,path=console.sock,server=on,wait=off,logfile={boot.console},logappend=on"
    words += ["-chardev", f"socket,{console}"]
    words += ["-serial", "chardev:console"]
    words += ["-kernel", str(boot.kernel), "-append", boot.cmdline]
    if boot.initrd is not None:
        words += ["-initrd", str(boot.initrd)]
    for number, drive in enumerate(boot.drives):
        words += _drive(number, drive)
    if any(not channel.port for channel in boot.channels):
        words += ["-device", "virtio-serial-pci"]
    for number, channel in enumerate(boot.channels):
        words += _channel(number, channel, state)
    ways = [
        f",guestfwd=tcp:{CHANNEL_ADDRESS}:{channel.port}-chardev:channel{number}"
        for number, channel in enumerate(boot.channels)
        if channel.port
    ]
    for number, card in enumerate(cards):
        # The first card is QEMU's own network, the only one that can lead to a channel.
        words += ["-netdev", f"{card.netdev}{'' if number else ''.join(ways)},id=net{number}"]
        words += ["-device", f"virtio-net-pci,netdev=net{number},mac={card.mac},romfile="]
    return words


def _cpus(cpus: int, accelerator: Accelerator) -> str:
    """-smp. With room for one CPU alone QEMU 7.2's emulator leaves out memory barriers, though its own threads work on
    the guest's queues meanwhile: under load a machine may then wait for ever for a card that waits for it.
    """
    return "1,maxcpus=2" if accelerator == "tcg" and cpus == 1 else str(cpus)


def accelerator_arguments(accelerator: Accelerator) -> list[str]:
    """-accel and -cpu."""
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # With five levels of page tables every translation that the emulator does is longer: a fifth of all time.
    return ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]


def _drive(number: int, drive: Drive) -> list[str]:
    readonly = "on" if drive.readonly else "off"
    # discard lets a volume shrink again on the host when the guest deletes.
    options = f"if=none,id=disk{number},format={drive.format},readonly={readonly},discard=unmap"
    if drive.writethrough:
        options += ",cache=writethrough"
    return [
        "-drive",
        f"file={_escape(str(drive.path))},{options}",
        "-device",
        f"virtio-blk-pci,drive=disk{number},serial={drive.serial}",
    ]


def _channel(number: int, channel: Channel, state: Path) -> list[str]:
    path = _escape(str(channel.path.relative_to(state)))
    kinds = {
        "file": f"file,id=channel{number},path={path},append=on",
        "socket": f"socket,id=channel{number},path={path},server=on,wait=off",
    }
    port = [] if channel.port else ["-device", f"virtserialport,chardev=channel{number},name={channel.name}"]
    return ["-chardev", kinds[channel.kind], *port]


def _escape(text: str) -> str:
    """Return a value inside QEMU's comma-separated options."""
    return text.replace(",", ",,")
