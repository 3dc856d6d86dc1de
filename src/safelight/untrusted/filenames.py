"""Clean names of files that forms send, so that file systems and headers can hold them.

Letters, marks and emoji of every script stay. Only characters that a file system or a header forbids are replaced, and
lengths are counted in bytes of UTF-8, as file systems count them.
"""

from __future__ import annotations

import re
import unicodedata
from email.errors import HeaderParseError
from email.header import decode_header
from urllib.parse import unquote_to_bytes

MAX_BYTES = 255
"""The longest name of a file on the file systems in use."""

_PARAMETER = re.compile(r';\s*([\w!#$&+\-^`.|~*]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
# Control characters, and marks that reverse the text direction, with which a name could show a false extension.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
_ENCODED_WORD = re.compile(r"=\?[\w-]+\?[bqBQ]\?[^?]*\?=")
_JOINER = "\u200d"


def clean(name: str, limit: int = MAX_BYTES) -> str:
    """Return the last part of a path in NFC without control characters, at most `limit` bytes, its extension kept."""
    last = name.replace("\\", "/").rpartition("/")[2]
    text = _UNSEEN.sub("", unicodedata.normalize("NFC", _whole(last))).strip()
    if text in {".", ".."}:
        return ""
    stem, dot, extension = text.rpartition(".")
    if not stem or len(extension.encode()) > 16:
        return shortened(text, limit)
    return shortened(stem, limit - len((dot + extension).encode())) + dot + extension


def saveable(name: str, limit: int = MAX_BYTES) -> str:
    """Return a name that every file system accepts; forbidden characters become `_`. Return "" if nothing is left."""
    text = _FORBIDDEN.sub("_", clean(name, limit)).strip("-. ")
    if _RESERVED.match(text):
        text = f"_{text}"
    return shortened(text, limit).rstrip(" .")


def shortened(text: str, limit: int) -> str:
    """Cut a text to `limit` bytes of UTF-8, never between a letter and its marks or inside a joined emoji."""
    if len(text.encode()) <= limit:
        return text
    kept = text.encode()[: max(0, limit)].decode(errors="ignore")
    while kept and (_continues(text[len(kept)]) or kept[-1] == _JOINER):
        kept = kept[:-1]
    return kept


def _continues(character: str) -> bool:
    """Return whether a character belongs to the one before it: a mark, a variation selector, a skin tone, a joiner."""
    return (
        character == _JOINER
        or unicodedata.category(character).startswith("M")
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def parameters(disposition: str) -> dict[str, str]:
    """Read the parameters of a form part's Content-Disposition, given as Latin-1, as browsers and curl mean them.

    `filename*` (RFC 5987) comes before `filename`, which may be UTF-8, Shift-JIS or Latin-1, RFC 2047's encoded words,
    and escaped with a backslash (curl) or with %22 (browsers).
    """
    found: dict[str, str] = {}
    for key, quoted, bare in _PARAMETER.findall(disposition):
        name = key.lower()
        if name.endswith("*"):
            if (value := _extended(bare.strip() or quoted)) is not None:
                found[name[:-1] + "*"] = value
        else:
            value = re.sub(r'\\(["\\])', r"\1", quoted) if quoted else bare.strip()
            found.setdefault(name, _decoded(value.replace("%22", '"')))
    plain = {name: value for name, value in found.items() if not name.endswith("*")}
    extended = {name[:-1]: value for name, value in found.items() if name.endswith("*")}
    return {name: _whole(value) for name, value in (plain | extended).items()}


def _whole(text: str) -> str:
    """Replace halves of surrogate pairs, which are not text; some charsets, such as UTF-7, can express them."""
    return text.encode(errors="replace").decode()


def _extended(value: str) -> str | None:
    """Decode RFC 5987's `charset'language'percent-encoded`. Return None for anything else."""
    charset, mark, rest = value.partition("'")
    _, second, encoded = rest.partition("'")
    if not mark or not second:
        return None
    try:
        return unquote_to_bytes(encoded).decode(charset.strip() or "utf-8")
    except (LookupError, ValueError):
        return None


def _decoded(value: str) -> str:
    """Decode bytes that came as Latin-1."""
    data = value.encode("latin-1", errors="replace")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = _legacy(data)
    if _ENCODED_WORD.search(text):
        try:
            words = decode_header(text)
            return "".join(word if isinstance(word, str) else word.decode(code or "ascii") for word, code in words)
        except (HeaderParseError, LookupError, ValueError):
            return text
    return text


def _legacy(data: bytes) -> str:
    """Tell Shift-JIS from Latin-1: only Japanese has bytes 0x81 to 0x9f, which are control characters in Latin-1."""
    if any(0x81 <= byte <= 0x9F for byte in data):
        try:
            return data.decode("cp932")
        except UnicodeDecodeError:
            pass
    return data.decode("cp1252", errors="replace")
