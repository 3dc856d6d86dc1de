"""Objects of a bucket: obstore with this project's errors, timeouts and retries.

obstore retries requests that a bucket refuses temporarily. Deletions are not retried: a repeated one could arrive after
the object was stored again.
"""

from __future__ import annotations

import asyncio
import html
import os
import random
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec
import obstore
from obstore import exceptions
from obstore.store import ObjectStore, from_url

from safelight.client.availability.reachability import Reachability
from safelight.errors import Code, Error
from safelight.storage.identity import MARK

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, PutResult, UpdateVersion
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("s3", "gs", "az")

PART = 8 << 20
"""Bytes of a part of a multipart upload. S3 takes 10,000 parts, and so at most 80 GB."""

STORED = "stored"
"""The attribute with the time at which an object was stored (ns), because buckets round their own times to seconds."""

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT",),
    "gs": ("GOOGLE_BASE_URL",),
}
"""The variables that name another server than the provider's, by scheme."""
_TOO_OFTEN = 15.0
"""Seconds for which an object is tried again that Google does not let be written more than about once a second."""
_STREAM_CHUNK = 1 << 18
_REQUEST = timedelta(seconds=60)
_TRANSFER = timedelta(days=1)
_RETRY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
_NO_RETRY: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=15)}

SAFE = {
    # An uploaded file must never run as a page.
    "Content-Type": "application/octet-stream",
    "Content-Disposition": "attachment",
    "Cache-Control": "private, max-age=31536000, immutable",
}
"""The headers with which the bucket answers a request for an object."""


_SAID = re.compile(r"<(?:Code|Message)>([^<]{1,300})</")


class Found(msgspec.Struct, frozen=True):
    """An object as a bucket describes it. `stored` is when it was last written (Unix seconds).

    `tag` tells it from what was there before, and is what `Bucket.replace` compares.
    """

    size: int
    stored: float
    tag: str


class Content:
    """The body of an object, which is read from the network on demand."""

    def __init__(self, result: obstore.GetResult, where: str) -> None:
        self._result = result
        self._where = where
        self.size = result.meta["size"]
        self.tag = _tag(where, result.meta)
        self.stored = _moment(result.meta["last_modified"], result.attributes.get(STORED, ""))

    async def chunks(self) -> AsyncIterator[bytes]:
        """Stream the bytes; this works once."""
        with translated(self._where):
            async for chunk in self._result.stream(min_chunk_size=_STREAM_CHUNK):
                yield bytes(chunk)

    async def read(self) -> bytes:
        """Return all bytes of a small object."""
        with translated(self._where):
            return bytes(await self._result.bytes_async())


