"""Plan how a command starts on OSv: Python programs run under drumhead's start program, others start directly."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest.contract import CHANNEL_ADDRESS
from drumhead.guest.osv.cmdline import option
from drumhead.guest.osv.skeleton import START_PACKAGE
from drumhead.python.command_line import PYTHON, split_python
from drumhead.tree import Tree, regular

if TYPE_CHECKING:
    from drumhead.guest.contract import RunConfig
    from drumhead.records import Command

OWN_FILES = "/run/drumhead"
"""The directory to which /etc/hosts and /etc/resolv.conf link (``skeleton``)."""
PORTS = {"log": 1, "status": 2, "control": 3}
BEFORE_START = ("PYTHON", "LD_", "GLIBC_", "MALLOC_")
"""Prefixes of variables that take effect before the start program can set them."""
BASE_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "LANG": "C.UTF-8",
}


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A Python program. `argv` is the part after the interpreter's own options."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of ``config.json``, which the start program reads. `argv` is the part after the interpreter's
    options.

    The programs `before` run first, one after another. `cards` use DHCP, and their addresses are reported to the host.
    `secrets` (name → text) become files.
    """

    hostname: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    hosts: dict[str, str]
    volumes: tuple[str, ...]
    nameserver: str
    cards: tuple[str, ...] = ()
    channels: dict[str, str | int] = {}
    secrets: dict[str, str] = {}
    before: tuple[Program, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Start:
    """The start of a program. `argv` is for the loader of libc, `options` are OSv's. `managed` programs run under the
    start program.
    """

    managed: bool
    argv: tuple[str, ...]
    options: tuple[str, ...] = ()
    program_argv: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    before: tuple[Program, ...] = ()


def plan_start(config: RunConfig) -> Start:
    """Plan the start of a machine's commands. Several commands share an interpreter, because OSv cannot start another.

    Raises UNSUPPORTED for several commands that are not all Python programs with the same options.
    """
    start, before = read(config.command), []
    for command in config.before:
        one = read(command)
        other = command if start.managed else config.command
        if not (one.managed and start.managed):
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                "OSv runs several config sets one after another only if all are Python programs, and "
                f"{other.argv[0]} is not one; start a machine for each",
            )
        if (one.argv, one.environment) != (start.argv, start.environment):
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                "OSv runs several config sets in one Python interpreter, but these need different options "
                f"(python_args, {', '.join(f'{prefix}…' for prefix in BEFORE_START)}); start a machine for each",
            )
        before.append(Program(argv=one.program_argv, env=command.env, cwd=command.cwd))
    return replace(start, before=tuple(before))


def read(command: Command) -> Start:
    """Plan the start of a command. Python without a program (for a prompt or --version) starts directly."""
    if PYTHON.fullmatch(posixpath.basename(command.argv[0])):
        options, argv = split_python(command.argv[1:])
        if argv:
            early = {name: value for name, value in command.env.items() if name.startswith(BEFORE_START)}
            return Start(
                managed=True,
                argv=(_path(command.argv[0]), *options, "-m", START_PACKAGE),
                program_argv=argv,
                environment={"LANG": BASE_ENVIRONMENT["LANG"], **early},
            )
    return Start(
        managed=False,
        argv=(_path(command.argv[0]), *command.argv[1:]),
        options=(option("cwd", command.cwd),),
        environment={**BASE_ENVIRONMENT, **command.env},
    )


def addresses_are_fixed(config: RunConfig) -> bool:
    """Return whether all cards have fixed addresses. OSv uses either fixed addresses or DHCP for all cards."""
    return all(card.address for card in config.nics)


def config_tree(config: RunConfig, start: Start) -> Tree:
    """Return the files of a machine's configuration disk. Raises UNSUPPORTED."""
    if config.secrets and not start.managed:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED, "a machine on OSv receives secrets only when its command is a Python program"
        )
    nameserver = next((card.nameserver for card in config.nics if card.nameserver), "")
    tree = Tree()
    if not start.managed:
        hosts = "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **config.hosts}.items())
        tree.add("hosts", regular(hosts.encode()))
        tree.add("resolv.conf", regular(f"nameserver {nameserver}\noptions use-vc\n".encode()))
        return tree
    settings = Settings(
        hostname=config.hostname,
        argv=start.program_argv,
        env=config.command.env,
        cwd=config.command.cwd,
        hosts=config.hosts,
        volumes=tuple(mount.path for mount in config.mounts),
        nameserver=nameserver,
        cards=() if addresses_are_fixed(config) else tuple(f"eth{number}" for number in range(len(config.nics))),
        channels={"address": CHANNEL_ADDRESS, **PORTS},
        secrets=config.secrets,
        before=start.before,
    )
    tree.add("config.json", regular(msgspec.json.encode(settings)))
    return tree


def _path(name: str) -> str:
    """Return the path of a program. A name without a slash is in /usr/bin, because OSv does not search PATH."""
    return name if "/" in name else f"/usr/bin/{name}"
