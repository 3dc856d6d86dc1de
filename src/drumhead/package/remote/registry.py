"""A client for OCI registries (OCI distribution specification 1.1).

The library oras is not used, because it is synchronous (requests) and takes 350 ms of processor time to import. This
module takes 260 ms, most of it for aiohttp.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from drumhead.download import ATTEMPTS, CHUNK, FIRST_DELAY, failure_text, fetch_file, is_transient
from drumhead.errors import MALFORMED, DrumheadError, ErrorCode
from drumhead.report import silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from drumhead.report import Report

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST_TYPES = (
    MANIFEST_TYPE,
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
"""What a tag may name. Only the first can be of drumhead, but a registry refuses to give what is not asked for."""
LAYER_TYPE = "application/vnd.drumhead.layer.v1."
"""The prefix of the media types of layers; the name of the file system follows."""
REPOSITORY_NAME = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
"""The names of repositories that a registry accepts."""
OF_REPOSITORY = re.compile(r"/v2/(.+)/(?:blobs|manifests|tags)/")
PAGE = 100
MOST_PAGES = 1000
MOST_BYTES = 16 << 20
"""The limit in bytes for a page, a manifest or a record."""
LONGEST_DELAY = 30
"""The most seconds to wait before a request is repeated, whatever the registry asks for."""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The description of a blob in a manifest. `digest` is ``sha256:HEX``."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}

    @property
    def hexadecimal(self) -> str:
        return self.digest.removeprefix("sha256:")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An OCI image manifest that carries an artifact. Documents of other kinds have an empty config."""

    schema_version: int = 2
    media_type: str = MANIFEST_TYPE
    artifact_type: str = ""
    config: Descriptor = Descriptor(media_type="", digest="", size=0)
    layers: tuple[Descriptor, ...] = ()
    annotations: dict[str, str] = {}


