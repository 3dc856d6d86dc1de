"""Find the accounts that installation scripts of Debian packages create. The scripts are read and never run."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from drumhead.debian.accounts import NAME, Accounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_COMMAND = re.compile(r"(?:^|[;&|]|\bthen\b|\bdo\b)\s*(?:/usr/sbin/)?(?:adduser|useradd)\s(.*)", re.MULTILINE)
_ASSIGNMENT = re.compile(r"""^\s*([A-Za-z_]+)=["']?(?:\$\{[A-Za-z_]+:?[=-])?([^"'$}\s;]+)\}?["']?\s*$""", re.MULTILINE)
_LOOP = re.compile(r"^\s*for[ \t]+([A-Za-z_]+)[ \t]+in[ \t]+([^;\n]+)", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]+)\}?")
_AFTER = re.compile(r"\|\||&&|[;|>]|\s2>")
"""What follows a command in its line."""
_WITH_VALUE = {"home", "shell", "gecos", "comment", "uid", "gid", "ingroup", "firstuid", "lastuid", "home-dir", "conf"}
_SHORT = {"d": "home", "g": "ingroup", "s": "shell", "c": "comment", "u": "uid", "r": "system"}
_LONG = {"home-dir": "home", "gid": "ingroup"}


def created_accounts(scripts: Iterable[str]) -> list[str]:
    """Return lines of sysusers.d(5) for the system accounts that scripts create with adduser or useradd.

    A script can compute names in any way, so accounts may be missing.
    """
    lines: dict[str, None] = {}
    for script in scripts:
        assigned = dict(_ASSIGNMENT.findall(script))
        loops = {name: _replaced(words, assigned).split() for name, words in _LOOP.findall(script)}
        for words in _COMMAND.findall(script.replace("\\\n", " ")):
            looped = next((found[1] for found in _VARIABLE.finditer(words) if found[1] in loops), "")
            for value in loops.get(looped, [""]):
                command = _replaced(words, {**assigned, looped: value})
                lines.update(dict.fromkeys(_account(_AFTER.split(command)[0])))
    return list(lines)


def _replaced(words: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: variables.get(found[1], found[0]), words)


def _account(words: str) -> Iterator[str]:
    """Yield the lines for one command, if it creates a system account whose name can be told."""
    options, names = _options(words)
    known = Accounts()
    if "system" not in options or len(names) != 1 or names[0] in known.users or not NAME.fullmatch(names[0]):
        return
    home = options.get("home", "")
    home = home if home.startswith("/") else "-"
    group = options.get("ingroup", "")
    if group in {"", names[0]} or not NAME.fullmatch(group):
        yield f"u {names[0]} - - {home}"
        return
    if group not in known.groups:
        yield f"g {group} -"
    yield f"u {names[0]} -:{group} - {home}"


def _options(words: str) -> tuple[dict[str, str], list[str]]:
    """Return the options and the other words of a command."""
    options, others = {}, []
    try:
        rest = shlex.split(words)[::-1]
    except ValueError:
        return {}, []
    while rest:
        word = rest.pop()
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        name, _, value = word.lstrip("-").partition("=")
        name = _SHORT.get(name, name)
        if name in _WITH_VALUE and not value and rest:
            value = rest.pop()
        options[_LONG.get(name, name)] = value
    return options, others
