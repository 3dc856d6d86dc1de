"""The accounts of a machine: those of every Debian, and those that sysusers.d(5) files declare.

Debian's packages create further accounts in installation scripts, which drumhead does not run. Packages and projects
declare them in files of this format instead.
"""

from __future__ import annotations

import re
import shlex
import zlib
from typing import TYPE_CHECKING, NamedTuple

from drumhead.errors import manifest_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from drumhead.tree import Tree

DECLARATIONS = "usr/lib/sysusers.d/"
PASSWD, GROUP = "etc/passwd", "etc/group"
NO_SHELL = "/usr/sbin/nologin"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}")
FIRST_NUMBER, LAST_NUMBER = 101, 899
"""The numbers of accounts without one of their own. Debian's scripts take theirs from 100 to 999 too."""
MAX_NUMBER = 65_533
MOST_DECLARED = 1000
"""The most lines with accounts that an image may have; a Debian with everything has some hundred."""

DEBIAN_USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
games:x:5:60:games:/usr/games:/usr/sbin/nologin
man:x:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:x:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
news:x:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:x:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:x:13:13:proxy:/bin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
backup:x:34:34:backup:/var/backups:/usr/sbin/nologin
list:x:38:38:list:/var/list:/usr/sbin/nologin
irc:x:39:39:irc:/run/ircd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
DEBIAN_GROUPS = """\
root 0 daemon 1 bin 2 sys 3 adm 4 tty 5 disk 6 lp 7 mail 8 news 9 uucp 10 man 12 proxy 13 kmem 15 dialout 20 tape 26
audio 29 www-data 33 backup 34 list 38 irc 39 src 40 shadow 42 utmp 43 video 44 sasl 45 plugdev 46 staff 50 games 60
users 100 nogroup 65534
"""
"""The accounts of Debian's package base-passwd, which have the same numbers on every Debian."""


class User(NamedTuple):
    """A user. `group` is the name of its group, and equal to its own name unless the declaration says otherwise."""

    uid: int
    group: str
    comment: str
    home: str
    shell: str


class Declaration(NamedTuple):
    """One line of a sysusers.d file. `place` is its file and line; `number` and `group` are empty if not given.

    `rest` are the comment, the home and the shell of a user, as far as they are given.
    """

    place: tuple[str, int]
    kind: str
    name: str
    number: str
    group: str
    rest: tuple[str, ...]