class Registry:
    """A client of one registry. `url` has no path.

    It logs in with DRUMHEAD_REGISTRY_USER and …_PASSWORD only if DRUMHEAD_REGISTRY names this registry: commands ask
    every remote, and any of them could ask for a login.
    """

    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._authorizations: dict[tuple[str, str], str] = {}
        """Tokens by repository and scope. A token for one repository does not open another."""

    async def repositories(self) -> list[str]:
        """Return the names of all repositories. Raises REMOTE if the registry does not allow listing them."""
        try:
            return [name async for name in self._pages("/v2/_catalog", "repositories")]
        except DrumheadError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            raise DrumheadError(
                ErrorCode.REMOTE, f"{self._url} does not list its repositories; pull packages by their names"
            ) from error

    async def tags(self, name: str) -> list[str]:
        return [tag async for tag in self._pages(f"/v2/{name}/tags/list", "tags")]

    async def manifest(self, name: str, reference: str) -> Manifest:
        """Return the manifest of a tag or digest; verify it for a digest. Raises NOT_FOUND, UNVERIFIED, REMOTE."""
        async with await self._request(
            "GET", f"/v2/{name}/manifests/{reference}", headers={"Accept": ", ".join(MANIFEST_TYPES)}
        ) as answer:
            contents = await _small(answer)
        if reference.startswith("sha256:") and _digest(contents) != reference:
            raise DrumheadError(ErrorCode.UNVERIFIED, f"{self._url}: the manifest of {name} is not {reference}")
        try:
            return msgspec.json.decode(contents, type=Manifest)
        except MALFORMED as error:
            raise DrumheadError(
                ErrorCode.REMOTE, f"{self._url}: {name}:{reference} is not an image manifest"
            ) from error

    async def blob(self, name: str, blob: Descriptor, *, limit: int = 1 << 20) -> bytes:
        """Return the verified bytes of a small blob."""
        if blob.size > limit:
            raise DrumheadError(ErrorCode.REMOTE, f"{self._url}: a record of {name} is {blob.size} bytes long")
        async with await self._request("GET", f"/v2/{name}/blobs/{blob.digest}") as answer:
            contents = await _small(answer)
        if _digest(contents) != blob.digest:
            raise DrumheadError(ErrorCode.UNVERIFIED, f"{self._url}: a blob of {name} is not {blob.digest}")
        return contents

    async def fetch(self, name: str, blob: Descriptor, path: Path, report: Report = silent) -> None:
        """Fetch and verify a blob into a file. Resume an interrupted transfer."""
        authorization = await self._authorize(name)
        headers = {"Authorization": authorization} if authorization else {}
        url = f"{self._url}/v2/{name}/blobs/{blob.digest}"
        await fetch_file(
            self._client, url, path, digest=blob.hexadecimal, size=blob.size, report=report, headers=headers
        )

    async def push_blob(self, name: str, blob: Descriptor, source: Path | bytes, report: Report = silent) -> None:
        """Upload a blob in one request, unless the registry already has it."""
        try:
            async with await self._request("HEAD", f"/v2/{name}/blobs/{blob.digest}", scope="pull,push"):
                return
        except DrumheadError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
        async with await self._request("POST", f"/v2/{name}/blobs/uploads/", scope="pull,push") as answer:
            if "Location" not in answer.headers:
                raise DrumheadError(ErrorCode.REMOTE, f"{self._url} is no registry: it does not say where to upload to")
            place = urljoin(str(answer.url), answer.headers["Location"])
        place += ("&" if "?" in place else "?") + f"digest={blob.digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        body = source if isinstance(source, bytes) else _chunks(source, blob.size, report)
        async with await self._request("PUT", place, name=name, headers=headers, data=body, scope="pull,push"):
            pass

    async def push_manifest(self, name: str, tag: str, manifest: Manifest) -> str:
        """Store a manifest under `tag` and return its digest."""
        contents = msgspec.json.encode(manifest)
        headers = {"Content-Type": MANIFEST_TYPE}
        path = f"/v2/{name}/manifests/{tag}"
        async with await self._request("PUT", path, headers=headers, data=contents, scope="pull,push"):
            return _digest(contents)

    async def _pages(self, path: str, key: str) -> AsyncIterator[str]:
        following = f"{path}?n={PAGE}"
        for _ in range(MOST_PAGES):
            if not following:
                return
            async with await self._request("GET", following) as answer:
                page = await self._json(answer)
                link = re.match(r'<([^>]+)>;\s*rel="?next', answer.headers.get("Link", ""))
                following = urljoin(str(answer.url), link[1]) if link else ""
            for item in page.get(key) or ():
                yield str(item)
        raise DrumheadError(ErrorCode.REMOTE, f"{self._url} returns too many pages for {path}")

    async def _json(self, answer: aiohttp.ClientResponse) -> dict[str, Any]:
        try:
            return msgspec.json.decode(await _small(answer), type=dict[str, Any])
        except MALFORMED as error:
            raise DrumheadError(ErrorCode.REMOTE, f"{self._url} did not answer with JSON: {error}") from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        name: str = "",
        scope: str = "pull",
        headers: dict[str, str] | None = None,
        data: Any = None,
    ) -> aiohttp.ClientResponse:
        """Send one request, with a token if the registry requires one. The caller closes the answer.

        `name` is the repository, if a URL of the registry does not show it.
        """
        url = path if path.startswith("http") else self._url + path
        ours = _origin(url) == _origin(self._url)  # uploads and further pages may be on another host
        key = name or _repository_of(path), scope
        for attempt in range(2):
            sent = dict(headers or {})
            if ours and (authorization := self._authorizations.get(key)):
                sent["Authorization"] = authorization
            with _answering(self._url):
                answer = await self._send(method, url, sent, data)
            if answer.status == 401 and ours:
                challenge = answer.headers.get("WWW-Authenticate", "")
                answer.release()
                if attempt == 0:
                    self._authorizations[key] = await self._answer_challenge(challenge, scope)
                continue
            if answer.status >= 400:
                raise await self._refusal(answer, f"{method} {url}")
            return answer
        raise DrumheadError(
            ErrorCode.REMOTE,
            f"{self._url} denied access to {key[0] or 'the list of its repositories'}; use an account that has it: "
            f"{self._login_advice}",
        )

    async def _send(self, method: str, url: str, headers: dict[str, str], data: Any) -> aiohttp.ClientResponse:
        """Send one request. Repeat one that only reads, with growing delays, while the registry fails to answer it."""
        attempts = ATTEMPTS if method in {"GET", "HEAD"} else 1
        for attempt in range(attempts - 1):
            delay = FIRST_DELAY * 2**attempt
            with suppress(aiohttp.ServerDisconnectedError):
                answer = await self._client.request(method, url, headers=headers, data=data)
                if not is_transient(answer.status):
                    return answer
                answer.release()
                asked = answer.headers.get("Retry-After", "")
                delay = max(delay, min(int(asked[:9]), LONGEST_DELAY) if asked.isdecimal() else 0)
            await asyncio.sleep(delay)
        return await self._client.request(method, url, headers=headers, data=data)

    async def _refusal(self, answer: aiohttp.ClientResponse, asked: str) -> DrumheadError:
        with _answering(self._url):
            said = (await answer.content.read(300)).decode(errors="replace").strip()
        answer.release()
        code = ErrorCode.NOT_FOUND if answer.status == 404 else ErrorCode.REMOTE
        return DrumheadError(code, f"{asked} answered {answer.status} {answer.reason}: {said}".rstrip(": "))

    async def _authorize(self, name: str) -> str:
        """Obtain a token before a transfer that cannot answer a challenge itself; return its header."""
        path = f"/v2/{name}/tags/list?n=1"
        async with await self._request("GET", path):
            return self._authorizations.get((_repository_of(path), "pull"), "")

    async def _answer_challenge(self, challenge: str, scope: str) -> str:
        """Return the Authorization header for a registry's WWW-Authenticate challenge (Basic or Bearer)."""
        login = self._login()
        if not challenge.lower().startswith("bearer"):
            if not login:
                raise DrumheadError(ErrorCode.REMOTE, f"{self._url} requires a login: {self._login_advice}")
            return login
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = {key: fields[key] for key in ("service", "scope") if key in fields}
        if query.get("scope", "").startswith("repository:"):
            query["scope"] = re.sub(r":[a-z,*]+$", f":{scope}", query["scope"])
        realm = fields.get("realm", "")
        if realm and self._url.startswith("https:") and _origin(realm)[0] != "https":
            raise DrumheadError(
                ErrorCode.REMOTE,
                f"{self._url} gives tokens at {realm!r}, without TLS, so nothing was sent there; its operator must "
                "set a realm that starts with https://",
            )
        body: dict[str, Any] = {}
        if realm:
            with _answering(realm):
                headers = {"Authorization": login} if login else {}
                async with self._client.get(realm, params=query, headers=headers) as answer:
                    body = await self._json(answer) if answer.status == 200 else {}
        token = body.get("token") or body.get("access_token")
        if not token:
            raise DrumheadError(ErrorCode.REMOTE, f"{self._url} gave no token: {self._login_advice}")
        return f"Bearer {token}"

    def _login(self) -> str:
        """Return the Authorization header of the account for this registry; an empty string if there is none."""
        user, registry = os.environ.get("DRUMHEAD_REGISTRY_USER"), os.environ.get("DRUMHEAD_REGISTRY")
        if not user or not registry:
            return ""
        scheme = urlsplit(self._url).scheme
        if _origin(f"{scheme}://{registry}") != _origin(self._url):
            return ""
        return aiohttp.encode_basic_auth(user, os.environ.get("DRUMHEAD_REGISTRY_PASSWORD", ""))

    @property
    def _login_advice(self) -> str:
        """What to set to log in, in words for people."""
        if self._login():
            return "check DRUMHEAD_REGISTRY_USER and DRUMHEAD_REGISTRY_PASSWORD"
        host = urlsplit(self._url).netloc.rpartition("@")[2]
        return f"set DRUMHEAD_REGISTRY={host}, DRUMHEAD_REGISTRY_USER and DRUMHEAD_REGISTRY_PASSWORD"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL. Raises REMOTE if it is not one."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError as error:
        raise DrumheadError(ErrorCode.REMOTE, f"{url!r} is not a URL: {error}") from error


