"""The closed set of error codes, and the one table between them and HTTP.

Every failure that crosses a boundary (a request, the end of a task, a decoder's report) is an `Error` with one of the
codes in `Code`. On the wire it is an RFC 9457 problem document; `Error.from_problem` reads it back, so a client raises
what the service raised.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import msgspec


class Code(StrEnum):
    """What went wrong, for programs. The sentence for people is `Error.detail`."""

    # A request is wrong.
    INVALID_REQUEST = "invalid_request"
    INVALID_RECIPE = "invalid_recipe"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MISDIRECTED = "misdirected"
    CONFLICT = "conflict"
    LEASE_LOST = "lease_lost"
    PRECONDITION_FAILED = "precondition_failed"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    DIGEST_MISMATCH = "digest_mismatch"
    TOO_LARGE = "too_large"
    TOO_MANY_REQUESTS = "too_many_requests"
    # A photo is wrong.
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    DAMAGED_IMAGE = "damaged_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    OPERATION_FAILED = "operation_failed"
    # An attempt was ended from outside.
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    DECODER_CRASHED = "decoder_crashed"
    WORKER_LOST = "worker_lost"
    # The system has failed.
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    STORAGE_FULL = "storage_full"
    DAMAGED_BLOB = "damaged_blob"


STATUS: dict[Code, int] = {
    Code.INVALID_REQUEST: 400,
    Code.INVALID_RECIPE: 422,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.MISDIRECTED: 421,
    Code.CONFLICT: 409,
    Code.LEASE_LOST: 409,
    Code.PRECONDITION_FAILED: 412,
    Code.RANGE_NOT_SATISFIABLE: 416,
    Code.DIGEST_MISMATCH: 422,
    Code.TOO_LARGE: 413,
    Code.TOO_MANY_REQUESTS: 429,
    Code.NOT_AN_IMAGE: 415,
    Code.UNSUPPORTED_FORMAT: 415,
    Code.DAMAGED_IMAGE: 422,
    Code.TOO_MANY_PIXELS: 422,
    Code.OPERATION_FAILED: 422,
    Code.OUT_OF_MEMORY: 422,
    Code.TIMED_OUT: 422,
    Code.DECODER_CRASHED: 422,
    Code.WORKER_LOST: 422,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.STORAGE_FULL: 507,
    Code.DAMAGED_BLOB: 500,
}

_MEMORY_AGAIN = 2
"""Value of Retry-After, in seconds, for a request that was refused for lack of memory."""

# The code of an answer without a problem document, such as a proxy's page or a classic service's sentence.
_FALLBACK: dict[int, Code] = {
    400: Code.INVALID_REQUEST,
    401: Code.UNAUTHENTICATED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    421: Code.MISDIRECTED,
    409: Code.CONFLICT,
    412: Code.PRECONDITION_FAILED,
    413: Code.TOO_LARGE,
    415: Code.UNSUPPORTED_FORMAT,
    416: Code.RANGE_NOT_SATISFIABLE,
    422: Code.INVALID_REQUEST,
    429: Code.TOO_MANY_REQUESTS,
    500: Code.INTERNAL,
    501: Code.METHOD_NOT_ALLOWED,
    507: Code.STORAGE_FULL,
}

TITLE: dict[Code, str] = {code: code.value.replace("_", " ").capitalize() for code in Code}

TRANSIENT = frozenset({Code.UNAVAILABLE, Code.TOO_MANY_REQUESTS, Code.STORAGE_FULL, Code.INTERNAL})
"""Errors that are worth a retry: the same request may succeed later."""


FAILED = 1
"""Exit status for a failure that the table below does not name."""

EXIT_STATUS = {
    **dict.fromkeys((Code.INVALID_REQUEST, Code.INVALID_RECIPE, Code.TOO_LARGE, Code.METHOD_NOT_ALLOWED), 2),
    **dict.fromkeys((Code.RANGE_NOT_SATISFIABLE, Code.NOT_AN_IMAGE, Code.UNSUPPORTED_FORMAT, Code.DAMAGED_IMAGE), 2),
    **dict.fromkeys((Code.TOO_MANY_PIXELS, Code.OPERATION_FAILED), 2),
    Code.NOT_FOUND: 3,
    **dict.fromkeys((Code.UNAVAILABLE, Code.TOO_MANY_REQUESTS, Code.STORAGE_FULL), 4),
    **dict.fromkeys((Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.CONFLICT, Code.LEASE_LOST), 5),
    Code.PRECONDITION_FAILED: 5,
    **dict.fromkeys((Code.DIGEST_MISMATCH, Code.DAMAGED_BLOB), 6),
}
"""Exit status of a program that ends for an error, from the table shared with drumhead (docs/reference/errors.md)."""


MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was expected. A text that is not UTF-8 is no MsgspecError to it."""


