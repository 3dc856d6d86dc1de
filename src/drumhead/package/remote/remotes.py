"""The list of remotes, and the contract that HTTP directories and registries fulfil."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import msgspec

from drumhead.blobs import exclusive, replacing
from drumhead.debian.version import version_key
from drumhead.download import new_client
from drumhead.errors import MALFORMED, DrumheadError, ErrorCode
from drumhead.package.remote.http_directory import HttpRemote
from drumhead.package.remote.oci import OciRemote
from drumhead.package.signing import sign, verify
from drumhead.package.store import check_version, unpacked_limit
from drumhead.report import silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiohttp

    from drumhead.blobs import Blobs
    from drumhead.home import Home
    from drumhead.package.records import Package, PackageRef
    from drumhead.package.remote.registry import Registry
    from drumhead.package.store import PackageStore
    from drumhead.records import Image
    from drumhead.report import Report

_log = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class Remote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of remotes.json. `url` is ``http(s)://…`` (a directory), ``oci://HOST/PATH`` or ``oci+http://…``."""

    name: str
    url: str
    key: str = ""
    """The public key with which every package of this remote must be signed, or an empty string."""


class Repository(Protocol):
    """The contract of a remote. Everything that it returns was verified against its digest."""

    async def packages(self, name: str = "") -> list[Package]:
        """Return every version of the package `name`, or of every package, which a remote may refuse. Raises REMOTE."""
        ...

    async def fetch(self, package: Package, digest: str, path: Path, report: Report) -> None:
        """Fetch one blob of `package` to `path`. Raises NOT_FOUND, UNVERIFIED, REMOTE."""
        ...

    async def push(self, package: Package, blobs: Blobs, report: Report) -> None:
        """Store `package` unless it is already stored. Raises REMOTE, UNSUPPORTED."""
        ...


def check_url(remote: Remote) -> None:
    """Check the name and the URL of a remote. Raises USAGE."""
    if not NAME.fullmatch(remote.name):
        raise DrumheadError(
            ErrorCode.USAGE,
            f"{remote.name!r} is not a name for a remote; use up to 63 letters and digits, with . _ - between them",
        )
    try:
        parts = urlsplit(remote.url)
        sound = parts.scheme in {"http", "https", "oci", "oci+http"} and parts.hostname and parts.port != 0
    except ValueError:  # an invalid port, or invalid brackets around an address
        sound = False
    if not sound or not remote.url.isprintable() or " " in remote.url:
        raise DrumheadError(
            ErrorCode.USAGE,
            f"remote {remote.name}: {remote.url!r} must start with http://, https:// or oci:// and a host",
        )
    if parts.scheme.startswith("oci") and parts.username is not None:
        host = parts.netloc.rpartition("@")[2]
        raise DrumheadError(
            ErrorCode.USAGE,
            f"remote {remote.name}: leave the login out of the URL, and set DRUMHEAD_REGISTRY={host}, "
            "DRUMHEAD_REGISTRY_USER and DRUMHEAD_REGISTRY_PASSWORD instead",
        )


def open_remote(client: aiohttp.ClientSession, remote: Remote) -> Repository:
    """Return the repository at a remote's URL. Raises USAGE."""
    check_url(remote)
    scheme, _, rest = remote.url.partition("://")
    match scheme:
        case "http" | "https":
            return HttpRemote(client, remote.url)
        case "oci":
            return OciRemote(client, f"https://{rest}")
        case _:
            return OciRemote(client, f"http://{rest}")


def open_registry(client: aiohttp.ClientSession, remote: Remote) -> tuple[Registry, str]:
    """Return the registry at a remote's URL and the path in it. Raises UNSUPPORTED for a directory."""
    repository = open_remote(client, remote)
    if not isinstance(repository, OciRemote):
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"{remote.name} is a directory behind an HTTP server; images go to a registry "
            "(`drumhead remote add NAME oci://HOST/PATH`)",
        )
    return repository.registry, repository.path


def read_remotes(home: Home) -> list[Remote]:
    """Return the remotes of this home, in order of priority."""
    if not home.remotes.is_file():
        return []
    try:
        return msgspec.json.decode(home.remotes.read_bytes(), type=list[Remote])
    except MALFORMED as error:
        raise DrumheadError(ErrorCode.MANIFEST, f"{home.remotes}:1: {error}") from error


@contextmanager
def changing_remotes(home: Home) -> Iterator[list[Remote]]:
    """Yield the remotes to change in place, and write them when the block succeeds. Other commands wait meanwhile."""
    with exclusive(home.root / "remotes.lock"):
        remotes = read_remotes(home)
        yield remotes
        write_remotes(home, remotes)


def write_remotes(home: Home, remotes: list[Remote]) -> None:
    with replacing(home.remotes) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(remotes), indent=1) + b"\n")


def find_remote(home: Home, name: str) -> Remote:
    """Return the remote called `name`, or the only remote if the name is empty. Raises NOT_FOUND, USAGE."""
    remotes = read_remotes(home)
    if not name and len(remotes) == 1:
        return remotes[0]
    for remote in remotes:
        if remote.name == name:
            return remote
    names = ", ".join(remote.name for remote in remotes) or "none; `drumhead remote add NAME URL` adds one"
    if name:
        raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no remote {name}; there are: {names}")
    raise DrumheadError(ErrorCode.USAGE, f"choose a remote with --remote; there are: {names}")


async def search_remotes(home: Home) -> tuple[list[Package], list[str]]:
    """Return every package of every remote that answers, and a notice for each that does not."""
    found: list[Package] = []
    notices = []
    async with new_client() as client:
        for remote in read_remotes(home):
            try:
                found += await open_remote(client, remote).packages()
            except DrumheadError as error:
                if error.code is not ErrorCode.REMOTE:
                    raise
                notices.append(f"{error.message}; the packages of {remote.name} are not listed")
    return found, notices


async def pull_package(
    home: Home, store: PackageStore, ref: PackageRef, report: Report = silent, *, remote: Remote | None = None
) -> Package | None:
    """Pull the requested version, or the newest, from the first remote that has it. Return None if no remote has it.

    A package that was pushed without a layer is packed now.
    """
    async with new_client() as client:
        for candidate in [remote] if remote else read_remotes(home):
            repository = open_remote(client, candidate)
            versions = [package for package in await repository.packages(ref.name) if package.name == ref.name]
            versions = [package for package in versions if ref.version in {"", package.version}]
            if versions:
                package = max(versions, key=lambda version: version_key(version.version))
                check_signature(candidate, package)
                check_version(package)
                unpacked_limit(package)
                for digest in package.blobs:
                    await repository.fetch(package, digest, store.blobs.path(digest), report)
                return await asyncio.to_thread(store.pack, package)
    return None


def check_signature(remote: Remote, record: Package | Image) -> None:
    """Check that a record is signed with the remote's key. If the remote has no key, log a warning.

    Raises UNVERIFIED.
    """
    if remote.key:
        verify(remote.key, record)
        return
    _log.warning(
        "%s is not verified: the remote %s has no key. Remove the remote and add it again with --key.",
        record.name,
        remote.name,
    )


async def push_package(home: Home, store: PackageStore, ref: PackageRef, name: str, report: Report = silent) -> Package:
    """Send a stored package to the remote called `name`."""
    package = sign(home, await asyncio.to_thread(store.pack, store.find(ref)))
    async with new_client() as client:
        await open_remote(client, find_remote(home, name)).push(package, store.blobs, report)
    return package
