"""Make untrusted text safe to show on a terminal, in a table or in a log."""

from __future__ import annotations

import codecs
import json
import re
import sys
import unicodedata

INDENTED = "\n    "
"""What precedes each line that a message shows of a console or a log."""
_KEPT = frozenset({"\N{ZERO WIDTH JOINER}", "\N{ZERO WIDTH NON-JOINER}"})
"""Format characters that are kept, because emoji and several scripts need them to join characters."""


def printable(text: str, longest: int | None = None) -> str:
    r"""Return the text on one line, with control characters and characters that reorder text escaped.

    The escapes are those of Python (`\x1b`). Text longer than `longest` characters is cut and ends in an ellipsis.
    """
    if text.isascii() and text.isprintable():
        shown = text
    else:
        shown = "".join(character if _shown(character) else _escaped(character) for character in text)
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def printable_lines(text: str) -> str:
    """Return a text of several lines, each made printable. Tabs are kept."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def printable_json(document: str) -> str:
    """Return an equivalent JSON document in which characters that would affect a terminal are escaped."""
    if document.isascii():
        return document  # JSON itself escapes control characters in ASCII
    return "".join(
        character if character == "\n" or _shown(character) else json.dumps(character)[1:-1] for character in document
    )


def write_output(data: bytes) -> None:
    """Copy the output of a program in a machine to stdout, as ``shown_output`` changes it."""
    sys.stdout.buffer.write(shown_output(data))
    sys.stdout.buffer.flush()


def shown_output(data: bytes) -> bytes:
    """Return the output of a program in a machine as stdout may show it.

    If stdout is a terminal, escape control characters but keep colours. Otherwise return the bytes unchanged.
    """
    if not sys.stdout.isatty():
        return data
    text = _decoder.decode(data).replace("\r\n", "\n")
    pieces = _COLORS.split(text)  # every second one is a colour
    pieces[::2] = map(printable_lines, pieces[::2])
    return "".join(pieces).encode()


_decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
_COLORS = re.compile(r"(\x1b\[[0-9;]{0,32}m)")


def _shown(character: str) -> bool:
    # Cc: C0 and C1 controls; Cf: bidirectional overrides and other invisible ones; Cs: halves of surrogate pairs;
    # Zl, Zp: line and paragraph separators
    return character in _KEPT or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
