"""Parse values of the command line and of fleet files: sizes, ports, volumes, names."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from typing import TYPE_CHECKING, get_args

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.machine.records import PortForward, VolumeMount
from drumhead.records import VARIABLE_NAME, GuestName, variable_fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_NAME = 63
"""The limit of a host name in characters, for DNS; Linux refuses more than 64."""
INSTANCE_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}")
SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([KMGT]?)(?:i?B)?", re.IGNORECASE)
MEBIBYTES = re.compile(r"[0-9]{1,15}")
PORT = re.compile(r"[0-9]{1,5}")
MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
IPV6_FORWARD = re.compile(r"\[([^\[\]]*)\]:([^\[\]]*)")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MIN_MEMORY = 32
"""In MiB: less than any guest needs, of which each has a limit of its own."""
MAX_MEMORY = 1 << 24
"""The maximum memory in MiB, which is more than any host has."""
MIN_DISK = 8 << 20
MAX_DISK = 16 << 40
"""The limit of ext4 with blocks of 4 KiB."""
MAX_CPUS = 255
"""The limit of QEMU's machine type q35."""
LOCALHOST = "localhost"
NO_MAC = "00:00:00:00:00:00"
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - addresses that stand for all
UDP_IS_OUTGOING = "forward TCP ports only, because QEMU takes the answers to UDP for outgoing traffic"
"""Why a machine without outgoing traffic has no UDP forwards: QEMU drops every datagram of such a machine."""
KERNEL_DIRECTORIES = ("proc", "sys", "dev", "run")
SYSTEM_DIRECTORIES = ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/usr/bin", "/usr/lib", "/usr/sbin")
"""Directories that a volume must not hide, because they hold programs. Directories below them may be volumes."""
MAX_PATH = 1024
MAX_FILE_NAME = 255
"""The limit in bytes of Linux's file systems."""


def usage(message: str) -> DrumheadError:
    return DrumheadError(ErrorCode.USAGE, message)


