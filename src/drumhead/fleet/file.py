"""Read fleet.yaml. Errors name the file, the line and the reason."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar, get_args

from drumhead.errors import DrumheadError
from drumhead.fleet.plan import planned_machines, shared, shared_volume
from drumhead.fleet.records import MAX_COUNT, Fleet, HealthCheck, Member, RestartPolicy
from drumhead.machine.spec import options
from drumhead.machine.spec.options import LOCALHOST, find_clash
from drumhead.manifest.yaml_reader import Section, read_yaml
from drumhead.records import GuestName, variable_fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
MEMBER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
URL_PATH = re.compile(r"/(?:[A-Za-z0-9/._~!$&'()*+,;=:@?-]|%[0-9A-Fa-f]{2})*")
KEYS = (
    *("image", "guest", "run", "command", "count", "memory", "cpus", "env"),
    *("after", "health", "restart", "outgoing", "forward", "volumes", "secrets"),
)
HEALTH_KEYS = ("port", "path", "interval", "timeout", "recheck", "failures")


def read_fleet(path: Path, shown: str) -> Fleet:
    """Read the fleet in a file. `shown` is the file's name in messages. Raises MANIFEST, NOT_FOUND."""
    file = path.resolve()  # the user may name the file by a link
    top = read_yaml(file.parent, file.name, "the fleet file", shown)
    _refuse_unknown(top, ("name", "guest", "secrets", "members"))
    guest = _guest(top, "")
    name = top.text("name")
    if not MEMBER_NAME.fullmatch(name):
        raise top.refuse(
            "name", f"{name!r} is not a valid fleet name; use lower-case letters and digits, with - between them"
        )
    sections = top.section("members", "members")
    if not sections.keys():
        raise top.refuse("members", "a fleet needs at least one member")
    members = {name: _member(sections.section(name, f"member {name}"), name, guest) for name in sections.keys()}  # noqa: SIM118 - a Section is not a dict
    secrets = _secrets(top)
    for member_name, member in members.items():
        for secret in member.secrets:
            if secret not in secrets:
                raise sections.section(member_name, member_name).refuse("secrets", f"there is no secret named {secret}")
        for other in member.after:
            if other not in members:
                raise sections.section(member_name, member_name).refuse("after", f"there is no member named {other}")
    fleet = Fleet(name=name, members=members, secrets=secrets)
    try:
        planned_machines(fleet)
    except DrumheadError as error:
        raise top.refuse("members", error.message) from error
    _refuse_clashes(sections, fleet)
    return fleet


def _refuse_clashes(sections: Section, fleet: Fleet) -> None:
    """Refuse two members that need one port of the host, or write to one volume and never end."""
    earlier: dict[str, Member] = {}
    for name, member in fleet.members.items():
        if not member.count:
            continue
        for other_name, other in earlier.items():
            section = sections.section(name, f"member {name}")
            for forward in member.forwards:
                if find_clash(forward, other.forwards):
                    port = f"port {forward.host_port}/{forward.protocol}"
                    raise section.refuse("forward", f"{port} of the host is forwarded to {other_name} as well")
            if volume := shared_volume(member, other):
                raise section.refuse(
                    "volumes",
                    f"{volume} is a volume of {other_name} as well, and two machines cannot write to one disk",
                )
        earlier[name] = member


