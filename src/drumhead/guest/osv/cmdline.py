"""OSv's command line: its options first, then the program. Each part has its own rules for what is special."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drumhead.errors import DrumheadError, ErrorCode

MAX_LENGTH = 2048
"""Bytes. Through QEMU's -append about 2.7 kB arrive; a longer line resets the machine without a word."""
SPECIAL_IN_OPTIONS = " \t\n\\"


def option(name: str, value: str = "") -> str:
    """``--name`` or ``--name=value``. Blanks and backslashes are kept by a backslash."""
    if not value:
        return f"--{name}"
    return f"--{name}=" + "".join(f"\\{one}" if one in SPECIAL_IN_OPTIONS else one for one in value)


def quoted(word: str) -> str:
    """Return a word of the program, in double quotes. Only for words that ``is_plain``."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def is_plain(word: str) -> bool:
    """Tell whether OSv's parser leaves a quoted word alone: it reads ASCII, and takes ``$`` for a variable."""
    return word.isascii() and word.isprintable() and "$" not in word


def command_line(options: Sequence[str], environment: Mapping[str, str], argv: Sequence[str]) -> str:
    """Return the whole line. `options` are finished (``option``). Raises UNSUPPORTED when it is too long for OSv.

    A word that the parser would change travels as a variable of its own, as variables are taken as they are.
    """
    variables, words = dict(environment), []
    for number, word in enumerate(argv):
        if is_plain(word):
            words.append(quoted(word))
        else:
            variables[f"DRUMHEAD_WORD_{number}"] = word
            words.append(f"$DRUMHEAD_WORD_{number}")
    line = " ".join([*options, *(option("env", f"{name}={value}") for name, value in variables.items()), *words])
    if len(line.encode()) > MAX_LENGTH:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"the command and its variables take {len(line.encode())} bytes; OSv's command line holds {MAX_LENGTH}. "
            "Give the program a configuration file instead",
        )
    return line