def read_size(text: str, *, what: str = "size") -> int:
    """Parse ``200M``, ``1G`` or ``4096`` into bytes. Raises USAGE."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise usage(f"{text!r} is not a valid {what}; write 512M or 2G")
    return int(float(match[1]) * UNITS[match[2].upper()])


def read_disk_size(text: str, *, what: str = "size of a disk") -> int:
    """Parse the size of a disk with a file system into bytes. Raises USAGE."""
    size = read_size(text, what=what)
    if size < MIN_DISK:
        raise usage(f"{text} is too little for a disk; give at least {MIN_DISK >> 20}M, like 512M or 2G")
    if size > MAX_DISK:
        raise usage(f"{text} is too much for a disk; give at most {MAX_DISK >> 40}T")
    return size


def read_memory(text: str) -> int:
    """Parse memory into MiB. A bare number means MiB, as with Capstan. Raises USAGE."""
    size = int(text) if MEBIBYTES.fullmatch(text.strip()) else read_size(text, what="amount of memory") >> 20
    if size < MIN_MEMORY:
        least = " and ".join(f"{find_guest(name).least_memory} MiB on {name}" for name in get_args(GuestName))
        raise usage(f"{text!r} is too little memory; a machine needs at least {least}")
    if size > MAX_MEMORY:
        raise usage(f"{text} of memory is too much for a machine; give at most {MAX_MEMORY >> 20}T")
    return size


def read_instance_name(text: str) -> str:
    """Return the name of a machine, which is also its host name, after checking it. Raises USAGE."""
    if not INSTANCE_NAME.fullmatch(text):
        allowed = f"use up to {MAX_NAME} letters and digits, with . _ - between them"
        raise usage(f"{text!r} is not a valid instance name; {allowed}")
    if text.lower() == LOCALHOST:
        raise usage(f"{text} is the name by which every machine knows itself; choose another name for the instance")
    return text


def read_private_network(text: str) -> str:
    """Return the name of a private network after checking it. Raises USAGE."""
    if not INSTANCE_NAME.fullmatch(text):
        allowed = f"use up to {MAX_NAME} letters and digits, with . _ - between them"
        raise usage(f"{text!r} is not a valid name of a private network; {allowed}")
    return text


def read_mac(text: str) -> str:
    """Parse the MAC address of a card and return it in lower case. Raises USAGE."""
    if not MAC.fullmatch(text) or int(text[:2], 16) & 1 or text == NO_MAC:
        raise usage(
            f"{text!r} is not a valid MAC address; write it like 02:13:15:00:80:01 (the first byte must be even)"
        )
    return text.lower()


def read_forward(text: str) -> PortForward:
    """Parse ``[ADDRESS:]HOST:GUEST[/udp]``; an IPv6 address is in brackets. Host port 0 means any free port.

    Raises USAGE.
    """
    ports, slash, protocol = text.partition("/")
    in_brackets = IPV6_FORWARD.fullmatch(ports)
    parts = [in_brackets[1], *in_brackets[2].split(":")] if in_brackets else ports.split(":")
    address = parts.pop(0) if len(parts) == 3 else "127.0.0.1"
    if len(parts) != 2 or not all(PORT.fullmatch(part) and int(part) <= 65535 for part in parts) or parts[1] == "0":
        raise usage(f"{text!r} is not a valid port forward; write HOST:GUEST, like 8080:80 or 5353:53/udp")
    try:
        address = str((ipaddress.IPv6Address if in_brackets else ipaddress.IPv4Address)(address))
    except ipaddress.AddressValueError as error:
        kind = "an IPv6" if in_brackets else "an IPv4"
        raise usage(f"{address!r} in {text!r} is not {kind} address of this host") from error
    if in_brackets and protocol == "udp":
        raise usage(f"{text!r}: UDP is forwarded from IPv4 addresses only; write 127.0.0.1:{':'.join(parts)}/udp")
    match slash + protocol:
        case "" | "/tcp":
            return PortForward(host_port=int(parts[0]), guest_port=int(parts[1]), host_address=address)
        case "/udp":
            return PortForward(host_port=int(parts[0]), guest_port=int(parts[1]), protocol="udp", host_address=address)
        case _:
            raise usage(f"{protocol!r} in {text!r} is not a protocol; use tcp or udp")


def read_volume(text: str) -> VolumeMount:
    """Parse ``SOURCE:/path[:SIZE][:ro]``. A source with a slash is the path of a disk. Raises USAGE."""
    source, *rest = text.split(":")
    if not source or not rest or not rest[0].startswith("/") or rest[0] == "/":
        raise usage(f"{text!r} is not a valid volume; write NAME:/path, NAME:/path:2G or NAME:/path:ro")
    if "/" not in source:
        read_volume_name(source)
    path, *options = rest
    sizes = [option for option in options if option != "ro"]
    if len(sizes) > 1 or len(options) - len(sizes) > 1:
        raise usage(f"{text!r} gives an option twice; write NAME:/path[:SIZE][:ro]")
    size = read_disk_size(sizes[0], what="size of a volume (or ro)") if sizes else 0
    return VolumeMount(source=source, path=read_mount_path(path), readonly="ro" in options, size=size)


def read_mount_path(text: str) -> str:
    """Return the normalised mount point of a volume after checking that it hides nothing important. Raises USAGE."""
    path = posixpath.normpath(text)
    top = path.split("/")[1]
    if ".." in text.split("/") or top in ("", *KERNEL_DIRECTORIES):
        raise usage(f"a volume cannot be mounted at {text}; choose a directory of your own, like /data")
    if path in SYSTEM_DIRECTORIES:
        raise usage(f"a volume at {text} would hide the programs of the machine; choose a directory of your own")
    if not path.isprintable():
        raise usage(f"{text!r} is not the path of a directory; it has an unprintable character")
    if len(path.encode()) > MAX_PATH or any(len(name.encode()) > MAX_FILE_NAME for name in path.split("/")):
        raise usage(f"a volume cannot be mounted at {text[:40]}…; the path is too long")
    return path


def read_volumes(texts: Sequence[str]) -> tuple[VolumeMount, ...]:
    """Parse the volumes of a machine and sort them, outer mount points first. Raises USAGE for duplicates."""
    volumes = tuple(sorted(map(read_volume, texts), key=lambda volume: volume.path.count("/")))
    for what in ("source", "path"):
        taken = [getattr(volume, what) for volume in volumes]
        twice = next((one for one in taken if taken.count(one) > 1), None)
        if twice is not None:
            raise usage(f"{twice} is given for two volumes")
    return volumes


def read_forwards(texts: Sequence[str]) -> tuple[PortForward, ...]:
    """Parse the port forwards of a machine. Raises USAGE, also if two use the same port of the host."""
    forwards = tuple(map(read_forward, texts))
    for number, forward in enumerate(forwards):
        if (other := find_clash(forward, forwards[:number])) is not None:
            raise usage(f"port {forward.host_port}/{forward.protocol} of {other.host_address} is forwarded twice")
    return forwards


def find_clash(forward: PortForward, others: Iterable[PortForward]) -> PortForward | None:
    """Return the one of `others` that needs the same port of the host, or None. 0.0.0.0 and :: are every address."""
    for other in others:
        addresses = {forward.host_address, other.host_address}
        meet = len(addresses) == 1 or addresses & {*WILDCARDS}
        same_port = (forward.host_port, forward.protocol) == (other.host_port, other.protocol)
        if forward.host_port and same_port and meet and forward.is_ipv6 == other.is_ipv6:
            return other
    return None


def read_cpus(count: int) -> int:
    """Return the number of virtual CPUs after checking it. Raises USAGE."""
    if not 1 <= count <= MAX_CPUS:
        raise usage(f"{count} is not a valid number of virtual CPUs; give 1 to {MAX_CPUS}")
    return count


def read_volume_name(text: str) -> str:
    if not INSTANCE_NAME.fullmatch(text):
        raise usage(f"{text!r} is not a valid volume name; use letters and digits, with . _ - between them")
    return text


def read_variables(settings: Sequence[str]) -> dict[str, str]:
    """Parse ``NAME=VALUE`` arguments into environment variables. Raises USAGE."""
    variables = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not VARIABLE_NAME.fullmatch(name) or not equals:
            raise usage(f"{setting!r} does not set a variable; write NAME=VALUE")
        if fault := variable_fault(name, value):
            raise usage(fault)
        variables[name] = value
    return variables
