"""How a command starts on OSv: Python programs under our start program, which OSv's host can talk to; others alone."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from drumhead.guest.contract import CHANNEL_ADDRESS
from drumhead.guest.osv.skeleton import START_PACKAGE
from drumhead.tree import Tree, regular

if TYPE_CHECKING:
    from drumhead.guest.contract import RunConfig
    from drumhead.records import Command

PYTHON = re.compile(r"python(3(\.[0-9]+)?)?")
WITH_VALUE = frozenset("WX")
"""The interpreter's options that take the next word when nothing follows the letter."""
OWN_FILES = "/run/drumhead"
"""Where /etc/hosts and /etc/resolv.conf lead (``skeleton``)."""
PORTS = {"log": 1, "status": 2, "control": 3}
BEFORE_START = ("PYTHON", "LD_", "GLIBC_", "MALLOC_")
"""Variables that count before the start program can set them."""
BASE_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
SEARCH_PATH = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """``config.json``, read by the start program. `words` follow the interpreter's own options.

    `cards` are those that asked for their addresses, which the host is told.
    """

    hostname: str
    words: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    hosts: dict[str, str]
    volumes: tuple[str, ...]
    nameserver: str
    cards: tuple[str, ...] = ()
    channels: dict[str, str | int] = {}


@dataclass(frozen=True, kw_only=True)
class Start:
    """What follows OSv's options: `argv` for the loader of libc. `managed` programs run under the start program."""

    managed: bool
    argv: tuple[str, ...]
    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def read(command: Command) -> Start:
    """Split a command. One of Python without a program (a prompt, --version) is started alone."""
    if PYTHON.fullmatch(posixpath.basename(command.argv[0])):
        options, words = split_python(command.argv[1:])
        if words:
            early = {name: value for name, value in command.env.items() if name.startswith(BEFORE_START)}
            return Start(
                managed=True,
                argv=(_path(command.argv[0]), *options, "-m", START_PACKAGE),
                words=words,
                environment={"LANG": BASE_ENVIRONMENT["LANG"], **early},
            )
    return Start(
        managed=False,
        argv=(_path(command.argv[0]), *command.argv[1:]),
        environment={**BASE_ENVIRONMENT, **command.env},
    )


def split_python(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the interpreter's options, and the program: ``-m MODULE …``, ``-c CODE …``, ``FILE …``; empty without one."""
    for at, word in enumerate(words):
        if at and words[at - 1] in {"-W", "-X", "--check-hash-based-pycs"}:
            continue
        if not word.startswith("-"):
            return words[:at], words[at:]
        if word == "-" or word.startswith("--"):
            if word == "--check-hash-based-pycs":
                continue
            return words, ()
        for place, letter in enumerate(word[1:], 1):
            if letter in "mc":  # the rest of the word, or the next one
                before = (*words[:at], word[:place]) if place > 1 else words[:at]
                rest = (word[place + 1 :], *words[at + 1 :]) if word[place + 1 :] else words[at + 1 :]
                return before, (f"-{letter}", *rest) if rest else ()
            if letter in WITH_VALUE:
                break
            if letter in "hV?":
                return words, ()
    return words, ()


def addresses_are_fixed(config: RunConfig) -> bool:
    """OSv has either fixed addresses or DHCP, for all of its cards."""
    return all(card.address for card in config.nics)


def config_tree(config: RunConfig, start: Start) -> Tree:
    """Return the files of a machine's configuration disk."""
    nameserver = next((card.nameserver for card in config.nics if card.nameserver), "")
    tree = Tree()
    if not start.managed:
        hosts = "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **config.hosts}.items())
        tree.add("hosts", regular(hosts.encode()))
        tree.add("resolv.conf", regular(f"nameserver {nameserver}\noptions use-vc\n".encode()))
        return tree
    settings = Settings(
        hostname=config.hostname,
        words=start.words,
        env=config.command.env,
        cwd=config.command.cwd,
        hosts=config.hosts,
        volumes=tuple(mount.path for mount in config.mounts),
        nameserver=nameserver,
        cards=() if addresses_are_fixed(config) else tuple(f"eth{number}" for number in range(len(config.nics))),
        channels={"address": CHANNEL_ADDRESS, **PORTS},
    )
    tree.add("config.json", regular(msgspec.json.encode(settings)))
    return tree


def _path(name: str) -> str:
    """Return a program by its path; a plain name is one of /usr/bin, as nobody looks it up."""
    return name if "/" in name else f"/usr/bin/{name}"
