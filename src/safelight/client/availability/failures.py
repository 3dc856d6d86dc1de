"""Tell whether a request that got no answer was sent, and describe for people why it got none."""

from __future__ import annotations

import os
import ssl

import aiohttp

NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""The exceptions that are raised before the first byte of a request was sent."""


def reason_of(error: Exception) -> str:
    """Return why a request failed, such as "connection refused", instead of the library's message about its call.

    The reason is never empty, although a TimeoutError has no text.
    """
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    match cause:
        case aiohttp.InvalidURL():
            return "this is not a URL"
        case aiohttp.ClientResponseError():
            # The library gives every answer that it cannot read the status 400, and quotes its bytes after a colon.
            return f"its answer is not valid HTTP ({cause.message.partition(':')[0].lower()})"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed"
        case aiohttp.ClientPayloadError():
            return "the connection was closed in the middle of the answer"
        case ssl.SSLCertVerificationError(verify_message=str(text)):
            return f"its certificate is not trusted: {text}"
        case ssl.SSLError(reason=str(text)):
            return f"TLS failed: {text.lower().replace('_', ' ')}"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number).lower()
        case TimeoutError() if not str(cause):
            return "timed out"
        case OSError(strerror=str(text)):
            return text.lower()  # from the resolver
        case _:
            return str(cause) or type(cause).__name__


async def once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a DELETE by itself, since the second answer would say that nothing is there."""
    try:
        return await send(request)
    except NOT_SENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(reason_of(error)) from error
