"""Foreign text made fit to be shown: on a terminal, in a log, in an error's sentence."""

from __future__ import annotations

import json
import unicodedata

_KEPT = frozenset({"\N{ZERO WIDTH JOINER}", "\N{ZERO WIDTH NON-JOINER}"})
"""Format characters that writing needs: emoji and several scripts join by them."""


def printable(text: str, longest: int | None = None) -> str:
    r"""Return the text on one line, without characters that a terminal obeys or that reorder what surrounds them.

    Such characters are written as Python escapes them (`\x1b`). More than `longest` characters end in an ellipsis.
    """
    if text.isascii() and text.isprintable():
        shown = text
    else:
        shown = "".join(character if _shown(character) else _escaped(character) for character in text)
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def printable_lines(text: str) -> str:
    """Return a text of several lines, each made printable; tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def printable_json(document: str) -> str:
    """Return a JSON document that says the same in characters that a terminal only shows."""
    if document.isascii():
        return document  # JSON escapes the ASCII ones itself
    return "".join(
        character if character == "\n" or _shown(character) else json.dumps(character)[1:-1] for character in document
    )


def _shown(character: str) -> bool:
    # Cc: C0 and C1 controls; Cf: bidirectional overrides and other invisible ones; Cs: halves of surrogate pairs;
    # Zl, Zp: line and paragraph separators
    return character in _KEPT or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
