"""Tell whether a request that got no answer was sent, and describe for people why it got none."""

from __future__ import annotations

import os
import ssl

import aiohttp

NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""The exceptions that are raised before the first byte of a request was sent."""
_OTHER_NAME = (62, 64)
"""OpenSSL's codes of a certificate that is for another name, or another address."""


def reason_of(error: Exception) -> str:
    """Return why a request failed, such as "connection refused", instead of the library's message about its call.

    The reason is never empty, although a TimeoutError has no text.
    """
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy {error.host}:{error.port} cannot be reached: {reason_of(error.os_error)}"
    match cause := _cause(error):
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {cause.status}"
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
            return f"its certificate is not trusted: {text.rstrip('.')}"
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


def advice_on(error: Exception) -> str:
    """Return a sentence about what to do if a request got no answer."""
    match _cause(error):
        case _ if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
            return "HTTP_PROXY and HTTPS_PROXY name the proxy, and NO_PROXY the hosts to reach without it."
        case ssl.SSLCertVerificationError(verify_code=code) if code in _OTHER_NAME:
            return "Give the name that its certificate is for."
        case ssl.SSLCertVerificationError():
            return "SSL_CERT_FILE names a PEM file of other authorities to trust; services have --tls-authorities."
        case ssl.SSLError():
            return "Does the service speak TLS there?"
        case _:
            return "Is the service running?"


def _cause(error: Exception) -> BaseException:
    """Return the error of the connection, certificate or call that a library's error stands for."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
