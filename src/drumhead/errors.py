"""The closed set of errors.

``DrumheadError`` is the only exception that this package raises on purpose. Its code tells a program what happened, its
message tells a person what to do. A driver's own exception (OSError, aiohttp.ClientError, subprocess failure) is turned
into one at the border where it appears, and nowhere else.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """What went wrong, and the exit status that the command line gives it (``EXIT_STATUS``)."""

    USAGE = "usage"
    """The request makes no sense as given: a bad flag, size, address, name."""
    MANIFEST = "manifest"
    """A project's or fleet's file is wrong; the message starts with file and line."""
    NOT_FOUND = "not-found"
    """No such package, image, instance, fleet, remote."""
    CONFLICT = "conflict"
    """Exists already, is running, or is in use."""
    UNVERIFIED = "unverified"
    """A digest or a signature does not match what was promised."""
    INCOMPLETE = "incomplete"
    """A tree cannot run: a library or a command that it needs is in no package."""
    UNSUPPORTED = "unsupported"
    """This guest or this host cannot do that (exec on OSv, vhost without its device)."""
    HOST_TOOL = "host-tool"
    """A program that the host must provide is missing or failed."""
    REMOTE = "remote"
    """A registry, mirror or package index did not answer as it should."""
    TIMEOUT = "timeout"
    """Something did not happen within the time allowed."""
    GUEST = "guest"
    """The machine ended or answered in a way that it should not."""


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
    """An error with a code of the closed set and a sentence that says what to do.

    Shown to people as is, so it holds no trace and no internals.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def manifest_error(file: str, line: int, reason: str) -> DrumheadError:
    """The one form in which a wrong file is refused: ``file:line: reason``. `line` counts from 1."""
    return DrumheadError(ErrorCode.MANIFEST, f"{file}:{line}: {reason}")
