"""Sign packages and images: ed25519 signatures of their records, which name every blob by its digest.

The sender's private key is in ``signing.key`` of its home, and only its owner can read it. Receivers give the public
key to ``drumhead remote add --key``.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, TypeVar

import msgspec

from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from drumhead.home import Home
    from drumhead.package.records import Package
    from drumhead.records import Image

R = TypeVar("R", "Package", "Image")

_CONTEXT = b"drumhead record 1\n"
"""The prefix of all signed data, so that other signatures of the key are not valid here."""


def create_key(home: Home) -> str:
    """Create the signing key of this home and return the public key. Raises CONFLICT if there is a key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - only signing

    made = Ed25519PrivateKey.generate()
    home.root.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(home.signing_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise DrumheadError(
            ErrorCode.CONFLICT, f"{home.signing_key} already exists; delete it to create another key"
        ) from None
    with os.fdopen(file, "w") as out:
        out.write(base64.b64encode(made.private_bytes_raw()).decode() + "\n")
    return _text(made.public_key())


def public_key(home: Home) -> str:
    """Return the public key of this home. Raises NOT_FOUND."""
    key = _private(home)
    if key is None:
        raise DrumheadError(ErrorCode.NOT_FOUND, "there is no signing key; `drumhead key create` creates one")
    return _text(key.public_key())


def check_key(text: str) -> None:
    """Check that a text is a public key. Raises USAGE."""
    _public(text)


def sign(home: Home, record: R) -> R:
    """Return the record signed with this home's key, or without a signature if there is no key."""
    key = _private(home)
    signature = "" if key is None else base64.b64encode(key.sign(_signed(record))).decode()
    return msgspec.structs.replace(record, signature=signature)


def verify(key: str, record: Package | Image) -> None:
    """Check the signature of a record. Raises UNVERIFIED, and USAGE if `key` is not a public key."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - as above

    if not record.signature:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{record.name} is not signed, but its remote has a key")
    try:
        _public(key).verify(base64.b64decode(record.signature, validate=True), _signed(record))
    except (InvalidSignature, binascii.Error, ValueError):
        detail = f"{record.name} is not signed with the key of its remote; nothing is kept"
        raise DrumheadError(ErrorCode.UNVERIFIED, detail) from None


def _signed(record: Package | Image) -> bytes:
    """Return the bytes to sign. Fields with default values are left out, so that new fields keep old signatures
    valid.
    """
    fields = msgspec.to_builtins(record)
    for field in msgspec.structs.fields(record):
        factory = field.default_factory
        default = field.default if factory is msgspec.NODEFAULT else factory()
        if field.name == "signature" or getattr(record, field.name) == default:
            del fields[field.name]
    kind = type(record).__name__.lower().encode()
    return _CONTEXT + kind + b"\n" + msgspec.json.encode(fields, order="sorted")


def _private(home: Home) -> Ed25519PrivateKey | None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above

    try:
        if home.signing_key.stat().st_mode & 0o077:
            detail = f"other users can read {home.signing_key}; run chmod 600 on it, or create a new key"
            raise DrumheadError(ErrorCode.CONFLICT, detail)
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(home.signing_key.read_text().strip()))
    except FileNotFoundError:
        return None
    except ValueError:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{home.signing_key} is not a signing key") from None


def _public(text: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above

    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        detail = f"{text[:60]!r} is not a public key; `drumhead key show` prints the sender's"
        raise DrumheadError(ErrorCode.USAGE, detail) from None


def _text(key: Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes_raw()).decode()
