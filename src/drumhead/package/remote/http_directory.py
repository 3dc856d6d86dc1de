"""A remote that is a directory behind any HTTP server: ``index.json`` and ``blobs/sha256/HEX``."""

from __future__ import annotations

import asyncio
import shutil
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from drumhead.blobs import exclusive, replacing
from drumhead.download import fetch_bytes, fetch_file
from drumhead.errors import MALFORMED, DrumheadError, ErrorCode
from drumhead.package.records import Package

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import aiohttp

    from drumhead.blobs import Blobs
    from drumhead.report import Report

INDEX, LOCK = "index.json", ".lock"


class HttpRemote:
    """A ``remotes.Repository`` in an HTTP directory, which is read-only. ``write_directory`` writes one locally.

    A user and password in its URL are sent, but no message has them.
    """

    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        self._client = client
        place = urlsplit(url)
        self._url = place._replace(netloc=place.netloc.rpartition("@")[2]).geturl().rstrip("/")
        self._headers: dict[str, str] = {}
        if place.username is not None:
            login = f"{unquote(place.username)}:{unquote(place.password or '')}"
            self._headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"

    async def packages(self, name: str = "") -> list[Package]:
        contents = await fetch_bytes(self._client, f"{self._url}/{INDEX}", headers=self._headers)
        return [package for package in decode_index(contents, self._url) if name in {"", package.name}]

    async def fetch(self, package: Package, digest: str, path: Path, report: Report) -> None:
        url = f"{self._url}/blobs/sha256/{digest}"
        size = package.blobs[digest]
        label = _label(package, report)
        await fetch_file(self._client, url, path, digest=digest, size=size, report=label, headers=self._headers)

    async def push(self, package: Package, blobs: Blobs, report: Report) -> None:  # noqa: ARG002 - the contract's
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"{self._url} is read over HTTP only; push to the directory that it serves "
            f"(drumhead package push {package.name} --to DIRECTORY)",
        )


def _label(package: Package, report: Report) -> Report:
    return lambda _name, done, total: report(f"{package.name} {package.version}", done, total)


def decode_index(contents: bytes, where: str) -> list[Package]:
    try:
        return msgspec.json.decode(contents, type=list[Package])
    except MALFORMED as error:
        raise DrumheadError(ErrorCode.REMOTE, f"{where}/{INDEX} is not an index of packages: {error}") from error


async def write_directory(directory: Path, packages: Sequence[Package], blobs: Blobs) -> None:
    """Add packages (with their blobs) to a directory that an HTTP server can serve as a remote."""
    await asyncio.to_thread(_write_directory, directory, packages, blobs)


def _write_directory(directory: Path, packages: Sequence[Package], blobs: Blobs) -> None:
    with exclusive(directory / LOCK):  # two that add packages at once would each write an index without the other's
        _add(directory, packages, blobs)


def _add(directory: Path, packages: Sequence[Package], blobs: Blobs) -> None:
    index = directory / INDEX
    known = decode_index(index.read_bytes(), str(directory)) if index.is_file() else []
    for package in packages:
        for digest in package.blobs:
            with replacing(directory / "blobs" / "sha256" / digest) as temporary:
                shutil.copyfile(blobs.verified(digest), temporary)
        known = [other for other in known if (other.name, other.version) != (package.name, package.version)]
        known.append(package)
    known.sort(key=lambda package: (package.name, package.version))
    with replacing(index) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")
