"""Check whether the programs of an image's config sets can run in its guest.

A problem that a config set would certainly meet is an error; a problem that may not matter is a notice.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from drumhead.closure import follow
from drumhead.elf import MAGIC
from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.closure import Index, Missing
    from drumhead.guest.contract import Finding, Guest
    from drumhead.records import Command
    from drumhead.tree import Entry, Tree

SHOWN = 2
"""The number of paths that one notice names."""
SEARCH_PATH = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin")
RUN = "run"
"""The config set that a command line of ``package compose --run`` makes."""
LAUNCHERS = {"npm", "npx", "yarn", "pnpm", "poetry", "pipenv", "pdm", "uv"}
"""Programs of developers, which start others (``npm start``, ``uv run``)."""
MODULE_PROGRAMS = "node_modules/.bin"
"""Where npm puts the programs of packages, which `npm start` finds."""
MEMORY = ("dev", "proc", "run", "sys", "tmp")
"""Directories of a machine whose contents are made when it starts."""


def check_programs(
    index: Index, application: Tree, commands: dict[str, Command], missing: Iterable[Missing], *, has_modes: bool = True
) -> dict[str, tuple[Command, str]]:
    """Return each config set with the path of its program. Raises INCOMPLETE if it cannot start.

    A guest whose file system `has_modes` starts executable files only.
    """
    lacking = {one.path: one.library for one in missing}
    programs = {}
    for name, command in commands.items():
        program = find_program(index, command)
        if not program:
            others = [other for other in commands if other != name]
            meant = f", or name a config set ({', '.join(others)})" if name == RUN and others else ""
            raise _incomplete(
                f"config set {name} starts {command.argv[0]}, which is not in the image; "
                f"{_advice(index, application, command.argv[0])}{meant}"
            )
        if index[program].kind != "file":
            raise _incomplete(f"config set {name} starts {command.argv[0]}, which is a directory")
        if has_modes and not index[program].mode & 0o111:
            raise _incomplete(
                f"config set {name} starts /{program}, which is not executable; chmod +x that file of the project"
            )
        if library := lacking.get(program):
            raise _incomplete(
                f"config set {name} starts /{program}, which needs {library}; no package has it, so add the file "
                "to the project (below /usr/lib) or build the package `libraries`"
            )
        if fault := _script_fault(index, application.get(program)):
            raise _incomplete(f"config set {name} starts /{program}, {fault}")
        programs[name] = (command, program)
    return programs


def _advice(index: Index, application: Tree, program: str) -> str:
    """Return what to do about a program that is not in the image."""
    script = re.compile(rf"""^\s*["']?{re.escape(program)}["']?\s*=\s*["'][\w.]+:""".encode(), re.MULTILINE)
    for path, entry in application:
        if posixpath.basename(path) == "pyproject.toml" and entry.kind == "file" and script.search(entry.read()):
            return f"/{path} names it, so add its module to the project, and its package to the project's dependencies"
    return package_advice(index, program)


def package_advice(index: Index, program: str) -> str:
    """Return what to do about a program that is not where programs of packages are."""
    if follow(index, f"{MODULE_PROGRAMS}/{program}"):
        return f"start it as `node /{MODULE_PROGRAMS}/{program}`"
    if program in LAUNCHERS:
        return f"name the program that {program} would start"
    return "require its package"


def _script_fault(index: Index, entry: Entry | None) -> str:
    """Return why a file of the project cannot be started, as the end of a sentence; empty where it can."""
    if entry is None or entry.starts_with(MAGIC):
        return ""
    if not entry.starts_with(b"#!"):
        return "which is neither a program nor a script (a script begins with #! and its interpreter)"
    first = entry.read().partition(b"\n")[0][2:].decode(errors="replace")
    words = [word for word in first.split(" ") if word]
    interpreter = words[0] if words else ""
    if follow(index, interpreter) and posixpath.basename(interpreter) == "env":
        named = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        if named and not _on_search_path(index, named):
            interpreter = named
        else:
            return ""
    elif follow(index, interpreter):
        return ""
    advice = "the package cli" if posixpath.basename(interpreter) in {"sh", "env"} else "its package"
    if interpreter.endswith("\r"):
        return f"a script for {interpreter!r}; its lines end as on Windows, so save it with the line ends of Unix"
    return f"a script for {interpreter or 'nothing'}, which is not in the image; require {advice}"


def check_directories(index: Index, commands: dict[str, Command]) -> None:
    """Check that the working directory of each config set exists. Raises INCOMPLETE."""
    for name, command in commands.items():
        if is_made_at_start(command.cwd) or not command.cwd.strip("/"):
            continue
        found = index.get(follow(index, command.cwd))
        if found is None or found.kind != "directory":
            what = "which is not a directory" if found else "a directory that is not in the image"
            raise _incomplete(
                f"config set {name} runs in {command.cwd}, {what}; correct cwd, or put the directory into the project"
            )


def is_made_at_start(path: str) -> bool:
    """Tell whether a path of a machine exists only in memory, so that an image says nothing of it."""
    return path.lstrip("/").partition("/")[0] in MEMORY


def _incomplete(message: str) -> DrumheadError:
    return DrumheadError(ErrorCode.INCOMPLETE, message)


def missing_notices(missing: Iterable[Missing]) -> list[str]:
    """Return a notice for each file that needs a missing library."""
    found = sorted({one.path: one.library for one in missing}.items())
    return [f"/{path} needs {library}, which is in no package; it will not load" for path, library in found]


def find_program(index: Index, command: Command) -> str:
    """Return the path of a command's program in an image, with links followed, or an empty string if it is missing."""
    name = command.argv[0]
    if name.startswith("/"):
        return follow(index, name)
    if "/" in name:
        return follow(index, posixpath.join(command.cwd, name))
    return _on_search_path(index, name)


