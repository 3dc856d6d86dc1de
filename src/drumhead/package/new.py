"""Write a recipe to start from, with the files of the Debian package and an explanation of every key."""

from __future__ import annotations

import asyncio
import difflib
import json
import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from drumhead.debian.accounts import Accounts, declarations
from drumhead.debian.archive import Archive
from drumhead.debian.deb import read_deb, read_scripts
from drumhead.debian.scripts import created_accounts
from drumhead.debian.services import UNITS, server_command, server_directories
from drumhead.debian.sources import find_suites
from drumhead.download import new_client
from drumhead.elf import MAGIC
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.package.recipe import known_recipes
from drumhead.package.records import PACKAGE_NAME
from drumhead.report import silent
from drumhead.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from drumhead.debian.archive import DebianPackage
    from drumhead.home import Home
    from drumhead.report import Report

VERSION = re.compile(r"[0-9.]+")
PROGRAMS = ("usr/bin/", "usr/sbin/")
VERSIONED = re.compile(r"(?P<name>.+?)-?[0-9]+[.][0-9.]+")
"""The name of a program with a version, such as php8.2. Debian makes its plain name in scripts that are not run."""
DECLARED = re.compile(r"^u!?[ \t]+(\S+)", re.MULTILINE)
"""The user that a line of sysusers.d(5) declares."""
PLAIN = re.compile(r"[/-][A-Za-z/-][A-Za-z0-9_./=-]*")
"""A word that YAML reads as it is without quotes."""
INSTALLED = ("binfmt.d", "modules-load.d", "pm-utils", "sysctl.d", "systemd", "tmpfiles.d", "udev")
"""Directories of /usr/lib that only an installed Debian reads."""
OF_THE_SYSTEM = re.compile(
    r"apparmor|apt|bash_completion[.]d|cron|dbus|default$|dhcp|init|insserv|logcheck|logrotate|modprobe|[nN]etwork|pam[.]d"
    r"|polkit|ppp|profile[.]d|rc.?[.]d|resolvconf|rsyslog|runit|security|sudoers|sv$|sysctl|systemd|udev|ufw|update-|X11|xdg"
)
"""Names in /etc of what only an installed Debian reads."""
SERVICES = ("etc/init.d/", *UNITS)
"""Where packages of servers have files for starting them."""
TEMPLATE = """\
# A recipe: drumhead package build --recipe {file}
name: {name}
# application, tool, runtime or libraries. The config sets of an application belong to every image that requires it.
kind: {kind}
description: {description}
# The Debian package whose version is used, and the packages to take files from. Their dependencies are not added,
# except shared libraries that the chosen programs need; list the packages of further programs and data here.
version_of: {package}
debian: [{debian}]
# The files to take; ** crosses directories. Without this key, the package has everything but documentation.
include:
{include}
# OPTIONAL. Files to leave out.
# exclude:
#   - usr/share/{package}/examples
{created}
{links}
# OPTIONAL. Other drumhead packages that this one needs, such as cli for a shell.
# requires: [cli]
# Commands: use them with drumhead run --run {name}, or base: {name}:{name} in the meta/run.yaml of a project.
{foreground}config_sets:
  {name}: {{argv: [{command}]}}
# The command that `drumhead package test --recipe {file}` runs in a machine, and the output that it must print.
demo:
  command: [{program}, --version]
  output: "TODO: what it prints"
"""


CREATED = """\
# OPTIONAL. Installation scripts of Debian packages are not run; write the files that they would create here. Files
# usr/lib/sysusers.d/NAME.conf declare accounts (sysusers.d(5)), and `owners` gives files to them.
# files:
#   etc/{package}.conf: |
#     setting = value
{made}"""
CREATED_ACCOUNTS = """\
# Installation scripts of Debian packages are not run; write the files that they would create here. Those of this
# package create the following accounts (sysusers.d(5)). `owners` gives files and directories to accounts.
files:
  usr/lib/sysusers.d/{name}.conf: |
{accounts}
{made}"""
FOREGROUND = """\
# Its systemd unit lets this command go on in the background, but a machine ends with its command: add the option that
# keeps it in the foreground.
"""
NO_DIRECTORIES = """\
# directories: [data]
# owners: {data: www-data}"""


@dataclass(frozen=True)
class Source:
    """A Debian package to write a recipe for."""

    package: str
    description: str
    files: Tree
    accounts: Sequence[str] = ()
    """Lines of sysusers.d(5) for the accounts that its scripts create."""
    others: Sequence[str] = ()
    """Packages whose files are among `files` too."""