class Accounts:
    """The users and groups of an image, by name."""

    def __init__(self, declarations: Iterable[tuple[str, str]] = ()) -> None:
        """Take Debian's accounts and those that files, given as path and text, declare.

        Raises MANIFEST with file and line for a declaration that is not valid, or that gives one number to two accounts
        or two numbers to one.
        """
        names = re.findall(r"(\S+) ([0-9]+)", DEBIAN_GROUPS)
        self.groups = {name: int(number) for name, number in names}
        self.users: dict[str, User] = {}
        self._members: dict[str, list[str]] = {}
        by_number = {number: name for name, number in self.groups.items()}
        for line in DEBIAN_USERS.splitlines():
            name, _, uid, gid, comment, home, shell = line.split(":")
            self.users[name] = User(int(uid), by_number[int(gid)], comment, home, shell)
        found: list[Declaration] = []
        for file, text in declarations:
            found += _read(file, text)
            if len(found) > MOST_DECLARED:
                raise manifest_error(file, 1, f"an image may declare at most {MOST_DECLARED} accounts")
        for kind, add in (("g", self._add_group), ("u", self._add_user), ("m", self._add_member)):
            # A number that is given decides, so it comes first.
            for declared in sorted(found, key=lambda declared: not declared.number):
                if declared.kind == kind:
                    add(declared)

    def files(self) -> dict[str, str]:
        """Return /etc/passwd and /etc/group: their paths in the image and their texts."""
        users = [
            f"{name}:x:{user.uid}:{self.groups[user.group]}:{user.comment}:{user.home}:{user.shell}\n"
            for name, user in self.users.items()
        ]
        groups = [
            f"{name}:x:{number}:{','.join(self._members.get(name, ()))}\n" for name, number in self.groups.items()
        ]
        return {PASSWD: "".join(users), GROUP: "".join(groups)}

    def numbers(self, owner: str) -> tuple[int, int]:
        """Return the numbers of ``USER`` and its group, or of ``USER:GROUP``. Raises KeyError with an unknown name."""
        name, _, group = owner.partition(":")
        uid = int(name) if name.isdecimal() else self.users[name].uid
        if group:
            return uid, int(group) if group.isdecimal() else self.groups[group]
        return uid, uid if name.isdecimal() else self.groups[self.users[name].group]

    def _add_group(self, line: Declaration) -> None:
        self._check(line, "group", line.number, self.groups)
        self.groups.setdefault(line.name, _number(line.number, line.name))

    def _add_user(self, line: Declaration) -> None:
        self._check(line, "user", line.number, {name: user.uid for name, user in self.users.items()})
        if line.name in self.users:
            return
        uid = _number(line.number, line.name)
        comment, home, shell = map(_given, (*line.rest, "", "", "")[:3])
        self.users[line.name] = User(uid, self._group_of(line, uid), comment, home or "/", shell or NO_SHELL)

    def _group_of(self, line: Declaration, uid: int) -> str:
        """Return the name of a user's group, which has its name and number unless the line gives another."""
        group = line.group or line.name
        if group.isdecimal():
            known = next((name for name, number in self.groups.items() if number == int(group)), "")
        else:
            known = group if group in self.groups else ""
        if not known and line.group:
            raise manifest_error(*line.place, f"there is no group {group}; declare it with a line that begins with g")
        if not known:
            self._check(line, "group", str(uid), self.groups)
            self.groups[group] = uid
        return known or group

    def _add_member(self, line: Declaration) -> None:
        for what, name, known in (("user", line.name, self.users), ("group", line.group, self.groups)):
            if name not in known:
                raise manifest_error(*line.place, f"there is no {what} {name}")
        members = self._members.setdefault(line.group, [])
        if line.name not in members:
            members.append(line.name)

    def _check(self, line: Declaration, what: str, number: str, numbers: dict[str, int]) -> None:
        """Refuse a second number for a name, and a second name for a number."""
        if line.name in numbers:
            if number and numbers[line.name] != int(number):
                known = numbers[line.name]
                raise manifest_error(
                    *line.place, f"the {what} {line.name} has the number {known} already, not {number}"
                )
            return
        wanted = _number(number, line.name)
        taken = next((name for name, used in numbers.items() if used == wanted), None)
        if taken is not None:
            raise manifest_error(
                *line.place, f"the {what} {line.name} would have the number {wanted} of {taken}; give it another number"
            )


def declarations(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield the path and text of each sysusers.d file of a tree."""
    for path, entry in tree:
        if is_declaration(path) and entry.kind == "file":
            yield path, entry.read().decode(errors="replace")


def is_declaration(path: str) -> bool:
    """Return whether a path of an image is that of a sysusers.d file."""
    return path.startswith(DECLARATIONS) and path.endswith(".conf")


def _read(file: str, text: str) -> Iterator[Declaration]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            fields = shlex.split(line)
        except ValueError as error:
            raise manifest_error(file, number, f"it is not a line of sysusers.d(5): {error}") from error
        if declared := _declaration((file, number), fields):
            yield declared


def _declaration(place: tuple[str, int], fields: list[str]) -> Declaration | None:
    """Return what a line declares, or None if it says nothing about an image."""
    kind, name, number, *rest = (*fields, "", "")[: max(3, len(fields))]
    kind = kind.removesuffix("!")  # an account that nobody can log in to, as all are
    if kind == "r":
        return None  # a range of numbers, for installations
    if kind not in {"u", "g", "m"}:
        raise manifest_error(*place, f"a line begins with u, g or m, not {kind}")
    for each in (name, number) if kind == "m" else (name,):
        if not NAME.fullmatch(each):
            raise manifest_error(*place, f"{each!r} is not the name of a user or group")
    if any(":" in field for field in rest):
        raise manifest_error(*place, "a comment, a home and a shell hold no colon")
    if kind == "m":
        return Declaration(place, kind, name, "", number, ())
    number, _, group = number.partition(":")
    number = "" if number.startswith("/") else _given(number)  # that of the owner of a file, in an installation
    for each in (number, group if group.isdigit() else ""):
        if each and not (each.isdecimal() and int(each) <= MAX_NUMBER):
            raise manifest_error(*place, f"the number of {name} is 0 to {MAX_NUMBER}, not {each}")
    return Declaration(place, kind, name, number, group, tuple(rest))


def _given(field: str) -> str:
    return "" if field == "-" else field


def _number(given: str, name: str) -> int:
    """Return the number of an account: the given one, or else one that depends on the name alone.

    The files of a package belong to numbers, so an account must get the same number in every image.
    """
    if given:
        return int(given)
    return FIRST_NUMBER + zlib.crc32(name.encode()) % (LAST_NUMBER - FIRST_NUMBER + 1)
