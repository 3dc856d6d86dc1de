"""Check what config sets give to interpreters: a file or a module that is not there is found before a machine starts.

Where it cannot be told what an argument means, nothing is refused.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from drumhead.closure import follow
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.checks.modules import module_fault, search_path
from drumhead.image.checks.programs import SEARCH_PATH, is_made_at_start
from drumhead.python.command_line import PYTHON, split_python

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drumhead.closure import Index
    from drumhead.records import Command

SHELLS = ("sh", "ash", "dash", "bash")
NODE_WITH_VALUE = ("-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--title")
"""Node.js's options that take the next argument as their value."""
NODE_WITHOUT_FILE = (
    "-",
    "-e",
    "--eval",
    "-p",
    "--print",
    "-pe",
    "-i",
    "--interactive",
    "-v",
    "--version",
    "-h",
    "--help",
)
NODE_ENDINGS = ("", ".js", ".json", ".node", "/package.json", "/index.js", "/index.json", "/index.node")
"""What Node.js tries after the name of the file to run."""
PYTHON_ENDINGS = ("", "/__main__.py", "/__main__.pyc")


def check_arguments(index: Index, commands: Mapping[str, tuple[Command, str]]) -> None:
    """Check the arguments of config sets, each with the path of its program. Raises INCOMPLETE."""
    for name, (command, program) in commands.items():
        if fault := _fault(index, command, program):
            raise DrumheadError(ErrorCode.INCOMPLETE, f"config set {name} runs {fault}")


def _fault(index: Index, command: Command, program: str) -> str:
    """Return what a command runs and why it cannot, as the end of a sentence; empty where it can, or may."""
    called, program_name = posixpath.basename(command.argv[0]), posixpath.basename(program)
    arguments = command.argv[1:]
    if PYTHON.fullmatch(program_name):
        return _python_fault(index, command, program)
    if program_name == "node":
        return _file_fault(index, command, _node_file(arguments), NODE_ENDINGS)
    if called in SHELLS and arguments and not arguments[0].startswith(("-", "+")):
        on_path = "/" not in arguments[0] and any(follow(index, f"{one}/{arguments[0]}") for one in SEARCH_PATH)
        return "" if on_path else _file_fault(index, command, arguments[0])
    if called == "java" and "-jar" in arguments[:-1]:
        return _file_fault(index, command, arguments[arguments.index("-jar") + 1])
    return ""


def _python_fault(index: Index, command: Command, program: str) -> str:
    options, words = split_python(command.argv[1:])
    if not words or words[0] == "-c":
        return ""
    if words[0] == "-m":
        path = search_path(program, options, command)
        return module_fault(index, path, words[1]) if len(words) > 1 else ""
    return _file_fault(index, command, words[0], PYTHON_ENDINGS)


def _node_file(arguments: tuple[str, ...]) -> str:
    """Return the file that Node.js is to run; empty where there is none, or where an option may take it."""
    before = ""
    for argument in arguments:
        if argument in NODE_WITHOUT_FILE or argument in {"inspect", "--test", "--run"}:
            return ""
        if before in NODE_WITH_VALUE:
            before = ""
        elif argument.startswith("-"):
            before = argument
        else:
            return "" if before.startswith("--") and "=" not in before else argument
    return ""


def _file_fault(index: Index, command: Command, file: str, endings: tuple[str, ...] = ("",)) -> str:
    place = posixpath.normpath(posixpath.join(command.cwd, file))
    if not file or is_made_at_start(place) or any(_is_file(index, place + end) for end in endings):
        return ""
    return f"{file}, which is not in the image{_near(index, place)}"


def _is_file(index: Index, path: str) -> bool:
    found = index.get(follow(index, path))
    return found is not None and found.kind == "file"


def _near(index: Index, place: str) -> str:
    """Return where a file of this name is; else what to do."""
    name = posixpath.basename(place)
    found = sorted(path for path, node in index.items() if posixpath.basename(path) == name and node.kind == "file")
    return f"; did you mean /{found[0]}?" if name and found else "; correct its name, or add it to the project"
