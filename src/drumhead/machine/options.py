"""Parse what people write on the command line and in fleet files: sizes, ports, volumes, names."""

from __future__ import annotations

import ipaddress
import re

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.records import PortForward, VolumeMount

INSTANCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
SIZE = re.compile(r"([0-9]+)([KMGT]?)(?:i?B)?", re.IGNORECASE)
MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MIN_MEMORY = 32


def usage(message: str) -> DrumheadError:
    return DrumheadError(ErrorCode.USAGE, message)


def read_size(text: str, *, what: str = "size") -> int:
    """Parse ``200M``, ``1G`` or ``4096`` into bytes. Raises USAGE."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise usage(f"{text!r} is not a valid {what}; write 512M or 2G")
    return int(match[1]) * UNITS[match[2].upper()]


def read_memory(text: str) -> int:
    """Parse memory into MiB. A bare number means MiB, as with Capstan. Raises USAGE."""
    size = int(text) if text.strip().isdigit() else read_size(text, what="amount of memory") >> 20
    if size < MIN_MEMORY:
        raise usage(f"{text} of memory is too little for a machine; give at least {MIN_MEMORY}M")
    return size


def read_instance_name(text: str) -> str:
    """Check the name of a machine, which is also its host name. Raises USAGE."""
    if not INSTANCE_NAME.fullmatch(text):
        raise usage(f"{text!r} is not a valid instance name; use up to 63 letters and digits, with . _ - between them")
    return text


def read_mac(text: str) -> str:
    """Parse the hardware address of a card into lower case. Raises USAGE."""
    if not MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise usage(
            f"{text!r} is not a valid hardware address; write it like 02:13:15:00:80:01 (the first byte must be even)"
        )
    return text.lower()


def read_forward(text: str) -> PortForward:
    """Parse ``[ADDRESS:]HOST:GUEST[/udp]``. Host port 0 means any free port. Raises USAGE."""
    ports, _, protocol = text.partition("/")
    parts = ports.split(":")
    address = parts.pop(0) if len(parts) == 3 else "127.0.0.1"
    if len(parts) != 2 or not all(part.isdigit() and int(part) <= 65535 for part in parts) or parts[1] == "0":
        raise usage(f"{text!r} is not a valid port forward; write HOST:GUEST, like 8080:80 or 5353:53/udp")
    try:
        ipaddress.IPv4Address(address)
    except ipaddress.AddressValueError as error:
        raise usage(f"{address!r} in {text!r} is not an IPv4 address of this host") from error
    match protocol:
        case "" | "tcp":
            return PortForward(host_port=int(parts[0]), guest_port=int(parts[1]), host_address=address)
        case "udp":
            return PortForward(host_port=int(parts[0]), guest_port=int(parts[1]), protocol="udp", host_address=address)
        case other:
            raise usage(f"{other!r} in {text!r} is not a protocol; use tcp or udp")


def read_volume(text: str) -> VolumeMount:
    """Parse ``SOURCE:/path[:SIZE][:ro]``. A source with a slash is the path of a disk. Raises USAGE."""
    source, *rest = text.split(":")
    if not source or not rest or not rest[0].startswith("/") or rest[0] == "/":
        raise usage(f"{text!r} is not a valid volume; write NAME:/path, NAME:/path:2G or NAME:/path:ro")
    if "/" not in source:
        read_volume_name(source)
    readonly, size = False, VolumeMount.__struct_defaults__[-1]
    for option in rest[1:]:
        if option == "ro":
            readonly = True
        else:
            size = read_size(option, what="size of a volume")
    return VolumeMount(source=source, path=rest[0].rstrip("/"), readonly=readonly, size=size)


def read_volume_name(text: str) -> str:
    if not INSTANCE_NAME.fullmatch(text):
        raise usage(f"{text!r} is not a valid volume name; use letters and digits, with . _ - between them")
    return text


def read_variables(settings: list[str]) -> dict[str, str]:
    """Parse ``NAME=VALUE`` arguments into environment variables. Raises USAGE."""
    variables = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name or not equals or "\0" in value:
            raise usage(f"{setting!r} does not set a variable; write NAME=VALUE")
        variables[name] = value
    return variables
