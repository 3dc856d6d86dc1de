"""Put a program on a private network: ``python -m drumhead.machine.network.namespace SOCKET SETTINGS``.

``shell`` starts this module with one end of a socket pair. The process enters new user, network and mount namespaces,
creates a tap device there, sends its descriptor through the socket, and becomes the program. It needs no root.
Sources: user_namespaces(7), the kernel's Documentation/networking/tuntap, netdevice(7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from drumhead.machine.process import LIBC, PR_SET_PDEATHSIG

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFHWADDR, SIOCSIFFLAGS = 0x8916, 0x891C, 0x8924, 0x8914
IFF_UP, ARPHRD_ETHER = 1, 1
IFA_F_TENTATIVE = 0x40
USABLE_TIME = 5.0
"""Seconds to wait until a new IPv6 address is usable. The kernel takes milliseconds, but longer on a busy host."""
CARD = "eth0"
TUN = "/dev/net/tun"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The MAC and addresses of the program's card, the file that it sees as /etc/hosts, and its argv."""

    mac: str
    address: str
    address6: str
    netmask: str
    hosts: str
    argv: tuple[str, ...]


class NotPermittedError(Exception):
    """An operation that this host does not permit. The message says what to do."""


def main() -> NoReturn:
    channel = socket.socket(fileno=int(sys.argv[1]))
    settings = msgspec.json.decode(sys.argv[2], type=Settings)
    try:
        enter()
        card = set_up(settings)
    except NotPermittedError as error:
        channel.send(str(error).encode())
        sys.exit(1)
    # A program whose network is gone ends as in a closed terminal. Entering the namespaces has cleared this setting.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
    try:
        socket.send_fds(channel, [b"ok"], [card])
    except BrokenPipeError:  # the command was killed before that
        sys.exit(1)
    os.close(card)
    channel.close()
    try:
        os.execvp(settings.argv[0], settings.argv)  # noqa: S606 - the user's own program
    except OSError as error:
        sys.stderr.write(f"drumhead: cannot start {settings.argv[0]}: {error.strerror}\n")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def enter() -> None:
    """Enter the namespaces, with the same user inside as outside. Raises NotPermittedError."""
    user, group = os.geteuid(), os.getegid()
    if LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise NotPermittedError(
            f"this host does not let you create namespaces ({os.strerror(ctypes.get_errno())}); as root: sysctl -w "
            "kernel.unprivileged_userns_clone=1 (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)"
        )
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError as error:  # Linux requires CAP_SETFCAP of a root user that stays root in the namespace
        raise NotPermittedError(f"this host does not let user {user} keep its number ({error.strerror})") from error


def set_up(settings: Settings) -> int:
    """Create the card and mount the names. Return the descriptor of the tap device. Raises NotPermittedError."""
    try:
        card = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NotPermittedError(
            f"{TUN} cannot be opened ({error.strerror}); as root: modprobe tun; chmod 666 {TUN}"
        ) from error
    fcntl.ioctl(card, TUNSETIFF, struct.pack("16sH22x", CARD.encode(), IFF_TAP | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        hardware = bytes.fromhex(settings.mac.replace(":", ""))
        fcntl.ioctl(link, SIOCSIFHWADDR, struct.pack("16sH6s16x", CARD.encode(), ARPHRD_ETHER, hardware))
        for request, text in ((SIOCSIFADDR, settings.address), (SIOCSIFNETMASK, settings.netmask)):
            value = struct.pack("16sHH4s16x", CARD.encode(), socket.AF_INET, 0, socket.inet_aton(text))
            fcntl.ioctl(link, request, value)
        with suppress(OSError):  # a host may have no IPv6
            prepare_ipv6()
        for name in ("lo", CARD):
            fcntl.ioctl(link, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), IFF_UP))
    with suppress(OSError):
        use_ipv6(settings.address6)
    mount("none", "/", MS_REC | MS_PRIVATE)
    mount(settings.hosts, "/etc/hosts", MS_BIND)
    Path(settings.hosts).unlink()  # before the program starts, so that a command that is killed leaves no file
    return card


def prepare_ipv6() -> None:
    """Disable duplicate address detection for the card's IPv6 addresses. Raises OSError.

    Call this before the card is up, because the kernel then starts the detection for the first address.
    """
    for name, value in (("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0")):
        Path(f"/proc/sys/net/ipv6/conf/{CARD}/{name}").write_text(value)


def use_ipv6(address: str) -> None:
    """Give the card an IPv6 address and wait until it is usable. Raises OSError.

    The kernel makes an address usable a little later. An earlier connection would have another source address, or none.
    """
    packed = socket.inet_pton(socket.AF_INET6, address)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as link:
        fcntl.ioctl(link, SIOCSIFADDR, packed + struct.pack("Ii", 64, socket.if_nametoindex(CARD)))
    deadline = time.monotonic() + USABLE_TIME
    while not is_usable(packed) and time.monotonic() < deadline:
        time.sleep(0.005)


def is_usable(address: bytes) -> bool:
    """Return whether the kernel uses an IPv6 address for connections: it exists and is not tentative."""
    lines = map(str.split, Path("/proc/net/if_inet6").read_text().splitlines())
    flags = {bytes.fromhex(words[0]): int(words[4], 16) for words in lines}
    return address in flags and not flags[address] & IFA_F_TENTATIVE


def mount(what: str, where: str, flags: int) -> None:
    if LIBC.mount(what.encode(), where.encode(), None, ctypes.c_ulong(flags), None) != 0:
        raise NotPermittedError(f"{what} cannot be mounted on {where}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
