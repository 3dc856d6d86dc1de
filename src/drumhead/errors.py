"""The closed set of errors.

``DrumheadError`` is the only exception that this package raises on purpose. Its code tells a program what happened, and
its message tells a person what to do. Exceptions of libraries (OSError, aiohttp.ClientError, a failed subprocess) are
converted where they occur. The exceptions are errors that any file access can cause (a full disk, a read-only
directory): the command converts these with ``host_error``.
"""

from __future__ import annotations

import errno
import re
from enum import StrEnum

import msgspec


class ErrorCode(StrEnum):
    """The kind of an error. ``EXIT_STATUS`` maps each code to an exit status."""

    USAGE = "usage"
    """The request is invalid: a bad flag, size, address or name."""
    MANIFEST = "manifest"
    """A file of a project or fleet is invalid; the message starts with file and line."""
    NOT_FOUND = "not-found"
    """The package, image, instance, fleet or remote does not exist."""
    CONFLICT = "conflict"
    """The thing already exists, is running or is in use."""
    UNVERIFIED = "unverified"
    """A digest or a signature does not match."""
    INCOMPLETE = "incomplete"
    """A tree cannot run: it needs a library or a program that no package has."""
    UNSUPPORTED = "unsupported"
    """This guest or host does not support the request (exec on OSv, vhost without its device)."""
    HOST_TOOL = "host-tool"
    """A program that the host must provide is missing or failed."""
    REMOTE = "remote"
    """A registry, mirror or package index did not answer, or gave an invalid answer."""
    TIMEOUT = "timeout"
    """An operation did not finish within its time limit."""
    GUEST = "guest"
    """The machine ended or answered unexpectedly."""


EXIT_STATUS: dict[ErrorCode, int] = {
    ErrorCode.USAGE: 2,
    ErrorCode.MANIFEST: 2,
    ErrorCode.INCOMPLETE: 2,
    ErrorCode.NOT_FOUND: 3,
    ErrorCode.REMOTE: 4,
    ErrorCode.HOST_TOOL: 4,
    ErrorCode.CONFLICT: 5,
    ErrorCode.UNSUPPORTED: 5,
    ErrorCode.UNVERIFIED: 6,
    ErrorCode.TIMEOUT: 124,
    ErrorCode.GUEST: 125,
}
"""Exit status of the command, from the table that it shares with safelight (docs/reference/errors.md).

``run``, ``start --attach``, ``exec`` and ``wait`` end with the exit status of the guest's command.
"""


class DrumheadError(Exception):
    """An error with a code of the closed set and a message that says what to do.

    The message is shown to people unchanged, so it contains no internals. Notes (``add_note``) are notices that
    may explain the error; they are shown before it.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the expected JSON. A text that is not UTF-8 is no DecodeError to it."""


def manifest_error(file: str, line: int, reason: str) -> DrumheadError:
    """Return the error for an invalid file, in the form ``file:line: reason``. `line` counts from 1."""
    return DrumheadError(ErrorCode.MANIFEST, f"{file}:{line}: {reason}")


def host_error(error: OSError) -> DrumheadError:
    """Return the error for a file of the host that cannot be read or written."""
    advice = ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            advice = (
                "; free some space (`drumhead rmi` deletes images), or set DRUMHEAD_HOME to a directory on another disk"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM | errno.ENOENT | errno.ENOTDIR | errno.EEXIST:
            advice = "; if it belongs to drumhead's store, set DRUMHEAD_HOME to a directory that you can write to"
    where = f"{error.filename}: " if error.filename else ""
    return DrumheadError(ErrorCode.HOST_TOOL, f"{where}{error.strerror or error}{advice}")


def message_of(error: DrumheadError | OSError) -> str:
    """Return what a person reads about an error."""
    return (host_error(error) if isinstance(error, OSError) else error).message


def wrong_document(file: str, what: str, error: msgspec.ValidationError) -> DrumheadError:
    """Return the error for a TOML or JSON file that is not `what`, with the place of the wrong value."""
    reason, place = wrong_value(error, mapping="keys with values")
    return manifest_error(file, 1, f"it is not {what}: {place}{': ' if place else ''}{reason}")


WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "null": "nothing",
}
"""What people call the types that msgspec names."""
_EXPECTED = re.compile(r"Expected `(?P<types>[^`]+)`(?P<rest>.*)", re.DOTALL)
_COMPARISONS = {">=": "at least", "<=": "at most"}
_PLACED = re.compile(r"(?P<reason>.*) - at `(key` in `)?(?P<place>\$[^`]*)`", re.DOTALL)


def reason_and_place(error: msgspec.ValidationError) -> tuple[str, str]:
    """Split msgspec's message into what is wrong and the place (``$.dependencies[2].name``, empty for the whole).

    The place is at the end. What is wrong may quote a value, which may hold anything.
    """
    match = _PLACED.fullmatch(str(error))
    return (match["reason"], match["place"]) if match else (str(error), "")


def wrong_value(error: msgspec.ValidationError, *, mapping: str = "a mapping (key: value)") -> tuple[str, str]:
    """Return what is wrong with a value, in words, and its place (``dependencies[2].name``, empty for the whole).

    `mapping` is what the file's format calls an object.
    """
    reason, place = reason_and_place(error)
    place = place.removeprefix("$").removeprefix(".").replace("[...]", "")
    if missing := re.fullmatch(r"Object missing required field `(.+)`", reason):
        return f"{missing[1]} is missing", place
    if choice := re.fullmatch(r"Invalid enum value (.+)", reason, re.DOTALL):
        return f"{choice[1][:100]} is not a valid value", place
    if not (match := _EXPECTED.fullmatch(reason)):
        return reason.replace("`", ""), place
    words = {**WORDS, "object": mapping}
    names = [name for name in match["types"].split(" | ") if name != "null"] or ["null"]
    expected = f"expected {' or '.join(words.get(name, name) for name in names)}"
    if got := re.fullmatch(r", got `([^`]+)`", match["rest"]):
        return f"{expected}, not {words.get(got[1], got[1])}", place
    if bound := re.fullmatch(r"( of length)? (>=|<=) (\d+)", match["rest"]):
        unit = {"array": " values", "str": " characters"}.get(names[0], "") if bound[1] else ""
        return (
            f"{expected} of {_COMPARISONS[bound[2]]} {bound[3]}{unit.removesuffix('s') if bound[3] == '1' else unit}",
            place,
        )
    return f"{expected}{match['rest']}".replace("`", ""), place
