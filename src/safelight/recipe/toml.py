"""Read untrusted TOML in bounded time and memory.

The standard library's parser takes time and memory that grow with the square of the parts of a dotted key, and it is
slow (about two seconds for a megabyte of numbers), so both are limited before it starts.
"""

from __future__ import annotations

import re
from typing import Any

MAX_BYTES = 1024 * 1024
_MOST_PARTS = 16
"""The most parts of one dotted key. The longest in a recipe has six."""

# Every alternative matches as soon as it begins, so the text is scanned once.
_TOKEN = re.compile(
    r"""
      (?P<text> \"{3} (?: [^"\\] | \\. | \"{1,2}(?!\") )*+ (?: \"{3} )?+
              | '{3} (?: [^'] | '{1,2}(?!') )*+ (?: '{3} )?+ )
    | (?P<part> " (?: [^"\\\n] | \\. )*+ "?+ | ' [^'\n]*+ '?+ | [A-Za-z0-9_-]++ )
    | (?P<dot> \. )
    | (?P<space> [ \t]++ )
    | (?P<other> \# [^\n]*+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)


def loads(text: str) -> dict[str, Any]:
    """Read a document. Raises ValueError if it is not TOML or costs more to read than any recipe."""
    import tomllib  # noqa: PLC0415 - the services read recipes as JSON

    if len(text) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES} characters; send a recipe of that size as JSON")
    dots = 0
    for token in _TOKEN.finditer(text):
        match token.lastgroup:
            case "dot":
                dots += 1
                if dots >= _MOST_PARTS:
                    line = text.count("\n", 0, token.start()) + 1
                    raise ValueError(f"a key has more than {_MOST_PARTS} parts (line {line})")
            case "text" | "other":
                dots = 0
    return tomllib.loads(text)
