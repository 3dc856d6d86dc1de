"""What an image's guest cannot do with it: refused where a config set would meet it, told where it may not matter."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.closure import Index
    from drumhead.guest.contract import Finding, Guest
    from drumhead.records import Command
    from drumhead.tree import Tree

SHOWN = 2
"""Paths that one notice names."""


def visible_findings(layers: Iterable[tuple[Index, tuple[Finding, ...]]]) -> list[Finding]:
    """The findings of stacked layers (lowest first), without those about files that a later layer covers."""
    found: dict[str, list[Finding]] = {}
    for index, findings in layers:
        for path in found.keys() & index.keys():
            del found[path]
        for finding in findings:
            found.setdefault(finding.path, []).append(finding)
    return [finding for findings in found.values() for finding in findings]


def judge(
    guest: Guest, findings: list[Finding], application: Tree, commands: dict[str, tuple[Command, str]]
) -> list[str]:
    """Notices about what does not matter at the start. Raises UNSUPPORTED for what does, and says where.

    `commands` are the config sets, each with the path of the program that it starts.
    """
    told = [finding for finding in findings if finding.severity in {"program", "notice"}]
    _refuse([finding for finding in findings if finding.severity == "refused"])
    for name, (command, program) in commands.items():
        started = [one for one in findings if one.path == program and one.severity in {"program", "quiet"}]
        _refuse(started, f"config set {name} cannot start on {guest.name}: ")
        more = guest.check_command(application, command, program)
        _refuse([one for one in more if one.severity == "refused"], f"config set {name} cannot run on {guest.name}: ")
        told += [one for one in more if one.severity == "notice" and one not in told]
    return _notices(told)


def _refuse(findings: list[Finding], why: str = "") -> None:
    if findings:
        first, *others = findings
        more = f" ({len(others)} more files are like it)" if others else ""
        raise DrumheadError(ErrorCode.UNSUPPORTED, f"{why}/{first.path} {first.sentence}{more}")


def _notices(findings: list[Finding]) -> list[str]:
    """One sentence for all files of which the same is to be said."""
    alike: dict[str, list[str]] = {}
    for finding in findings:
        alike.setdefault(finding.sentence, []).append(finding.path)
    return [f"{_paths(sorted(paths))} {sentence}" for sentence, paths in sorted(alike.items())]


def _paths(paths: list[str]) -> str:
    shown = ", ".join(f"/{path}" for path in paths[:SHOWN])
    if len(paths) <= SHOWN:
        return shown
    return f"{shown} and {len(paths) - SHOWN} more (below /{posixpath.commonpath(paths)}):"