class Bucket:
    """A bucket, or a prefix in it. Every method raises UNAVAILABLE if the bucket does not answer."""

    def __init__(self, url: str) -> None:
        """Take the URL of a bucket; nothing is sent yet.

        `url` is `s3://BUCKET/PREFIX`, `gs://…` or `az://…`. Credentials, region and endpoint come from the environment
        variables of the provider's own tools (AWS_…, GOOGLE_…, AZURE_…). Raises INVALID_REQUEST if they cannot be used.
        """
        self.url = url
        self.reachability = Reachability("bucket")
        try:
            self._requests = _open(url, _REQUEST, _RETRY)
            self._transfers = _open(url, _TRANSFER, _RETRY)
            self._once = _open(url, _REQUEST, _NO_RETRY)
        except (exceptions.BaseError, ValueError, OSError) as error:
            raise Error(Code.INVALID_REQUEST, f"{url} cannot be used: {_reason(error)}.", position="store") from error

    async def create(self, key: str, data: bytes | bytearray, *, public: bool = False) -> str | None:
        """Write an object that does not exist, and return its tag; None if it exists."""
        async with self._sending():
            try:
                put = await self._put(key, data, "create", _attributes(public))
            except exceptions.AlreadyExistsError:
                return None
        return _tag(self.url, put)

    async def write(self, key: str, data: bytes | bytearray, *, public: bool = False) -> str:
        """Write an object, replacing an existing one; return its tag."""
        async with self._sending():
            put = await self._put(key, data, "overwrite", _attributes(public))
        return _tag(self.url, put)

    async def replace(self, key: str, data: bytes, tag: str) -> str | None:
        """Replace an object if it still has a tag, and return its new tag; None if it has another tag or is gone."""
        async with self._sending():
            with _AbsentAllowed():
                return _tag(self.url, await self._put(key, data, _still(self.url, tag), _attributes(public=False)))
        return None

    async def _put(self, key: str, data: bytes | bytearray, mode: PutMode, attributes: dict[str, str]) -> PutResult:
        """Write an object by one request, and again later where that is refused because it was written just now."""
        deadline = time.monotonic() + _TOO_OFTEN
        while True:
            try:
                put = await obstore.put_async(
                    self._requests, key, data, mode=mode, attributes=attributes, use_multipart=False
                )
            except exceptions.BaseError as error:
                if "429 Too Many Requests" not in str(error) or time.monotonic() > deadline:
                    raise
            else:
                self.reachability.answered()
                return put
            await asyncio.sleep(random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret

    async def upload(self, key: str, chunks: AsyncIterable[bytes | bytearray]) -> None:
        """Write a large object in parts. If `chunks` raises, remove the parts and raise the error."""
        async with self._sending():
            await obstore.put_async(
                self._transfers, key, chunks, use_multipart=True, chunk_size=PART, max_concurrency=2, attributes=SAFE
            )

    async def copy(self, key: str, to: str) -> None:
        """Copy an object within the bucket. Raises NOT_FOUND."""
        async with self._sending():
            await obstore.copy_async(self._transfers, key, to)

    async def find(self, key: str) -> Found | None:
        """Return an object's size, time and tag; None if it does not exist."""
        async with self._sending():
            with _AbsentAllowed():
                result = await obstore.get_async(self._requests, key, options={"head": True})
                stored = _moment(result.meta["last_modified"], result.attributes.get(STORED, ""))
                return Found(result.meta["size"], stored, _tag(self.url, result.meta))
        return None

    async def read(self, key: str, start: int = 0, end: int | None = None) -> Content | None:
        """Open an object, or the bytes from `start` up to `end` of it; None if it does not exist."""
        options: obstore.GetOptions = {"range": (start, end)} if end is not None else {}
        async with self._sending():
            with _AbsentAllowed():
                return Content(await obstore.get_async(self._transfers, key, options=options), self.url)
        return None

    async def delete(self, *keys: str) -> None:
        """Delete objects. A deletion is sent only once, so after an error it is unknown whether it happened."""
        with translated(self.url), _AbsentAllowed():
            await obstore.delete_async(self._once, list(keys))

    async def listing(self, prefix: str) -> AsyncIterator[tuple[str, Found]]:
        """List the objects below a prefix. Their times are rounded down by the bucket, often to seconds."""
        with translated(self.url):
            stream = obstore.list(self._requests, prefix, chunk_size=1000)
            async for page in stream:
                for meta in page:
                    yield meta["path"], Found(meta["size"], meta["last_modified"].timestamp(), _tag(self.url, meta))

    async def directories(self, prefix: str) -> list[str]:
        """Return the prefixes one level below a prefix."""
        with translated(self.url):
            return sorted((await obstore.list_with_delimiter_async(self._requests, prefix))["common_prefixes"])

    @asynccontextmanager
    async def _sending(self) -> AsyncIterator[None]:
        """Translate errors, and do not wait for a bucket that is known to be away."""
        async with self.reachability.required():
            with translated(self.url):
                yield

    async def ask(self) -> None:
        """Send one small request, to learn whether the bucket answers and accepts the credentials.

        It is no HEAD, because an answer to that does not say why a bucket refuses.
        """
        with translated(self.url), _AbsentAllowed():
            await (await obstore.get_async(self._once, MARK)).bytes_async()

    def text(self, key: str) -> Text:
        """Return an object that can be used like a small text file; its methods block."""
        return Text(self._requests, key, self.url)


class Text:
    """A small text in a bucket, with some methods of `pathlib.Path`."""

    def __init__(self, store: ObjectStore, key: str, where: str) -> None:
        self._store = store
        self._key = key
        self._where = where

    def __str__(self) -> str:
        return f"{self._where.rstrip('/')}/{self._key}"

    def exists(self) -> bool:
        """Return whether the object exists."""
        with translated(self._where):
            try:
                obstore.head(self._store, self._key)
            except FileNotFoundError:
                return False
        return True

    def read_text(self) -> str:
        """Return the text. Raises NOT_FOUND."""
        with translated(self._where):
            return bytes(obstore.get(self._store, self._key).bytes()).decode()

    def write_text(self, data: str, /) -> int:
        """Write the text; return its length."""
        with translated(self._where):
            obstore.put(self._store, self._key, data.encode(), use_multipart=False)
        return len(data)

    def read(self) -> str:
        """Return the text without surrounding whitespace, or "" if there is no object."""
        with translated(self._where), _AbsentAllowed():
            return bytes(obstore.get(self._store, self._key).bytes()).decode().strip()
        return ""

    def create(self, data: str) -> None:
        """Write the text unless another instance has written one."""
        with translated(self._where), suppress(exceptions.AlreadyExistsError):
            obstore.put(self._store, self._key, data.encode(), mode="create")


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Translate obstore's exceptions to `Error`."""
    try:
        yield
    except (exceptions.BaseError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and not _is_bucket_absent(error):
            raise Error(Code.NOT_FOUND, f"{where} does not have this object.") from error
        reason = _reason(error)
        if any(sign in reason for sign in _FULL):
            raise Error(Code.STORAGE_FULL, f"The bucket {where} is full: {reason}.") from error
        raise Error(Code.UNAVAILABLE, f"The bucket {where} failed: {reason}.{_advice(reason)}") from error


class _AbsentAllowed:
    """Goes on after the context if an object is not there, or not as expected; but not if its whole bucket is gone."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        absent = isinstance(error, (FileNotFoundError, exceptions.PreconditionError))
        return absent and not _is_bucket_absent(error)


def _is_bucket_absent(error: BaseException | None) -> bool:
    return any(sign in str(error) for sign in _NO_BUCKET)


_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")

_FULL = ("507 Insufficient Storage", "QuotaExceeded", "InsufficientStorage")
"""Signs of a bucket that is full. The number alone may also be in a digest or in the time that a request took."""

_ADVICE = {
    _NO_BUCKET: "Create the bucket, or correct --store.",
    ("RequestTimeTooSkewed",): "Set the clock of this machine.",
    ("ExpiredToken",): "Give storage new credentials, and start it again.",
    ("169.254.169.254", "metadata.google.internal"): (
        "There are no credentials in the environment, and this machine has no role. Set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY (or those of Google or Azure)."
    ),
    ("401 Unauthorized", "403 Forbidden", "lacked the necessary privileges"): (
        "Check the credentials in the environment; they must allow to read, write, list and delete below the prefix."
    ),
}


def _advice(reason: str) -> str:
    """Return what an operator can do about a failure, after a space; or nothing."""
    return next((f" {what}" for signs, what in _ADVICE.items() if any(sign in reason for sign in signs)), "")


def _open(url: str, timeout: timedelta, retry: RetryConfig) -> ObjectStore:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise ValueError("write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX")
    if {".", ".."} & set(unquote(parts.path).split("/")) or "?" in url or "#" in url:
        # These would be resolved or cut off, so that another prefix than the one that was named is used.
        raise ValueError("a prefix must not contain ?, # or the segments . and ..")
    options: ClientConfig = {
        "timeout": timeout,
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=30),
        # Plain HTTP is allowed if the endpoint's URL says so.
        "allow_http": "http" in _endpoint_schemes(parts.scheme),
    }
    return from_url(url, client_options=options, retry_config=retry)


def prefix_of(url: str) -> str:
    """Return the prefix that a store's URL names, in which `%20` is a space as for the library."""
    return unquote(urlsplit(url).path).strip("/")


def _endpoint_schemes(provider: str) -> set[str]:
    """Return the schemes of a provider's endpoints. Raises ValueError for a value with which obstore would panic."""
    schemes = set()
    for name in _ENDPOINTS[provider]:
        if value := os.environ.get(name, ""):
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"write a URL into {name}, such as https://HOST:PORT, not {value}")
            schemes.add(parts.scheme)
    return schemes


def _tag(url: str, described: ObjectMeta | PutResult) -> str:
    """Return what tells this object from what was there before: Google compares generations, the others ETags."""
    return described["version" if _is_google(url) else "e_tag"] or ""


def _still(url: str, tag: str) -> UpdateVersion:
    """Return the condition that an object has a tag."""
    return {"version": tag} if _is_google(url) else {"e_tag": tag}


def _is_google(url: str) -> bool:
    return urlsplit(url).scheme == "gs"


def _attributes(public: bool) -> dict[str, str]:  # noqa: FBT001
    return {**(SAFE if public else {}), STORED: str(time.time_ns())}


def _moment(modified: datetime, exact: str) -> float:
    """Return the exact time if it agrees with the bucket's clock, or the latest time that the bucket's clock allows.

    A request is sent a little before the bucket records its time, perhaps in the previous second.
    """
    rounded = modified.timestamp()
    moment = int(exact) / 1e9 if exact.isascii() and exact.isdigit() else 0.0
    return moment if rounded - 1 <= moment < rounded + 1 else rounded + 0.999


def _reason(error: BaseException) -> str:
    """Return the first line of obstore's message, and the bucket's message; the rest is for developers."""
    text = str(error)
    said = [html.unescape(found) for found in _SAID.findall(text)]
    first = text.partition("\n")[0].partition(": <?xml")[0].rstrip(".")[:500]
    return " ".join((first or type(error).__name__, *(f"({sentence})" for sentence in said[:2])))
