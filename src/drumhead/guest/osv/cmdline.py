"""Write OSv's command line: options, then the program. The two parts have different quoting rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drumhead.errors import DrumheadError, ErrorCode

MAX_LENGTH = 2048
"""The limit in bytes. QEMU's -append passes about 2.7 kB; a longer line resets the machine without a message."""
SPECIAL_IN_OPTIONS = " \t\n\\"


def option(name: str, value: str = "") -> str:
    """Return ``--name`` or ``--name=value``. A backslash escapes blanks and backslashes."""
    if not value:
        return f"--{name}"
    return f"--{name}=" + "".join(f"\\{one}" if one in SPECIAL_IN_OPTIONS else one for one in value)


def quoted(argument: str) -> str:
    """Return an argument of the program in double quotes. ``is_plain`` must hold for it."""
    return '"' + argument.replace("\\", "\\\\").replace('"', '\\"') + '"'


def is_plain(argument: str) -> bool:
    """Return whether OSv's parser leaves a quoted argument unchanged. The parser reads only ASCII and expands ``$``."""
    return argument.isascii() and argument.isprintable() and "$" not in argument


def command_line(options: Sequence[str], environment: Mapping[str, str], argv: Sequence[str]) -> str:
    """Return the complete line. `options` come from ``option``. Raises UNSUPPORTED if it is too long for OSv.

    An argument that the parser would change is passed in a separate variable, whose value is not parsed.
    """
    variables, program = dict(environment), list[str]()
    for number, argument in enumerate(argv):
        if is_plain(argument):
            program.append(quoted(argument))
        else:
            variables[f"DRUMHEAD_ARGUMENT_{number}"] = argument
            program.append(f"$DRUMHEAD_ARGUMENT_{number}")
    line = " ".join([*options, *(option("env", f"{name}={value}") for name, value in variables.items()), *program])
    if len(line.encode()) > MAX_LENGTH:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"the command and its variables take {len(line.encode())} bytes; OSv's command line may have {MAX_LENGTH}. "
            "Give the program a configuration file instead",
        )
    return line
