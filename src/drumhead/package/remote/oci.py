"""A remote in an OCI registry. Version VERSION of the package NAME is the artifact ``PATH/NAME:VERSION``."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from drumhead.errors import MALFORMED, DrumheadError, ErrorCode
from drumhead.package.records import Package
from drumhead.package.remote.registry import LAYER_TYPE, REPOSITORY_NAME, Descriptor, Manifest, Registry, describe

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

    from drumhead.blobs import Blobs
    from drumhead.report import Report

PACKAGE_TYPE = "application/vnd.drumhead.package.v1+json"
ARCHIVE_TYPE = "application/vnd.drumhead.package.v1.tar+zstd"


class OciRemote:
    """A ``remotes.Repository`` in an OCI registry. `url` is ``https://HOST/PATH`` or ``http://HOST/PATH``."""

    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        parts = urlsplit(url)
        self._url = url
        self.path = parts.path.strip("/")
        self.registry = Registry(client, f"{parts.scheme}://{parts.netloc}")

    async def packages(self, name: str = "") -> list[Package]:
        names = [self._repository(name)] if name else await self.registry.repositories()
        prefix = f"{self.path}/" if self.path else ""
        names = [one for one in names if one.startswith(prefix) and REPOSITORY_NAME.fullmatch(one)]
        tagged = await asyncio.gather(*(self._tags(name) for name in names))
        found = await asyncio.gather(*(self._read(name, tag) for name, tags in tagged for tag in tags))
        return sorted(filter(None, found), key=lambda package: (package.name, package.version))

    async def fetch(self, package: Package, digest: str, path: Path, report: Report) -> None:
        (blob,) = (one for one in descriptors(package) if one.hexadecimal == digest)
        await self.registry.fetch(self._repository(package.name), blob, path, _label(package, report))

    async def push(self, package: Package, blobs: Blobs, report: Report) -> None:
        name = self._repository(package.name)
        record = msgspec.json.encode(package)
        config = describe(record, PACKAGE_TYPE)
        layers = descriptors(package)
        await self.registry.push_blob(name, config, record)
        for layer in layers:
            file = await asyncio.to_thread(blobs.verified, layer.hexadecimal)
            await self.registry.push_blob(name, layer, file, _label(package, report))
        annotations = {
            "org.opencontainers.image.title": package.name,
            "org.opencontainers.image.version": package.version,
            "org.opencontainers.image.created": package.created,
            "org.opencontainers.image.description": package.description,
        }
        manifest = Manifest(artifact_type=PACKAGE_TYPE, config=config, layers=layers, annotations=annotations)
        await self.registry.push_manifest(name, tag_of(package.version), manifest)

    async def _tags(self, name: str) -> tuple[str, list[str]]:
        try:
            return name, await self.registry.tags(name)
        except DrumheadError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return name, []
            raise

    async def _read(self, name: str, tag: str) -> Package | None:
        """Return the record of a tag, or None if the artifact is not a package or was deleted meanwhile."""
        try:
            manifest = await self.registry.manifest(name, tag)
        except DrumheadError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return None
            raise
        if manifest.config.media_type != PACKAGE_TYPE:
            return None
        record = await self.registry.blob(name, manifest.config)
        try:
            package = msgspec.json.decode(record, type=Package)
        except MALFORMED as error:
            raise DrumheadError(ErrorCode.REMOTE, f"{self._url}: {name}:{tag} is not a package: {error}") from error
        if [layer.hexadecimal for layer in manifest.layers] != list(package.blobs):
            raise DrumheadError(ErrorCode.UNVERIFIED, f"{self._url}: {name}:{tag} lists other blobs than its record")
        return package

    def _repository(self, name: str) -> str:
        return f"{self.path}/{name.lower()}" if self.path else name.lower()


def descriptors(package: Package) -> tuple[Descriptor, ...]:
    """Return descriptors of a package's blobs: the archive, then its layers."""
    types = {package.archive: ARCHIVE_TYPE} | {layer.digest: LAYER_TYPE + layer.filesystem for layer in package.layers}
    return tuple(
        Descriptor(media_type=types[digest], digest=f"sha256:{digest}", size=size)
        for digest, size in package.blobs.items()
    )


def tag_of(version: str) -> str:
    """Return a version as a tag, with ``_`` for each character other than letters, digits and ``_ . -``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", version)[:128].lstrip(".-") or "latest"


def _label(package: Package, report: Report) -> Report:
    return lambda _name, done, total: report(f"{package.name} {package.version}", done, total)
