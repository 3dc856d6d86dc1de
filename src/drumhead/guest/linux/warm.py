"""Interpreters that are started before a machine is saved, and the commands that they can become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.records import Command

if TYPE_CHECKING:
    from drumhead.records import Image

SOURCE = Path(__file__).with_name("warm_interpreter.py")
PYTHON = "/usr/bin/python3"
PROGRAMS = (PYTHON, "python3", "python", "/usr/bin/python")
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
"""Prefixes of variables that an interpreter or its C library reads only when it starts."""


def interpreter(image: Image) -> Command:
    """Return the command that starts the interpreter of a snapshot. Its argv is empty if `image` names no modules.

    It has the variables and the directory that all config sets share.
    """
    if not image.warm:
        return Command(argv=())
    shared = image.shared_circumstances()
    return Command(argv=(PYTHON, "-c", SOURCE.read_text(), *image.warm), env=shared.env, cwd=shared.cwd)


def order(warm: Command, command: Command) -> str:
    """Return the line that makes the interpreter `warm` run `command`, or an empty string if it needs a new process."""
    words = command.argv
    is_python = len(words) > 1 and words[0] in PROGRAMS
    runs_file = is_python and words[1].endswith(".py") and words[1].startswith("/")
    runs_module = is_python and words[1] == "-m" and len(words) > 2
    if not warm.argv or not (runs_file or runs_module) or _read_at_start(warm) != _read_at_start(command):
        return ""
    return msgspec.json.encode(command).decode()


def _read_at_start(command: Command) -> dict[str, str]:
    return {name: value for name, value in command.env.items() if name.startswith(READ_AT_START)}
