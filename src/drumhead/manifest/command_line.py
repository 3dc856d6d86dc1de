"""Parse command lines in Capstan's format, ``--env=NAME=value … PROGRAM ARGUMENTS``, without a shell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.records import VARIABLE_NAME, Command

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = re.compile(
    r"""(?P<blank>[^\S\n]+) | (?P<line_end>\n) | \\\n | (?P<bare>[^\s'"\\]+)
    | '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | \\(?P<escaped>.)""",
    re.DOTALL | re.VERBOSE,
)
"""Pieces of a command line. The alternative without a name is a backslash at the end of a line."""
IN_DOUBLE_QUOTES = re.compile(r"\\(\n|[$`\"\\])")
SPECIAL = re.compile(
    r"\$(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\})|[;&|<>`]|\$[({0-9@*\#?$!-]"
)
"""Syntax outside quotes that a shell would interpret: variables, and constructs that are refused."""
ENVIRONMENT_PREFIX = re.compile(rf"--env=({VARIABLE_NAME.pattern})\??=(.*)", re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


class Piece(NamedTuple):
    """A part of a word. Quoted pieces are not expanded."""

    text: str
    quoted: bool


def parse_command(text: str, env: Mapping[str, str] | None = None) -> Command:
    """Parse a command line: ``--env=NAME=value`` any number of times, then the program and its arguments.

    Words are split as in a shell. Outside quotes, ``$NAME`` is replaced by the value of a variable that was set
    earlier on the command line or in `env`. Other shell syntax (several commands, redirections, ``$(…)``) is refused
    outside quotes. Raises USAGE.
    """
    known, environment = dict(env or {}), dict[str, str]()
    argv: list[str] = []
    for word in _split(text.strip()):
        expanded = "".join(piece.text if piece.quoted else _expand(piece.text, known) for piece in word)
        if not argv and (match := ENVIRONMENT_PREFIX.fullmatch(expanded)):
            environment[match[1]] = known[match[1]] = match[2]
            continue
        if not argv and not word[0].quoted and ASSIGNMENT.match(expanded):
            raise _usage(f"{expanded!r} is not a program; give a variable as --env={expanded} before the program")
        argv.append(expanded)
    if not argv:
        raise _usage(f"{text!r} does not name a program")
    return Command(argv=tuple(argv), env=environment)


def _split(text: str) -> list[list[Piece]]:
    """Return the words of a command line. Raises USAGE for an open quote and for a second line."""
    words: list[list[Piece]] = [[]]
    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            what = "escaped character" if text[position] == "\\" else "closing quotation"
            raise _usage(f"{text!r} cannot be split into arguments: No {what}")
        position = match.end()
        match match.lastgroup:
            case "blank":
                words.append([])
            case "line_end":
                raise _usage("a machine runs one command; end a line with \\ to continue it on the next line")
            case "bare":
                words[-1].append(Piece(match["bare"], quoted=False))
            case "single" | "escaped" as how:
                words[-1].append(Piece(match[how], quoted=True))
            case "double":
                inside = IN_DOUBLE_QUOTES.sub(lambda found: found[1].strip("\n"), match["double"])
                words[-1].append(Piece(inside, quoted=True))
    return [word for word in words if word]


def _expand(text: str, known: Mapping[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}`` outside quotes. Raises USAGE for unknown names and other shell syntax."""

    def value(match: re.Match[str]) -> str:
        name = match["name"] or match["braced"]
        if not name:
            raise _usage(
                f"{text!r}: a machine runs one command, without redirections and without a shell around it; quote the "
                "word, or start a shell (sh -c '…' from package cli)"
            )
        if name not in known:
            raise _usage(
                f"{text!r}: {name} has no value here; set it with --env={name}=… before the program, or quote the word"
            )
        return known[name]

    return SPECIAL.sub(value, text)


def _usage(message: str) -> DrumheadError:
    return DrumheadError(ErrorCode.USAGE, message)
