"""Escape characters that PostgreSQL cannot store in text: NUL, and the escape character itself."""

from __future__ import annotations

import re
from typing import Any

_ESCAPE = "\U0010ffff"
"""The escape character: NUL becomes this and `0`, and this becomes this and `1`."""
_NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def text(value: Any) -> Any:
    """Escape text; return other values as they are."""
    if type(value) is str and ("\0" in value or _ESCAPE in value):
        return value.replace(_ESCAPE, f"{_ESCAPE}1").replace("\0", f"{_ESCAPE}0")
    return value


def json(value: Any) -> Any:
    """Escape JSON, whose NUL is written as an escape of its own; return other values as they are."""
    if type(value) is not str or ("\\u0000" not in value and _ESCAPE not in value):
        return value
    return _NUL_IN_JSON.sub(rf"\1{_ESCAPE}0", value.replace(_ESCAPE, f"{_ESCAPE}1"))


def whole_text(value: Any) -> Any:
    """Undo the escapes of `text`; return other values as they are."""
    if type(value) is not str or _ESCAPE not in value:
        return value
    return value.replace(f"{_ESCAPE}0", "\0").replace(f"{_ESCAPE}1", _ESCAPE)


def whole_json(value: Any) -> Any:
    """Undo the escapes in JSON, also in that which the server made of text; return other values as they are."""
    if type(value) is not str or _ESCAPE not in value:
        return value
    return value.replace(f"{_ESCAPE}0", "\\u0000").replace(f"{_ESCAPE}1", _ESCAPE)
