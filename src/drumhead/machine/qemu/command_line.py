"""Write QEMU's command line from records. Nothing here touches the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead.guest.contract import CHANNEL_ADDRESS, GuestNic

if TYPE_CHECKING:
    from drumhead.guest.contract import BootPlan, Channel, Drive
    from drumhead.machine.network.private import MulticastGroup
    from drumhead.machine.records import Accelerator, PortForward

PROGRAM = "qemu-system-x86_64"
PLAIN = ("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-boot", "strict=on")
"""Arguments of every start: no default devices or configuration, and a firmware that does not touch the disks.

QEMU puts the initrd 160 KiB below the end of memory. If the firmware (SeaBIOS) may boot from the disks, it has a queue
for each of them, and some of these queues overlap the initrd. On a busy host, QEMU may write into the queues after the
initrd was loaded, and so damage its end, where the last module is. With ``strict`` the firmware sets up only the device
that it boots from, which is the kernel.
"""
MAX_PORTS = 8
"""The ports of virtio-serial: a guest's channels, and number 0, which QEMU keeps for a console."""
MAX_DISKS = 27
"""The slots of q35's bus that the host bridge, the chipset, the serial ports and the two cards leave."""
USER_ADDRESS, USER_GATEWAY, USER_NAMESERVER = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"
"""The addresses that QEMU's user network assigns to its one guest; the guest is configured with them without DHCP."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A network card: QEMU's -netdev without its id, and the MAC address."""

    netdev: str
    mac: str
    has_channels: bool = False
    """Whether the card is on QEMU's user network, the only network that can lead to channels."""


def user_netdev(forwards: tuple[PortForward, ...], *, outgoing: bool = True) -> str:
    """Return the -netdev of QEMU's user network: forwarded ports and, with `outgoing`, outgoing traffic."""
    rules = [f"hostfwd={one.protocol}:{one.host_address}:{one.host_port}-:{one.guest_port}" for one in forwards]
    return ",".join(["user", *([] if outgoing else ["restrict=on"]), *rules])


def user_nic(mac: str, *, outgoing: bool) -> GuestNic:
    """Return the guest's side of QEMU's user network.

    Without `outgoing` no name server answers, so the guest gets none and programs need not wait for it. The gateway
    stays: a forward that listens beyond loopback brings connections from the addresses of its clients.
    """
    nameserver = USER_NAMESERVER if outgoing else ""
    return GuestNic(mac=mac, address=USER_ADDRESS, gateway=USER_GATEWAY, nameserver=nameserver)


def private_netdev(group: MulticastGroup) -> str:
    """Return the -netdev of the private network: frames as datagrams to a multicast group on the loopback interface."""
    return f"socket,mcast={group.address}:{group.port},localaddr=127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The file with the memory of a snapshot.

    The machine that is saved writes it in place. Resumed machines have private copies of the pages that they change,
    and wait for the state of their devices (``migrate-incoming``).
    """

    memory: Path
    resumed: bool = False


def command_line(
    boot: BootPlan,
    *,
    name: str,
    memory: int,
    cpus: int,
    accelerator: Accelerator,
    cards: tuple[Card, ...],
    state: Path,
    saved: Saved | None = None,
) -> list[str]:
    """Return the argv that starts a machine.

    Start QEMU in the directory `state`: the paths of sockets and logs are relative to it, because the path of a socket
    may have at most 107 bytes. `memory` is in MiB. Give `saved` for a machine that will be saved or is resumed.
    """
    argv = [PROGRAM, "-name", f"{_escape(name)},process=drumhead:{_escape(name)}"]
    argv += [*PLAIN, "-pidfile", "pid"]
    argv += [
        "-machine",
        f"q35{',memory-backend=memory' if saved else ''}",
        "-m",
        f"{memory}M",
        "-smp",
        _cpus(cpus, accelerator),
        *accelerator_arguments(accelerator),
    ]
    argv += _saved(saved, memory) if saved else []
    argv += ["-qmp", "unix:qmp.sock,server=on,wait=off"]
    console = f"id=console,path=console.sock,server=on,wait=off,logfile={boot.console},logappend=on"
    argv += ["-chardev", f"socket,{console}", "-serial", "chardev:console"]
    argv += ["-kernel", str(boot.kernel), "-append", boot.cmdline]
    argv += ["-initrd", str(boot.initrd)] if boot.initrd is not None else []
    for number, drive in enumerate(boot.drives):
        argv += _drive(number, drive)
    if any(not channel.port for channel in boot.channels):
        argv += ["-device", f"virtio-serial-pci,max_ports={MAX_PORTS}"]
    for channel in boot.channels:
        argv += _channel(channel, state)
    return argv + _cards(cards, boot.channels)


def _saved(saved: Saved, memory: int) -> list[str]:
    """Return the arguments for memory that is a file."""
    share = "off" if saved.resumed else "on"
    backend = f"memory-backend-file,id=memory,size={memory}M,mem-path={_escape(str(saved.memory))},share={share}"
    return ["-object", backend, *(["-incoming", "defer"] if saved.resumed else [])]


def _cards(cards: tuple[Card, ...], channels: tuple[Channel, ...]) -> list[str]:
    """Return the arguments for the cards. The guest numbers the cards in this order."""
    forwards = [
        f",guestfwd=tcp:{CHANNEL_ADDRESS}:{channel.port}-chardev:{channel.name}" for channel in channels if channel.port
    ]
    argv = []
    for number, card in enumerate(cards):
        argv += ["-netdev", f"{card.netdev}{''.join(forwards) if card.has_channels else ''},id=net{number}"]
        argv += ["-device", f"virtio-net-pci,netdev=net{number},mac={card.mac},romfile="]
    return argv


def _cpus(cpus: int, accelerator: Accelerator) -> str:
    """Return the value of -smp.

    With at most one CPU, QEMU 7.2's emulator omits memory barriers, although its own threads use the guest's queues.
    Under load, a machine and its card could then wait for each other forever.
    """
    return "1,maxcpus=2" if accelerator == "tcg" and cpus == 1 else str(cpus)


def accelerator_arguments(accelerator: Accelerator) -> list[str]:
    """Return -accel and -cpu."""
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # Five levels of page tables would slow down the emulator's address translation and cost 20 % of all time. With ERMS
    # and FSRM, kernel and libc copy and clear memory by REP MOVSB and REP STOSB, which it emulates byte by byte.
    return ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off,erms=off,fsrm=off"]


def _drive(number: int, drive: Drive) -> list[str]:
    readonly = "on" if drive.readonly else "off"
    # With discard, a volume shrinks on the host when the guest deletes files.
    options = f"if=none,id=disk{number},format={drive.format},readonly={readonly},discard=unmap"
    if drive.writethrough:
        options += ",cache=writethrough"
    return [
        "-drive",
        f"file={_escape(str(drive.path))},{options}",
        "-device",
        f"virtio-blk-pci,drive=disk{number},serial={drive.serial}",
    ]


def _channel(channel: Channel, state: Path) -> list[str]:
    path = _escape(str(channel.path.relative_to(state)))
    kinds = {"file": f"file,path={path},append=on", "socket": f"socket,path={path},server=on,wait=off"}
    argv = ["-chardev", f"{kinds[channel.kind]},id={channel.name}"]
    if not channel.port and not channel.on_demand:
        argv += ["-device", f"virtserialport,chardev={channel.name},name={channel.name}"]
    return argv


def _escape(text: str) -> str:
    """Escape a value for QEMU's comma-separated options."""
    return text.replace(",", ",,")
