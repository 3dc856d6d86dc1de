"""Abort the unfinished multipart uploads that a crash left in a bucket of S3: they cost money and nobody sees them.

obstore has no call for this, so the two requests are signed here (AWS Signature Version 4), with the keys in the
environment. Where an instance gets its credentials otherwise, the bucket needs a lifecycle rule instead. Google has the
same rule; Azure removes uncommitted blocks by itself after a week.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from safelight.errors import Code, Error

_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_TIMEOUT = aiohttp.ClientTimeout(total=60)
_NOTHING = hashlib.sha256(b"").hexdigest()


async def abort_unfinished(url: str, before: float) -> int:
    """Abort the uploads to `incoming` that began before a time (Unix seconds); return how many they were.

    Does nothing for other providers than S3 and without keys in the environment. Raises UNAVAILABLE.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= os.environ.keys():
        return 0
    prefix = "/".join(filter(None, (parts.path.strip("/"), "incoming/")))
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
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT")
    base = urlsplit(endpoint or f"https://s3.{region}.amazonaws.com")
    path = f"{base.path.rstrip('/')}/{bucket}/{quote(key)}".rstrip("/")
    asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
    headers = _signed(method, base.netloc, path, asked, region)
    url = URL(f"{base.scheme}://{base.netloc}{path}?{asked}", encoded=True)
    async with http.request(method, url, headers=headers) as answer:
        answer.raise_for_status()
        return await answer.text()


def _signed(method: str, host: str, path: str, query: str, region: str) -> dict[str, str]:
    """Return the headers that sign a request without a body; see "Create a signed AWS API request" in AWS's manual."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"host": host, "x-amz-content-sha256": _NOTHING, "x-amz-date": moment}
    if token := os.environ.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = token
    names = ";".join(sorted(headers))
    canonical = "\n".join(
        [method, path, query, *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names, _NOTHING]
    )
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    secret = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for step in (moment[:8], region, "s3", "aws4_request", text):
        secret = hmac.digest(secret, step.encode(), "sha256")
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={secret.hex()}"
    )
    return headers