def _member(section: Section, name: str, guest: str) -> Member:
    _refuse_unknown(section, KEYS)
    if not MEMBER_NAME.fullmatch(name):
        raise section.refuse(
            "", f"{name!r} is not a valid member name; use lower-case letters and digits, with - between them"
        )
    if name == LOCALHOST:
        raise section.refuse("", f"{name} is the name by which every machine knows itself; choose another one")
    restart = section.text("restart", "on-failure")
    if restart not in get_args(RestartPolicy):
        raise section.refuse("restart", f"restart must be one of {', '.join(get_args(RestartPolicy))}, not {restart}")
    forwards = _parsed(section, "forward", options.read_forwards)
    volumes = _parsed(section, "volumes", options.read_volumes)
    count = _number(section, "count", 1, 0, MAX_COUNT)
    key, reason = shared(forwards, volumes)
    if count > 1 and key:
        raise section.refuse(key, reason)
    if "run" in section and "command" in section:
        raise section.refuse("command", "run and command both choose the command; remove one of them")
    outgoing = section.flag("outgoing", default=True)
    if not outgoing and any(forward.protocol == "udp" for forward in forwards):
        raise section.refuse("forward", f"outgoing is false; {options.UDP_IS_OUTGOING}")
    return Member(
        image=section.text("image"),
        guest=_guest(section, guest),
        config_set=section.text("run", ""),
        command=section.text("command", ""),
        count=count,
        memory=_value(section, "memory", options.read_memory, 256),
        cpus=_number(section, "cpus", 1, 1, options.MAX_CPUS),
        env=_variables(section),
        after=section.texts("after"),
        health=_health(section.section("health", "health")) if "health" in section else None,
        restart=restart,  # type: ignore[arg-type]  # one of the literals, as just checked
        outgoing=outgoing,
        forwards=forwards,
        volumes=volumes,
        secrets=section.texts("secrets"),
    )


def _variables(section: Section) -> dict[str, str]:
    variables = section.pairs("env")
    for name, value in variables.items():
        if fault := variable_fault(name, value):
            raise section.section("env", "env").refuse(name, fault)
    return variables


def _secrets(top: Section) -> tuple[str, ...]:
    names = top.texts("secrets")
    for name in names:
        if not MEMBER_NAME.fullmatch(name):
            raise top.refuse(
                "secrets", f"{name!r} is not a valid name of a secret; use lower-case letters and digits, with -"
            )
    return names


def _guest(section: Section, default: str) -> str:
    guest = section.text("guest", default)
    if guest and guest not in get_args(GuestName):
        raise section.refuse("guest", f"guest must be one of {', '.join(get_args(GuestName))}, not {guest}")
    return guest


def _health(section: Section) -> HealthCheck:
    _refuse_unknown(section, HEALTH_KEYS)
    section.text("port")
    path = section.text("path", "")
    if path and not path.startswith("/"):
        raise section.refuse("path", f"path must start with a slash, like /readyz, not {path}")
    if path and not URL_PATH.fullmatch(path):
        raise section.refuse("path", f"{path!r} is not the path of a URL; write other characters as %20")
    return HealthCheck(
        port=_number(section, "port", 0, 1, 65535),
        path=path,
        interval=_value(section, "interval", _seconds, 0.25),
        timeout=_value(section, "timeout", _seconds, 120.0),
        recheck=_value(section, "recheck", _seconds, 10.0),
        failures=_number(section, "failures", 6, 0, 1000),
    )


def _refuse_unknown(section: Section, known: tuple[str, ...]) -> None:
    for key in section.keys():  # noqa: SIM118
        if key not in known:
            raise section.refuse(key, f"{section.what} has no key {key}; it has: {', '.join(known)}")


def _number(section: Section, key: str, default: int, least: int, most: int) -> int:
    text = section.text(key, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not least <= int(text) <= most:
        raise section.refuse(key, f"{key} must be a number from {least} to {most}, not {text}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 3600:
        raise options.usage(f"{text!r} is not a duration in seconds; write 0.5 or 30")
    return seconds


def _value(section: Section, key: str, read: Callable[[str], T], default: T) -> T:
    if key not in section:
        return default
    try:
        return read(section.text(key))
    except DrumheadError as error:
        raise section.refuse(key, error.message) from error


def _parsed(section: Section, key: str, read: Callable[[tuple[str, ...]], T]) -> T:
    try:
        return read(section.texts(key))
    except DrumheadError as error:
        raise section.refuse(key, error.message) from error