def _on_search_path(index: Index, name: str) -> str:
    return next(filter(None, (follow(index, f"{directory}/{name}") for directory in SEARCH_PATH)), "")


def visible_findings(layers: Iterable[tuple[Index, tuple[Finding, ...]]]) -> list[Finding]:
    """Return the findings of stacked layers (lowest first), without those about files that a higher layer covers."""
    found: dict[str, list[Finding]] = {}
    for index, findings in layers:
        for path in found.keys() & index.keys():
            del found[path]
        for finding in findings:
            found.setdefault(finding.path, []).append(finding)
    return [finding for findings in found.values() for finding in findings]


def check_findings(
    guest: Guest, findings: list[Finding], application: Tree, commands: dict[str, tuple[Command, str]]
) -> list[str]:
    """Return notices for findings that do not keep a config set from starting. Raises UNSUPPORTED for other findings.

    `commands` are the config sets, each with the path of the program that it starts.
    """
    noticed = [finding for finding in findings if finding.severity in {"program", "notice"}]
    _refuse([finding for finding in findings if finding.severity == "refused"])
    for name, (command, program) in commands.items():
        refuse_program(guest, findings, program, f"config set {name}")
        more = guest.check_command(application, command, program)
        _refuse([one for one in more if one.severity == "refused"], f"config set {name} cannot run on {guest.name}: ")
        noticed += [one for one in more if one.severity == "notice" and one not in noticed]
    return _notices(noticed)


def refuse_program(guest: Guest, findings: list[Finding], program: str, what: str) -> None:
    """Raise UNSUPPORTED if the guest cannot start a program. `what` starts it, as the subject of the message."""
    started = [one for one in findings if one.path == program and one.severity in {"program", "quiet"}]
    _refuse(started, f"{what} cannot start on {guest.name}: ")


def _refuse(findings: list[Finding], why: str = "") -> None:
    if findings:
        first, *others = findings
        more = f" ({len(others)} more files are like it)" if others else ""
        raise DrumheadError(ErrorCode.UNSUPPORTED, f"{why}/{first.path} {first.sentence}{more}")


def _notices(findings: list[Finding]) -> list[str]:
    """Return one notice for all files with the same finding."""
    alike: dict[str, list[str]] = {}
    for finding in findings:
        alike.setdefault(finding.sentence, []).append(finding.path)
    return [f"{_paths(sorted(paths))} {sentence}" for sentence, paths in sorted(alike.items())]


def _paths(paths: list[str]) -> str:
    shown = ", ".join(f"/{path}" for path in paths[:SHOWN])
    if len(paths) <= SHOWN:
        return shown
    return f"{shown} and {len(paths) - SHOWN} more (below /{posixpath.commonpath(paths)}):"