async def write_recipe(home: Home, name: str, package: str, file: Path, report: Report = silent) -> str:
    """Write a recipe called `name` for the Debian package `package`, with the package's programs, into `file`.

    If the package has no programs, or only scripts and links, take those of a package that it depends on and that has a
    similar name, if that has any (perl-base, ruby3.1, php8.2-cli). A server gets the files of both, and of packages of
    data. Return the name of the package whose programs were taken.

    Raises CONFLICT if the file exists or the name is taken, NOT_FOUND for an unknown package, USAGE, UNVERIFIED,
    REMOTE.
    """
    if not re.fullmatch(PACKAGE_NAME, name):
        raise DrumheadError(
            ErrorCode.USAGE, f"{name!r} is not a package name (letters and digits, with . _ + - / inside)"
        )
    if name in known_recipes():
        raise DrumheadError(ErrorCode.CONFLICT, f"{name} is a package of drumhead; choose another name")
    if await asyncio.to_thread(file.exists):
        raise DrumheadError(ErrorCode.CONFLICT, f"{file} already exists; edit it, or delete it first")
    async with new_client() as client:
        archive = await Archive.open(client, home.cache / "debian", find_suites())
        try:
            found = archive.find(package)
        except DrumheadError as error:
            near = difflib.get_close_matches(package, archive.names(), n=3)
            hint = f"; there are {', '.join(near)}" if near else ""
            raise DrumheadError(error.code, f"{error.message}{hint}") from error
        source = await _with_programs(archive, found, report)
    text = recipe_text(name, source, file.name)
    try:
        await asyncio.to_thread(file.write_text, text)
    except OSError as error:
        raise DrumheadError(ErrorCode.USAGE, f"{file} cannot be written: {error.strerror}") from error
    return source.package


async def _with_programs(archive: Archive, found: DebianPackage, report: Report) -> Source:
    """Return what to write a recipe for: `found`, or the dependency that has its programs.

    A server also has the files of both (tinyproxy, tinyproxy-bin), and those of the data that it depends on.
    """
    first = await _source(archive, found, report)
    own = first
    for dependency in () if _binaries(first.files) else _dependencies(archive, found, is_related):
        other = await _source(archive, dependency, report)
        if _binaries(other.files) or (_programs(other.files) and not _programs(first.files)):
            own = other
            break
    if not _is_server(first.files):
        return own
    data = [await _source(archive, one, report) for one in _dependencies(archive, found, _is_data)]
    return _together([own, *([first] if own is not first else []), *data])


async def _source(archive: Archive, package: DebianPackage, report: Report) -> Source:
    deb = await archive.fetch(package, report)
    files, _ = await asyncio.to_thread(read_deb, deb)
    return Source(package.name, package.description, files, created_accounts(read_scripts(deb).values()))


def _together(sources: Sequence[Source]) -> Source:
    """Return the files and accounts of all sources, with the name and the description of the first one."""
    files = Tree()
    for source in reversed(sources):
        for path, entry in source.files:
            files.add(path, entry)
    accounts = dict.fromkeys(line for source in sources for line in source.accounts)
    others = [source.package for source in sources[1:]]
    return replace(sources[0], files=files, accounts=list(accounts), others=others)


def _dependencies(archive: Archive, package: DebianPackage, chosen: Callable[[str, str], bool]) -> list[DebianPackage]:
    names = [choice for choices in package.depends for choice in choices[:1] if chosen(choice, package.name)]
    return [archive.find(name) for name in names if name in archive.names()]


def _is_data(dependency: str, _package: str) -> bool:
    """Return whether the name of a dependency says that it has data (squid-common, dns-root-data)."""
    return dependency.endswith(("-common", "-data"))


def _is_server(files: Tree) -> bool:
    return any(path.startswith(SERVICES) for path, _ in files)


def is_related(dependency: str, package: str) -> bool:
    """Return whether the name of a dependency says that it may have the programs of `package`."""
    return dependency.startswith(package) or VERSION.sub("", dependency) == VERSION.sub("", package)


def _binaries(files: Tree) -> list[str]:
    return [path for path in _programs(files) if files[path].kind == "file" and files[path].starts_with(MAGIC)]


def _programs(files: Tree) -> list[str]:
    return [path for path, entry in files if entry.kind != "directory" and path.startswith(PROGRAMS)]


