"""Flags that several commands share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, Token


def _whole(_type: type, tokens: Sequence[Token]) -> int:
    """Read a whole number; cyclopts by itself would round 1.5 to 2. Raises ValueError."""
    text = tokens[0].value
    if not WHOLE.fullmatch(text):
        raise ValueError(f"{text} is not a whole number.")
    return int(text)


def _count(_type: type, tokens: Sequence[Token]) -> int:
    """Read a number that is at least 0. Raises ValueError."""
    text = tokens[0].value
    if not COUNT.fullmatch(text):
        raise ValueError(f"{text} is not a number from 0.")
    return int(text)


def _seconds(_type: type, tokens: Sequence[Token]) -> float:
    """Read a number of seconds that is at least 0. Raises ValueError."""
    text = tokens[0].value
    if not SECONDS.fullmatch(text):
        raise ValueError(f"{text} is not a number of seconds from 0.")
    return float(text)


WHOLE, COUNT = re.compile(r"-?[0-9]{1,9}"), re.compile(r"[0-9]{1,9}")
SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
Whole, Count, Seconds = Parameter(converter=_whole), Parameter(converter=_count), Parameter(converter=_seconds)
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for programs.")]
Guest = Annotated[
    Literal["linux", "osv"] | None,
    Parameter(name="--guest", help="The guest of the image, if images of this name exist for both guests."),
]
FleetFile = Annotated[
    Path | None,
    Parameter(name=["--file", "-f"], help="The fleet file; by default fleet.yaml or deploy/fleet.yaml."),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MachineFlags:
    """The flags of ``drumhead run``."""

    image: Annotated[
        str, Parameter(name=["--image", "-i"], help="The image, if the first argument names the instance.")
    ] = ""
    memory: Annotated[str, Parameter(name=["--memory", "-m"], help="The memory of the machine (200M, 1G).")] = "256M"
    cpus: Annotated[int, Whole, Parameter(name=["--cpus", "-c"], help="The number of virtual CPUs.")] = 1
    network: Annotated[
        Literal["nat", "bridge", "tap", "vhost"],
        Parameter(
            name=["--network", "-n"],
            help="How the machine reaches networks: nat needs no root; bridge, tap and vhost put it on a "
            "network of the host.",
        ),
    ] = "nat"
    device: Annotated[
        str,
        Parameter(
            name=["--device", "-b"],
            help="The device of the host: for bridge and vhost a bridge (by default virbr0 or br0), for tap "
            "a tap device (by default the first free one of tap0, tap1, …).",
        ),
    ] = ""
    private_network: Annotated[str, Parameter(help="The private network whose machines reach one another by name.")] = (
        "default"
    )
    no_outgoing: Annotated[
        bool,
        Parameter(
            negative="",
            help="Let the machine reach only its private network: not the host, its networks or the Internet. "
            "Forwarded TCP ports still work.",
        ),
    ] = False
    mac: Annotated[
        str,
        Parameter(
            help="The MAC address, which decides the IP address. By default it follows from the name, so both "
            "stay the same."
        ),
    ] = ""
    execute: Annotated[
        str | None,
        Parameter(
            name=["--execute", "-e"],
            allow_leading_hyphen=True,
            help="The command to run instead of the image's default command.",
        ),
    ] = None
    run: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--run", "--boot"],
            help="The config set to run instead of the default one; repeatable: each one runs after the one before it "
            "has succeeded.",
        ),
    ] = ()
    env: Annotated[
        tuple[str, ...], Parameter(help="An environment variable for the command, NAME=VALUE; repeatable.")
    ] = ()
    forward: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--forward", "-f"],
            help="A port of the host to forward into the machine, HOST:GUEST[/udp]; repeatable.",
        ),
    ] = ()
    volume: Annotated[
        tuple[str, ...],
        Parameter(
            help="A volume to mount, NAME:/path[:SIZE][:ro]; it is created if it does not exist, and grows if SIZE is "
            "larger; repeatable."
        ),
    ] = ()
    restart: Annotated[
        Literal["no", "on-failure", "always"],
        Parameter(help="Whether to start the machine again when its command has ended by itself."),
    ] = "no"
    sleep_after: Annotated[
        float,
        Parameter(
            help="Stop the machine after this many seconds without a connection to its forwarded ports, and start it "
            "at the next connection (with -d)."
        ),
    ] = 0.0
    cold: Annotated[
        bool, Parameter(negative="", help="Boot the machine, even if there is a snapshot to resume it from.")
    ] = False
    guest: Annotated[
        Literal["linux", "osv"] | None,
        Parameter(name="--guest", help="The guest of the image, if images of this name exist for both guests."),
    ] = None
    verbose: Annotated[
        bool,
        Parameter(name=["--verbose", "-v"], negative="", help="Print the programs of the host that drumhead runs."),
    ] = False
    provider: Annotated[
        Literal["qemu"], Parameter(name=["--provider", "-p"], help="The hypervisor; only qemu exists.")
    ] = "qemu"
    persist: Annotated[
        bool,
        Parameter(
            negative="", show=False, help="Accepted for Capstan scripts; a machine is always kept until it is deleted."
        ),
    ] = False
    detach: Annotated[
        bool,
        Parameter(
            name=["--detach", "-d"],
            negative="",
            help="Return as soon as the command runs, and leave the machine running.",
        ),
    ] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ComposeFlags:
    """The flags of ``drumhead package compose``. Scripts for Capstan pass `pull_missing`, which has no effect."""

    update: Annotated[
        bool,
        Parameter(
            negative="", help="Read only files that changed since the last time, and print what changed and why."
        ),
    ] = False
    guest: Annotated[
        Literal["linux", "osv"] | None,
        Parameter(name="--guest", help="The guest to compose for; by default that of the manifest, or else linux."),
    ] = None
    kernel: Annotated[
        str, Parameter(help="The kernel, NAME@VERSION (osv@0.57.0); by default the newest for the guest.")
    ] = ""
    fs: Annotated[
        str,
        Parameter(
            help="The file system of the layers: squashfs (small, the default) or erofs for linux, rofs for osv."
        ),
    ] = ""
    size: Annotated[
        str,
        Parameter(
            name=["--size", "-s"],
            help="The size of the disk that a machine writes to (10G); without it, writes stay in memory.",
        ),
    ] = ""
    run: Annotated[
        str,
        Parameter(
            name=["--run", "--boot"],
            allow_leading_hyphen=True,
            help="The config set or command that a machine runs by default.",
        ),
    ] = ""
    env: Annotated[
        tuple[str, ...], Parameter(name="--env", help="A variable for every config set (NAME=value); repeatable.")
    ] = ()
    require: Annotated[
        tuple[str, ...], Parameter(name="--require", help="A further package to require; repeatable.")
    ] = ()
    pull_missing: Annotated[
        bool,
        Parameter(
            name=["--pull-missing", "-p"],
            negative="",
            show=False,
            help="Accepted for Capstan scripts; missing packages are always pulled or built.",
        ),
    ] = False
