"""Find locales that config sets ask for and the image lacks.

C and POSIX are part of libc. C.UTF-8, the default in machines, comes with Python; most other programs do without it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from drumhead.closure import follow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drumhead.closure import Index
    from drumhead.records import Command

VARIABLE = re.compile(r"LANG|LC_[A-Z]+")
NOT_MISSED = ("", "C", "POSIX", "C.UTF-8", "C.utf8")
PLACE = "usr/lib/locale"
ARCHIVE = f"{PLACE}/locale-archive"
LOCALE = re.compile(r"([A-Za-z_]+)(?:\.([A-Za-z0-9-]+))?(@[A-Za-z0-9]+)?")


def locale_notices(index: Index, commands: Mapping[str, Command]) -> list[str]:
    """Return a notice for each locale that a config set asks for and the image does not have.

    A missing locale is not an error, because only programs that use libc's locales need it. Node.js and Java do not.
    """
    asked: dict[str, str] = {}
    for name, command in commands.items():
        for variable, value in command.env.items():
            if VARIABLE.fullmatch(variable) and value not in NOT_MISSED:
                asked.setdefault(value, f"{variable} of config set {name}")
    return [
        f"{where} is {value}, a locale that the image does not have, so libc uses C{_advice(value)}"
        for value, where in asked.items()
        if not _has(index, value)
    ]


def _has(index: Index, value: str) -> bool:
    return bool(follow(index, f"/{ARCHIVE}")) or any(
        follow(index, f"/{PLACE}/{name}/LC_CTYPE") for name in (value, *_directories(value))
    )


def _directories(value: str) -> Iterator[str]:
    """Yield the name of the directory in which libc looks for a locale: de_DE.utf8@euro for de_DE.UTF-8@euro."""
    if match := LOCALE.fullmatch(value):
        charset = re.sub(r"[^a-z0-9]", "", (match[2] or "").lower())
        yield f"{match[1]}{'.' if charset else ''}{charset}{match[3] or ''}"


def _advice(value: str) -> str:
    match = LOCALE.fullmatch(value)
    if not match:
        return ""
    directory = next(_directories(value))
    command = f"localedef -i {match[1]}{match[3] or ''} -f {match[2] or 'ISO-8859-1'} {PLACE}/{directory}"
    return f". To add it to the project: mkdir -p {PLACE} && {command}"