def recipe_text(name: str, source: Source, file: str) -> str:
    """Return the text of a recipe called `name`, which will be in `file`, for a Debian package."""
    files, package = source.files, source.package
    paths = [path for path, entry in files if entry.kind != "directory" and not path.startswith("usr/share/doc")]
    programs = _programs(files)
    elf = _binaries(files)
    # Config files, shared data and private libraries: one pattern for each directory of the package.
    beside = sorted({_directory(path) for path in paths if not path.startswith(PROGRAMS)} - {""})
    first = min(elf or programs or ["TODO"], key=lambda path: (posixpath.basename(path) != name, path))
    server = server_command(files, programs, {name, package, *source.others})
    command = server.argv if server else [f"/{first}"]
    first = command[0].strip("/")
    named = {_directory(word.rpartition("=")[2].strip("/")) for word in command[1:]}
    names = (name, package, *source.others)
    lines = [f"  - {path}" if path in named or _is_read(path, names) else f"  # - {path}" for path in beside]
    return TEMPLATE.format(
        name=name,
        package=package,
        debian=", ".join([package, *source.others]),
        file=file,
        kind="application" if first.startswith("usr/sbin/") or _is_server(files) else "tool",
        description=json.dumps(source.description or f"Debian's {package}", ensure_ascii=False),
        include="\n".join([*(f"  - {path}" for path in programs), *lines]) or "  - '**'",
        created=_created(name, package, source.accounts, _directories(files, first, source.accounts)),
        links=_links(name, package, first, programs),
        foreground=FOREGROUND if server and server.background else "",
        program=_quoted([f"/{first}"]),
        command=_quoted(command),
    )


def _quoted(words: Sequence[str]) -> str:
    """Return words as the items of a list in YAML."""
    return ", ".join(word if PLAIN.fullmatch(word) else json.dumps(word) for word in words)


def _is_read(path: str, names: Collection[str]) -> bool:
    """Return whether programs of the package `names` read a directory: their settings, their own shared data, and what
    they load, such as plugins of a server and modules of an interpreter.
    """
    top, *parts = path.split("/")
    if top == "etc":
        return not OF_THE_SYSTEM.match(parts[0])
    if parts[0] == "share":
        return any(name.startswith(parts[1]) or parts[1].startswith(name) for name in names)
    return parts[0] == "lib" and parts[-1] not in INSTALLED


def _directories(files: Tree, program: str, accounts: Sequence[str]) -> dict[str, str]:
    """Return the directories that the server `program` needs, and their users (root if empty): the homes of accounts
    below /var, those that systemd makes for it, and empty ones of the package. A user that nothing declares is left
    out.
    """
    users = [fields for fields in map(str.split, accounts) if fields[0] == "u"]
    homes = {fields[4].strip("/"): fields[1] for fields in users if fields[4].startswith("/var/")}
    written = (name for _, text in declarations(files) for name in DECLARED.findall(text))
    declared = {*Accounts().users, *written, *(fields[1] for fields in users)}
    made = {path: user if user in declared else "" for path, user in server_directories(files, program).items()}
    filled = {posixpath.dirname(path) for path, _ in files}
    empty = [path for path, entry in files if entry.kind == "directory" and path.startswith("var/")]
    return dict.fromkeys((path for path in empty if path not in filled), "") | made | homes


def _created(name: str, package: str, accounts: Sequence[str], directories: dict[str, str]) -> str:
    """Return the recipe's files, directories and owners: those that the server needs, or an example."""
    owners = ", ".join(f"{path}: {user}" for path, user in directories.items() if user)
    made = f"directories: [{', '.join(directories)}]\nowners: {{{owners}}}" if directories else NO_DIRECTORIES
    if not accounts:
        return CREATED.format(package=package, made=made)
    return CREATED_ACCOUNTS.format(name=name, accounts="\n".join(f"    {line}" for line in accounts), made=made)


def _links(name: str, package: str, program: str, programs: list[str]) -> str:
    """Return the recipe's links: to a program with a version from its plain name (php for php8.2), or an example."""
    directory, base = posixpath.split(program)
    plain = VERSIONED.fullmatch(base)
    if plain and (link := f"{directory}/{plain['name']}") not in programs:
        return f"links:\n  {link}: {base}"
    return f"# links:\n#   usr/bin/{name}: /usr/lib/{package}/{name}"


def _directory(path: str) -> str:
    """Return the part of a path that a recipe would name, or an empty string if no program reads the file."""
    parts = path.split("/")
    if parts[:2] == ["usr", "share"]:
        return "" if parts[2] in {"bug", "doc-base", "info", "lintian", "locale", "man"} else "/".join(parts[:3])
    return "/".join(parts[: 3 if parts[0] == "usr" else 2])