class Error(Exception):
    """A failure with a code for programs and a sentence for people that says what to do.

    `extra` holds further members of the problem document (`position`, `retry_after` in seconds, `limit`, …); its
    values are JSON values. Text that is quoted from a request may contain bytes that are not UTF-8, which are escaped.
    """

    def __init__(self, code: Code, detail: str, /, **extra: Any) -> None:
        self.code = code
        self.detail = escaped(detail)
        self.extra: dict[str, Any] = {
            name: escaped(value) if isinstance(value, str) else value for name, value in extra.items()
        }
        super().__init__(code, self.detail)

    def __str__(self) -> str:
        return f"{self.detail} ({self.code.value})"

    @property
    def status(self) -> int:
        """The HTTP status of this error."""
        return STATUS[self.code]

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.code in TRANSIENT

    def problem(self) -> dict[str, Any]:
        """Return the RFC 9457 problem document."""
        return {
            "type": f"urn:safelight:problem:{self.code.value}",
            "title": TITLE[self.code],
            "status": self.status,
            "detail": self.detail,
            "code": self.code.value,
            **self.extra,
        }

    @classmethod
    def from_problem(cls, document: object, status: int) -> Error:
        """Read a problem document. Anything else becomes an error whose code follows from the status."""
        fields: dict[str, Any] = dict(document) if isinstance(document, dict) else {}
        try:
            code = Code(fields.get("code", ""))
        except ValueError:
            code = _FALLBACK.get(status, Code.UNAVAILABLE if status >= 500 else Code.INVALID_REQUEST)
        said = fields.get("detail") or f"The service, or a proxy in front of it, answered {status} {_phrase(status)}."
        known = {"type", "title", "status", "detail", "code"}
        return cls(code, str(said), **{key: value for key, value in fields.items() if key not in known})


def escaped(text: str) -> str:
    """Escape halves of surrogate pairs, which stand for bytes that are not UTF-8 and which nothing can encode."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def plural(n: float, noun: str) -> str:
    """Return a noun, with an s unless there is one of it."""
    return noun if n == 1 else f"{noun}s"


def status_of(error: Error) -> int:
    """Return the exit status of a program that ends for an error."""
    return EXIT_STATUS.get(error.code, FAILED)


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, also for a new thread, a lock or a library."""
    match error:
        case MemoryError() | OSError(errno=errno.ENOMEM):
            return True
        case RuntimeError():
            return str(error).startswith(("can't start new thread", "can't allocate lock"))
        case ImportError():
            return "failed to map segment" in str(error) or "cannot allocate memory" in str(error).lower()
        case _:
            return False


def no_memory() -> Error:
    """Return the error with which a service without memory refuses a request."""
    sentence = "The service has no memory left for this request. Try again soon, or give the service more memory."
    return Error(Code.UNAVAILABLE, sentence, retry_after=_MEMORY_AGAIN)


def validation_problem(error: Exception) -> tuple[str, str]:
    """Split the message of a msgspec `ValidationError` into what is wrong and where, such as `$.outputs[0]`."""
    said = str(error)
    sentence, found, position = said.rpartition(" - at `")  # the last, since the sentence may repeat a value
    return (sentence, position.strip("`")) if found else (said, "$")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no standard status)"
