"""The base of all records, their JSON encoding, and common types of their fields."""

from __future__ import annotations

import codecs
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from safelight.errors import Code, Error
from safelight.untrusted.validation import refusal

T = TypeVar("T")

MAX_PHOTO_BYTES = 256 * 1024 * 1024
"""Size of the largest photo that the master accepts and workers process; `max_photo` is the setting."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of all records."""

    def evolve(self, **changes: Any) -> Any:
        """Return a copy with some fields replaced."""
        return msgspec.structs.replace(self, **changes)


DEFAULT_TENANT = "default"
"""The tenant that owns everything if no tenants were set up."""

# Python's `$` also matches before a line feed at the end.
TenantId = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}(?!\n)$", description="1 to 32 of a-z, 0-9 and -, not beginning with -")
]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?!\n)$", description="SHA-256 of the bytes, lower-case hex")]
Traceparent = Annotated[
    str, Meta(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?!\n)$", description="a span, by W3C Trace Context")
]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class Blob(Record, frozen=True, kw_only=True):
    """Immutable bytes in storage."""

    digest: Digest
    size: Annotated[int, Meta(ge=0)]


class StoredBlob(Blob, frozen=True, kw_only=True):
    """A blob that was stored; `new` is false if it existed before."""

    new: bool = False


def encode(value: object) -> bytes:
    """Encode a record, or a list of them, as JSON."""
    return msgspec.json.encode(value)


def decode(data: bytes | str, kind: type[T]) -> T:
    """Decode JSON into a record. Raises INVALID_REQUEST with the position of the invalid value."""
    if isinstance(data, bytes):
        data = data.removeprefix(codecs.BOM_UTF8)  # programs of Windows write it, and RFC 8259 lets readers ignore it
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise refusal(error, kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if not data:
            raise Error(Code.INVALID_REQUEST, "The request has no body. Send JSON.", position="$") from None
        if isinstance(data, bytes) and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise Error(Code.INVALID_REQUEST, "The body is in UTF-16. Send JSON in UTF-8.", position="$") from None
        raise Error(Code.INVALID_REQUEST, f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise Error(Code.INVALID_REQUEST, "The body is nested too deeply.") from None
