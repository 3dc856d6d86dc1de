"""Read the headers of the tus protocol."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection

from aiohttp import web

from safelight.errors import Code, Error

TUS = {"Tus-Resumable": "1.0.0"}
CHECKSUMS = ("sha1", "sha256", "sha512", "md5")


def number(request: web.Request, name: str) -> int:
    """Read a header that must be a whole number. Raises INVALID_REQUEST."""
    text = request.headers.get(name, "")
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise Error(Code.INVALID_REQUEST, f"{name} must be a whole number of bytes.", position=name)
    return int(text)


def length(request: web.Request) -> int:
    """Read `Upload-Length`. Raises INVALID_REQUEST, also for requests of extensions that this server does not have."""
    if "Upload-Concat" in request.headers:
        # Taken for a whole photo, the first part would become a task of its own.
        sentence = "Uploads cannot be joined (Upload-Concat). Send the photo as one upload, without parallel parts."
        raise Error(Code.INVALID_REQUEST, sentence, position="Upload-Concat")
    if "Upload-Defer-Length" in request.headers:
        sentence = "The length of an upload cannot be told later (Upload-Defer-Length). Send Upload-Length."
        raise Error(Code.INVALID_REQUEST, sentence, position="Upload-Defer-Length")
    return number(request, "Upload-Length")


def metadata(request: web.Request, used: Collection[str]) -> dict[str, str]:
    """Read `Upload-Metadata`: names and base64 values, of which only those that are `used` must be text.

    Raises INVALID_REQUEST.
    """
    found: dict[str, str] = {}
    text = request.headers.get("Upload-Metadata", "")
    if not text.isascii():
        sentence = "Upload-Metadata has names in ASCII and values in base64."
        raise Error(Code.INVALID_REQUEST, sentence, position="Upload-Metadata")
    for pair in filter(None, map(str.strip, text.split(","))):
        name, _, value = pair.partition(" ")
        if name in found:
            raise Error(Code.INVALID_REQUEST, f"Upload-Metadata names {name[:64]} twice.", position="Upload-Metadata")
        try:
            found[name] = base64.b64decode(value.strip(), validate=True).decode(
                errors="strict" if name in used else "replace"
            )
        except (binascii.Error, UnicodeDecodeError):
            sentence = f"The value of {name[:64]} in Upload-Metadata is not UTF-8 text in base64."
            raise Error(Code.INVALID_REQUEST, sentence, position="Upload-Metadata") from None
    return found


def checksum(request: web.Request) -> str | None:
    """Read `Upload-Checksum` and return it as `algorithm:hex`, None without one. Raises INVALID_REQUEST."""
    given = request.headers.get("Upload-Checksum")
    if given is None:
        return None
    algorithm, _, value = given.strip().partition(" ")
    if algorithm not in CHECKSUMS:
        sentence = f"The checksum {algorithm[:32]} is not supported; there are {', '.join(CHECKSUMS)}."
        raise Error(Code.INVALID_REQUEST, sentence, position="Upload-Checksum")
    try:
        return f"{algorithm}:{base64.b64decode(value.strip(), validate=True).hex()}"
    except binascii.Error:
        sentence = "Upload-Checksum is an algorithm, a space and the digest in base64."
        raise Error(Code.INVALID_REQUEST, sentence, position="Upload-Checksum") from None
