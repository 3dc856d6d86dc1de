"""Read answers and errors, and recognise what is none of a service: a proxy, a sign-in page, another service."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import ClientResponse, hdrs
from yarl import URL

from safelight.errors import MALFORMED, Code, Error
from safelight.untrusted.text import printable

ANSWER_TIME = 300.0
"""Seconds for the head of an answer to arrive, and then again for a body that is read into memory."""
_LONGEST_ANSWER = 256 << 20
_SHORT = 9
"""The most digits of a Content-Length for an answer to be read at once."""
_SHOWN = 200
"""Characters of a redirect's target that an error quotes at most."""
SERVER = "safelight-"
"""How the header `Server` of a service begins; the service's name follows."""
_NOT_FOUND = 404
_DIGITS = 10
_NAMES = {"keyvaluestore": "key-value store"}
T = TypeVar("T")


async def read(response: ClientResponse) -> bytes:
    """Read an answer into memory, within limits of size and time. Raises TimeoutError."""
    if response.content.is_eof():
        return await response.read()  # it has already arrived
    announced = response.headers.get(hdrs.CONTENT_LENGTH)
    async with asyncio.timeout(ANSWER_TIME):
        if announced is not None and hdrs.TRANSFER_ENCODING not in response.headers and len(announced) < _SHORT:
            return await response.read()  # it cannot be larger than its Content-Length
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > _LONGEST_ANSWER:
                raise Error(Code.INTERNAL, f"The answer has more than {_LONGEST_ANSWER} bytes.")
    return bytes(data)


def decoded(data: bytes, kind: type[T], asked: str) -> T:
    """Decode the JSON answer of a service. Raises INTERNAL."""
    try:
        return msgspec.json.decode(data, type=kind)
    except MALFORMED as error:
        raise Error(Code.INTERNAL, f"The answer to {asked} could not be decoded: {error}.") from None


def target(url: str) -> URL:
    """Parse the untrusted target of a download. Raises UNAVAILABLE if it is not an address."""
    try:
        address = URL(url, encoded=True)
        known = address.scheme in ("http", "https") and bool(address.host)
    except ValueError:
        known = False
    if not known:
        raise Error(Code.UNAVAILABLE, "The service redirected a download to an invalid address. Try again.")
    return address


def misdirected(base: str, path: str, location: str) -> Error:
    """Return the error for a request that was answered with a redirect, which no service does by itself."""
    address = location.partition("?")[0]
    if address.endswith(path) and address.startswith(("http://", "https://")):
        advice = f"Give the address {printable(address.removesuffix(path))[:_SHOWN]} instead."
    else:
        advice = "Give an address that leads to the service itself, and not to a sign-in page."
    return Error(Code.MISDIRECTED, f"{base} redirects to {printable(location)[:_SHOWN] or 'nowhere'}. {advice}")


def check_service(response: ClientResponse, base: str, wanted: str) -> None:
    """Raise MISDIRECTED for the answer of another service of the system than the wanted one."""
    server = response.headers.get("Server", "")
    if server.startswith(SERVER) and server != SERVER + wanted:
        found = server.removeprefix(SERVER)[:_SHOWN]
        detail = f"At {base} is the {_name(printable(found))} of a system. Give the address of its {_name(wanted)}."
        raise Error(Code.MISDIRECTED, detail)


def _name(service: str) -> str:
    return _NAMES.get(service, service)


def is_page(data: bytes) -> bool:
    """Return whether an answer is a page for people (its type does not tell: some frameworks call all text HTML)."""
    return data.lstrip().startswith(b"<")


def page_instead(base: str, status: int) -> str:
    """Return the sentence for a page that came instead of a service's answer."""
    return (
        f"{base} answered {status} with a web page, as no service of safelight does. Check the address, and the proxy "
        "if one is in front of the service."
    )


async def error_of(response: ClientResponse, base: str, *, named: bool) -> Error:
    """Read an error. A page that is not found means that nothing of a `named` service is there."""
    data = await response.content.read(65536)
    try:
        document = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        document = {"detail": data.decode(errors="replace").strip()[:500]}
        if is_page(data):
            elsewhere = named and response.status == _NOT_FOUND
            document = {"detail": page_instead(base, response.status), "code": Code.MISDIRECTED if elsewhere else ""}
    error = Error.from_problem(document, response.status)
    after = response.headers.get("Retry-After", "")
    if after.isascii() and after.isdigit() and len(after) < _DIGITS:
        error.extra.setdefault("retry_after", int(after))
    return error
