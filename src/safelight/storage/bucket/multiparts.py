"""Abort unfinished multipart uploads that a crash left in an S3 bucket, since they cost money but are invisible.

obstore has no call for this, so `signing` signs the two requests with the keys in the environment. If an instance gets
its credentials in another way, the bucket needs a lifecycle rule instead. Google has the same kind of rule; Azure
removes uncommitted blocks by itself after a week.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from safelight.errors import Code, Error
from safelight.storage.bucket import signing
from safelight.storage.bucket.objects import prefix_of

_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_TIMEOUT = aiohttp.ClientTimeout(total=60)


async def abort_unfinished(url: str, before: float) -> int:
    """Abort the uploads to `incoming` that began before a time (Unix seconds); return their number.

    Do nothing for providers other than S3 or without keys in the environment. Raises UNAVAILABLE.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not signing.has_keys():
        return 0
    prefix = "/".join(filter(None, (prefix_of(url), "incoming/")))
    aborted = 0
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
            listing = await _send(http, "GET", parts.netloc, "", {"prefix": prefix, "uploads": ""})
            for key, upload, began in _uploads(listing):
                if began < before and key.startswith(prefix):
                    await _send(http, "DELETE", parts.netloc, key, {"uploadId": upload})
                    aborted += 1
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Error(Code.UNAVAILABLE, f"The bucket {url} did not list its unfinished uploads: {error}.") from error
    return aborted


def _uploads(listing: str) -> Iterator[tuple[str, str, float]]:
    """Yield key, id and start of each upload in an answer to ListMultipartUploads."""
    for found in _UPLOAD.finditer(listing):
        key, upload, began = (_element(name, found[1]) for name in ("Key", "UploadId", "Initiated"))
        yield key, upload, datetime.fromisoformat(began).timestamp()


def _element(name: str, text: str) -> str:
    found = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return html.unescape(found[1]) if found is not None else ""


async def _send(http: aiohttp.ClientSession, method: str, bucket: str, key: str, query: Mapping[str, str]) -> str:
    base = signing.endpoint()
    path = f"{base.path.rstrip('/')}/{bucket}/{quote(key)}".rstrip("/")
    asked = signing.encoded(query)
    url = URL(f"{base.scheme}://{base.netloc}{path}?{asked}", encoded=True)
    async with http.request(method, url, headers=signing.headers(method, base.netloc, path, asked)) as answer:
        answer.raise_for_status()
        return await answer.text()
