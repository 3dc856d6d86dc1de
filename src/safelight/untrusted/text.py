"""Make untrusted text safe to show on a terminal, in a log or in an error message."""

from __future__ import annotations

import json
import unicodedata

_KEPT = frozenset({"\N{ZERO WIDTH JOINER}", "\N{ZERO WIDTH NON-JOINER}"})
"""Format characters that text needs: emoji and several scripts use them as joiners."""


def printable(text: str, longest: int | None = None) -> str:
    r"""Return the text on one line, without characters that control a terminal or reorder surrounding text.

    Such characters are written as Python escapes them (`\x1b`). More than `longest` characters end in an ellipsis.
    """
    if longest is not None:
        text = text[: longest + 1]  # the rest is not shown, and escaping takes long
    if text.isascii() and text.isprintable():
        shown = text
    else:
        shown = "".join(character if _shown(character) else _escaped(character) for character in text)
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def printable_lines(text: str) -> str:
    """Return a text of several lines, each made printable; tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def printable_json(document: str) -> str:
    """Return an equal JSON document in which characters that control a terminal are escaped."""
    if document.isascii():
        return document  # JSON already escapes the ASCII ones
    return "".join(
        character if character == "\n" or _shown(character) else json.dumps(character)[1:-1] for character in document
    )


def _shown(character: str) -> bool:
    # Cc: C0 and C1 controls; Cf: bidirectional overrides and other invisible ones; Cs: halves of surrogate pairs;
    # Zl, Zp: line and paragraph separators
    return character in _KEPT or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
