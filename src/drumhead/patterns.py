"""Match paths against the patterns of ignore files and recipes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def match_any(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a relative path, or a directory above it, matches any of `patterns`.

    ``*`` and ``?`` match within one name, ``**`` crosses directories (``a/**/b`` also matches ``a/b``), ``[…]`` is a
    set.
    """
    expression = "|".join(f"(?:{_translate(pattern.strip('/'))})" for pattern in patterns)
    if not expression:
        return lambda _path: False
    compiled = re.compile(f"(?:{expression})(?:/.*)?", re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


def match_whole(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether `pattern` matches a path itself; unlike ``match_any``, not what is below
    it.
    """
    compiled = re.compile(_translate(pattern), re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


def _translate(pattern: str) -> str:
    out = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", pattern, re.DOTALL):
        match token:
            case "**/":
                out.append("(?:.*/)?")
            case "**":
                out.append(".*")
            case "*":
                out.append("[^/]*")
            case "?":
                out.append("[^/]")
            case _ if len(token) > 2:
                out.append(_translate_set(token[1:-1]))
            case _:
                out.append(re.escape(token))
    return "".join(out)


def _translate_set(text: str) -> str:
    """Translate the inside of ``[…]``. As in a shell, a range from a later to an earlier character has no members."""
    negated = text[0] in "!^"
    ranges = re.findall(r"(.)-(.)|(.)", text[negated:], re.DOTALL)
    inside = "".join(
        re.escape(one) if one else f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
        for first, last, one in ranges
    )
    if not inside:
        return "[^/]" if negated else "(?!)"
    return f"[^/{inside}]" if negated else f"[{inside}]"
