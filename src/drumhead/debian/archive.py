"""Read Debian's archive: the signed InRelease has the digest of Packages, which has the digest of each .deb.

Each file is verified before it is read. See Debian's wiki, RepositoryFormat, and apt-secure(8).
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import lzma
import re
import tempfile
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary

import msgspec

from drumhead import host
from drumhead.blobs import replacing
from drumhead.debian.version import version_key
from drumhead.download import fetch_bytes, fetch_file
from drumhead.errors import MALFORMED, DrumheadError, ErrorCode
from drumhead.report import silent

if TYPE_CHECKING:
    import aiohttp

    from drumhead.debian.sources import Suite
    from drumhead.report import Report

ARCHITECTURE = "amd64"
INDEX = f"main/binary-{ARCHITECTURE}/Packages.xz"
FIELD = re.compile(r"^([A-Za-z0-9-]+): ?(.*)$", re.MULTILINE)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""A lock for each event loop. Archives are opened one at a time, so that later ones find the indexes in the cache."""


class DebianPackage(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a Packages index. `depends` lists alternatives by name, without versions; `url` is that of the
    .deb.
    """

    name: str
    version: str
    sha256: str
    size: int
    url: str
    depends: tuple[tuple[str, ...], ...] = ()
    provides: tuple[str, ...] = ()
    description: str = ""


class Archive:
    """The newest version of every package in some suites. ``open`` creates it; `cache` has indexes and packages."""

    def __init__(self, client: aiohttp.ClientSession, cache: Path, packages: dict[str, DebianPackage]) -> None:
        self._client = client
        self._cache = cache
        self._packages = packages
        self._providers: dict[str, str] = {}
        for package in sorted(packages.values(), key=lambda package: package.name):
            for name in package.provides:
                self._providers.setdefault(name, package.name)

    @classmethod
    async def open(cls, client: aiohttp.ClientSession, cache: Path, suites: tuple[Suite, ...]) -> Self:
        """Fetch and verify the indexes of `suites`. Raises UNVERIFIED, REMOTE, HOST_TOOL."""
        async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            indexes = await asyncio.gather(*(_fetch_index(client, cache, suite) for suite in suites))
        newest: dict[str, DebianPackage] = {}
        for package in (package for index in indexes for package in index):
            known = newest.get(package.name)
            if known is None or version_key(package.version) > version_key(known.version):
                newest[package.name] = package
        return cls(client, cache, newest)

    def find(self, name: str) -> DebianPackage:
        """Return the newest package of that name, or one that provides it. Raises NOT_FOUND."""
        package = self._packages.get(name) or self._packages.get(self._providers.get(name, ""))
        if package is None:
            raise DrumheadError(ErrorCode.NOT_FOUND, f"Debian's archive has no package {name}")
        return package

    def names(self) -> list[str]:
        """Return the names of all packages."""
        return sorted(self._packages)

    def closure(self, names: tuple[str, ...]) -> list[DebianPackage]:
        """Return the packages `names` and their dependencies (the first alternative that exists), sorted by name."""
        found: dict[str, DebianPackage] = {}
        todo = [self.find(name) for name in names]
        while todo:
            package = todo.pop()
            if package.name in found:
                continue
            found[package.name] = package
            for alternatives in package.depends:
                known = [name for name in alternatives if name in self._packages or name in self._providers]
                if known:
                    todo.append(self.find(known[0]))
        return sorted(found.values(), key=lambda package: package.name)

    async def fetch(self, package: DebianPackage, report: Report = silent) -> Path:
        """Fetch and verify a .deb, and return its path."""
        path = self._cache / "debs" / f"{package.sha256}.deb"
        return await fetch_file(
            self._client, package.url, path, digest=package.sha256, size=package.size, report=_named(package, report)
        )


def _named(package: DebianPackage, report: Report) -> Report:
    return lambda _label, done, total: report(f"{package.name} {package.version}", done, total)


async def _fetch_index(client: aiohttp.ClientSession, cache: Path, suite: Suite) -> list[DebianPackage]:
    base = f"{suite.uri}/dists/{suite.name}"
    signed = await fetch_bytes(client, f"{base}/InRelease")
    release = await asyncio.to_thread(verify_release, signed, suite)
    digest, size = _index_in(release, suite)
    url = f"{base}/main/binary-{ARCHITECTURE}/by-hash/SHA256/{digest}"
    path = await fetch_file(client, url, cache / "indexes" / digest, digest=digest, size=size)
    return await asyncio.to_thread(_read_index, path, suite.uri)


@functools.lru_cache(maxsize=4)
def _read_index(path: Path, uri: str) -> list[DebianPackage]:
    """Return the entries of a verified index. Callers must not change the list.

    Parsing takes a second or more, so the entries are kept in memory and in a file beside the index.
    """
    about = hashlib.sha256(f"{uri} {DebianPackage.__struct_fields__}".encode()).hexdigest()
    parsed = path.with_name(f"{path.name}-{about[:16]}.msgpack")
    try:
        return msgspec.msgpack.decode(parsed.read_bytes(), type=list[DebianPackage])
    except (OSError, *MALFORMED):
        packages = parse_packages(lzma.decompress(path.read_bytes()).decode(), uri)
    with replacing(parsed) as temporary:
        temporary.write_bytes(msgspec.msgpack.encode(packages))
    return packages


def verify_release(signed: bytes, suite: Suite) -> str:
    """Verify the signature and validity of an InRelease file and return its text. Raises UNVERIFIED."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "InRelease"
        file.write_bytes(signed)
        try:
            text = host.run(["gpgv", "--quiet", "--keyring", suite.keyring, "--output", "-", file]).decode()
        except DrumheadError as error:
            if host.look_for("gpgv") is None:
                raise
            raise DrumheadError(
                ErrorCode.UNVERIFIED,
                f"{suite.uri}: the index of {suite.name} is not signed by {suite.keyring.name} ({error.message})",
            ) from error
    fields = dict(FIELD.findall(text))
    if suite.name not in {fields.get("Codename"), fields.get("Suite")}:
        raise DrumheadError(
            ErrorCode.UNVERIFIED, f"{suite.uri} answered with the index of {fields.get('Codename')}, not {suite.name}"
        )
    until = fields.get("Valid-Until")
    if until and parsedate_to_datetime(until) < datetime.now(UTC):
        raise DrumheadError(
            ErrorCode.UNVERIFIED,
            f"{suite.uri}: the index of {suite.name} was valid until {until}; use an up-to-date mirror",
        )
    return text


def _index_in(release: str, suite: Suite) -> tuple[str, int]:
    found = re.search(rf"^ ([0-9a-f]{{64}}) +(\d+) {re.escape(INDEX)}$", release, re.MULTILINE)
    if found is None:
        raise DrumheadError(ErrorCode.REMOTE, f"{suite.uri}: {suite.name} lists no {INDEX} with a SHA-256")
    return found[1], int(found[2])


def parse_packages(text: str, uri: str) -> list[DebianPackage]:
    """Return the entries of a Packages index (deb822: paragraphs of ``Field: value``)."""
    found = []
    for paragraph in text.split("\n\n"):
        fields = dict(FIELD.findall(paragraph))
        if "Filename" in fields:
            depends = ", ".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
            found.append(
                DebianPackage(
                    name=fields["Package"],
                    version=fields["Version"],
                    sha256=fields["SHA256"],
                    size=int(fields["Size"]),
                    url=f"{uri}/{fields['Filename']}",
                    depends=tuple(_alternatives(depends)),
                    provides=tuple(name for names in _alternatives(fields.get("Provides", "")) for name in names),
                    description=fields.get("Description", ""),
                )
            )
    return found


def _alternatives(relation: str) -> list[tuple[str, ...]]:
    """Parse ``a (>= 1) | b, c:any`` into ``[(a, b), (c,)]``."""
    groups = (group for group in relation.split(",") if group.strip())
    return [tuple(re.split(r"[\s:(]", name.strip(), maxsplit=1)[0] for name in group.split("|")) for group in groups]
