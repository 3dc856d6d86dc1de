"""Find the command with which a Debian package starts its server, and the directories that systemd makes for it.

Both are in its systemd units. Nothing is run.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from drumhead.tree import Tree

UNITS = ("lib/systemd/system/", "usr/lib/systemd/system/")
TEMPORARY = ("lib/tmpfiles.d/", "usr/lib/tmpfiles.d/")
_SETTING = re.compile(r"^(Type|Requires|ExecStart|Environment|EnvironmentFile)[ \t]*=[ \t]*(.*)$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"^[ \t]*([A-Za-z_]\w*)=(.*)$", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_MADE = {
    "RuntimeDirectory": "run",
    "StateDirectory": "var/lib",
    "CacheDirectory": "var/cache",
    "LogsDirectory": "var/log",
}
"""Settings with directories that systemd makes before it starts a server (systemd.exec(5)), and where they are."""
_DIRECTORY = re.compile(rf"^({'|'.join(_MADE)}|User)[ \t]*=[ \t]*(.*)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_VOLATILE = re.compile(r"^[ \t]*[dD][!=~^+-]*[ \t]+(\S+)(?:[ \t]+\S+)?(?:[ \t]+(\S+))?", re.MULTILINE)
"""A directory that systemd makes when it starts, and its user (tmpfiles.d(5))."""
_PREPARED = re.compile(r"^ExecStartPre[ \t]*=[ \t]*[-@:+!]*(?:/usr)?/bin/(mkdir|chown)[ \t](.*)$", re.MULTILINE)
"""A command with which a unit makes a directory itself, or gives it to a user."""


@dataclass(frozen=True)
class Server:
    """The command of a systemd unit."""

    argv: list[str]
    background: bool
    """Whether the command ends while the server goes on."""


def server_command(files: Tree, programs: Collection[str], names: Collection[str]) -> Server | None:
    """Return the command of the unit that runs one of `programs`, or None if there is none.

    A unit that runs it in the foreground is preferred, then one that is called like one of `names`. Variables have the
    values that the unit and its files give.
    """
    found: dict[str, Server] = {}
    for path, entry in files:
        unit = posixpath.basename(path).removesuffix(".service")
        if not (path.startswith(UNITS) and path.endswith(".service") and entry.kind == "file" and "@" not in unit):
            continue
        server = _server(files, entry.read().decode(errors="replace"))
        if server and server.argv[0].strip("/") in programs:
            found[unit] = server
    chosen = min(found, key=lambda unit: (found[unit].background, unit not in names, unit), default=None)
    return found[chosen] if chosen else None


def server_directories(files: Tree, program: str) -> dict[str, str]:
    """Return the directories that systemd makes for the server `program`, each with its user, or with an empty text.

    They are in the package's tmpfiles.d(5), and in the settings and the preparations (mkdir, chown) of its unit.
    """
    made: list[tuple[str, str]] = []
    texts = {path: entry.read().decode(errors="replace") for path, entry in files if _is_systemd(path, entry.kind)}
    for path, text in texts.items():
        if path.startswith(TEMPORARY):
            made += [(place, user) for name, user in _VOLATILE.findall(text) if (place := _data_place(name))]
    for unit in (text.replace("\\\n", " ") for path, text in texts.items() if path.startswith(UNITS)):
        if re.search(rf"^ExecStart[ \t]*=[ \t]*[-@:+!]*/{re.escape(program)}(\s|$)", unit, re.MULTILINE):
            made += _unit_directories(unit).items()
    # What names a user counts, in whichever order: squid's unit makes its directory for root, and tmpfiles.d for proxy.
    return {place: "" for place, _ in made} | {place: user for place, user in made if user}


def _is_systemd(path: str, kind: str) -> bool:
    return kind == "file" and path.startswith((*UNITS, *TEMPORARY)) and "@" not in path


def _unit_directories(unit: str) -> dict[str, str]:
    settings = _DIRECTORY.findall(unit)
    user = next((value.strip() for key, value in settings if key == "User"), "")
    names = [(key, name) for key, value in settings if key in _MADE for name in value.split()]
    found = {f"{_MADE[key]}/{name}": user for key, name in names if _NAME.fullmatch(name) and ".." not in name}
    for command, text in _PREPARED.findall(unit):
        words = text.split()
        places = [place for word in words if (place := _data_place(word))]
        owner = next((word for word in words if not word.startswith("-")), "").partition(":")[0]
        found |= dict.fromkeys(places, owner) if command == "chown" else dict.fromkeys(places, user)
    return found


def _data_place(path: str) -> str:
    """Return where a directory for the data of a server is, or an empty text if this is no path of one."""
    place = re.sub("^/var/run/", "/run/", path).strip("/")
    plain = path.startswith("/") and _NAME.fullmatch(place) and ".." not in place
    return place if plain and place.startswith(("run/", "var/")) else ""


def _server(files: Tree, unit: str) -> Server | None:
    """Return the command of a unit (systemd.service(5)), or None if it cannot be told."""
    settings = _SETTING.findall(unit.replace("\\\n", " "))
    started = [value for key, value in settings if key == "ExecStart" and value]
    needs_socket = any(key == "Requires" and ".socket" in value for key, value in settings)  # only systemd opens it
    types = {value.strip() for key, value in settings if key == "Type"}
    if needs_socket or "oneshot" in types or len(started) != 1:
        return None
    known: dict[str, str] = {}
    try:
        for key, value in settings:
            if key == "Environment":
                known |= dict(word.split("=", 1) for word in shlex.split(value) if "=" in word)
        for key, value in settings:
            entry = files.get(value.strip().lstrip("-/")) if key == "EnvironmentFile" else None
            if entry and entry.kind == "file":
                text = entry.read().decode(errors="replace")
                known |= {name: " ".join(shlex.split(set_to)) for name, set_to in _ASSIGNMENT.findall(text)}
        words = [
            word
            for one in shlex.split(started[0].lstrip("-@:+!"), posix=False)
            for word in shlex.split(_VARIABLE.sub(lambda match: known.get(match[1], ""), one))
        ]
    except ValueError:
        return None
    known_all = words and not any("%" in word or "$" in word for word in words)
    return Server(words, background="forking" in types) if known_all else None