def _repository_of(path: str) -> str:
    """Return the repository that a path or URL is about; an empty string for the registry itself."""
    match = OF_REPOSITORY.search(path)
    return match[1] if match else ""


def describe(contents: bytes, media_type: str) -> Descriptor:
    """Return the descriptor of a blob with these contents."""
    return Descriptor(media_type=media_type, digest=_digest(contents), size=len(contents))


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """Raise REMOTE if `url` cannot be asked or its answer breaks off while the block runs."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DrumheadError(ErrorCode.REMOTE, f"{url} does not answer: {failure_text(error)}") from error


async def _small(answer: aiohttp.ClientResponse) -> bytes:
    """Read a document. Raises REMOTE if it is larger than MOST_BYTES, or if the connection breaks."""
    contents = bytearray()
    with _answering(str(answer.url)):
        async for chunk in answer.content.iter_any():
            contents += chunk
            if len(contents) > MOST_BYTES:
                raise DrumheadError(ErrorCode.REMOTE, f"{answer.url} has more than {MOST_BYTES} bytes")
    return bytes(contents)


def _digest(contents: bytes) -> str:
    return "sha256:" + hashlib.sha256(contents).hexdigest()


async def _chunks(path: Path, size: int, report: Report) -> AsyncIterator[bytes]:
    done = 0
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            done += len(chunk)
            report(f"sending {path.name[:12]}", done, size)
            yield chunk
