"""Fetch files over HTTP with timeouts and retries. A file appears by rename, after it was verified."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import aiohttp

from drumhead.blobs import file_digest, replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.report import silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from drumhead.report import Report

ATTEMPTS = 4
FIRST_DELAY = 0.5
CHUNK = 1 << 18
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)


def new_client() -> aiohttp.ClientSession:
    """Return an HTTP client that uses the environment's proxies and limits the time of each read, not the total."""
    return aiohttp.ClientSession(timeout=TIMEOUT, trust_env=True, headers={"User-Agent": "drumhead"})


async def fetch_bytes(
    client: aiohttp.ClientSession, url: str, *, limit: int = 64 << 20, headers: dict[str, str] | None = None
) -> bytes:
    """Fetch a small document. Raises NOT_FOUND for a 404, REMOTE for any other failure."""
    return b"".join([chunk async for chunk in _attempts(client, url, limit, headers or {})])


async def fetch_file(
    client: aiohttp.ClientSession,
    url: str,
    path: Path,
    *,
    digest: str,
    size: int,
    report: Report = silent,
    headers: dict[str, str] | None = None,
) -> Path:
    """Fetch `url` to `path`, unless `path` is already a file with this SHA-256 `digest` and `size` (bytes).

    Raises UNVERIFIED if digest or size differ, NOT_FOUND, REMOTE. A failed transfer leaves no file behind.
    """
    if await asyncio.to_thread(_is_there, path, digest, size):
        return path
    label = url.rsplit("/", 1)[-1]
    with replacing(path) as temporary:
        state = hashlib.sha256()
        done = 0
        with temporary.open("wb") as out:
            async for chunk in _attempts(client, url, size, headers or {}):
                out.write(chunk)
                state.update(chunk)
                done += len(chunk)
                report(label, done, size)
        if state.hexdigest() != digest:
            raise DrumheadError(
                ErrorCode.UNVERIFIED,
                f"{url} has SHA-256 {state.hexdigest()}, but {digest} was expected; nothing is kept",
            )
    return path


def _is_there(path: Path, digest: str, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size and file_digest(path) == digest


async def _attempts(
    client: aiohttp.ClientSession, url: str, limit: int, headers: dict[str, str]
) -> AsyncIterator[bytes]:
    """Yield the body of `url`, at most `limit` bytes.

    A broken transfer resumes where it stopped, with growing delays.
    """
    done = 0
    for attempt in range(ATTEMPTS):
        try:
            resumed = {"Range": f"bytes={done}-"} if done else {}
            async with client.get(url, headers=headers | resumed) as answer:
                _check(answer, url)
                skip = done if answer.status == 200 else 0
                async for chunk in answer.content.iter_chunked(CHUNK):
                    part = chunk[skip:]
                    skip = max(0, skip - len(chunk))
                    done += len(part)
                    if done > limit:
                        raise DrumheadError(ErrorCode.UNVERIFIED, f"{url} is longer than the expected {limit} bytes")
                    if part:
                        yield part
                return
        except (aiohttp.ClientError, TimeoutError) as error:
            if attempt == ATTEMPTS - 1:
                raise DrumheadError(ErrorCode.REMOTE, f"{url} cannot be fetched: {failure_text(error)}") from error
            await asyncio.sleep(FIRST_DELAY * 2**attempt)


def is_transient(status: int) -> bool:
    """Return whether the same request may succeed a little later."""
    return status >= 500 or status in {408, 429}


def failure_text(error: aiohttp.ClientError | TimeoutError) -> str:
    """Return the reason for a failed request, in words for people."""
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        reason = getattr(error.os_error, "reason", "") or error.os_error
        return (
            f"it does not speak TLS ({reason}); if it speaks plain HTTP, give its URL with http://, or with "
            "oci+http:// for a registry"
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
        return (
            f"its certificate is not trusted ({reason}); if you trust it, set SSL_CERT_FILE to a file with the "
            "certificate of its authority"
        )
    if isinstance(error, aiohttp.TooManyRedirects):
        return "it redirects without end"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"it answered {error.status} {error.message}"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke off within its answer"
    return str(error) or "no answer"


def _check(answer: aiohttp.ClientResponse, url: str) -> None:
    if answer.status in {404, 410}:
        raise DrumheadError(ErrorCode.NOT_FOUND, f"{url} does not exist")
    if is_transient(answer.status):
        raise aiohttp.ClientResponseError(answer.request_info, (), status=answer.status, message=answer.reason or "")
    if answer.status not in {200, 206}:
        raise DrumheadError(ErrorCode.REMOTE, f"{url} answered {answer.status} {answer.reason}")
