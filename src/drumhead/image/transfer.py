"""Push images to a registry and pull them, as the artifact ``PATH/images/NAME:TAG`` that an OCI layout also holds.

Blobs that the other side already has are not sent again. The manifest is pushed last and the record is stored last, so
an interrupted transfer leaves no image, only blobs, which the next attempt finds.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import Blobs
from drumhead.debian.version import version_key
from drumhead.download import new_client
from drumhead.errors import MALFORMED, DrumheadError, ErrorCode
from drumhead.image.export.artifact import IMAGE_TYPE, manifest_of
from drumhead.image.store import ImageStore, blobs_of
from drumhead.package.remote.oci import tag_of
from drumhead.package.remote.registry import REPOSITORY_NAME
from drumhead.package.remote.remotes import check_signature, open_registry
from drumhead.package.signing import sign
from drumhead.records import Image
from drumhead.report import silent

if TYPE_CHECKING:
    from drumhead.home import Home
    from drumhead.package.remote.registry import Manifest, Registry
    from drumhead.package.remote.remotes import Remote
    from drumhead.report import Report

OTHER_GUEST = "-osv"
DIGEST = re.compile(r"[0-9a-f]{64}")
OF_MANIFEST = re.compile(f"sha256:{DIGEST.pattern}")


async def push_image(
    home: Home, name: str, remote: Remote, tag: str = "", report: Report = silent, *, guest: str = ""
) -> tuple[str, str]:
    """Send an image. Return its reference and the manifest's digest.

    `tag` is by default the image's version, with ``-osv`` appended for OSv. Raises NOT_FOUND, UNVERIFIED (a damaged
    blob), USAGE, REMOTE.
    """
    if tag and tag_of(tag) != tag:
        raise DrumheadError(
            ErrorCode.USAGE, f"a registry does not accept the tag {tag!r}; {tag_of(tag)!r} is one that it accepts"
        )
    images, blobs = ImageStore(home), Blobs(home)
    with images.using():
        image = sign(home, await asyncio.to_thread(images.find, name, guest))
        manifest, record = manifest_of(image)
        tag = tag or default_tag(image)
        async with new_client() as client:
            registry, prefix = open_registry(client, remote)
            repository = _repository(prefix, name)
            for layer in manifest.layers:
                file = await asyncio.to_thread(blobs.verified, layer.hexadecimal)
                await registry.push_blob(repository, layer, file, report)
            await registry.push_blob(repository, manifest.config, record)
            digest = await registry.push_manifest(repository, tag, manifest)
    return f"{repository}:{tag}", digest


async def pull_image(home: Home, name: str, remote: Remote, reference: str = "", report: Report = silent) -> Image:
    """Fetch the image `name` by tag or by the ``sha256:…`` of its manifest. Replace the image of this name and guest.

    A version is a reference as well: its tag is the one that pushing gave it. Without a reference, fetch the tag
    ``latest``, or else the newest version (the newest for Linux, if there is one).
    Raises NOT_FOUND, UNVERIFIED (the contents do not match; no image is stored), REMOTE.
    """
    images, blobs = ImageStore(home), Blobs(home)
    with images.using():
        async with new_client() as client:
            registry, prefix = open_registry(client, remote)
            repository = _repository(prefix, name)
            manifest = await _manifest(registry, repository, reference)
            image = await _read(registry, repository, manifest, name)
            check_signature(remote, image)
            for layer in manifest.layers:
                await registry.fetch(repository, layer, blobs.path(layer.hexadecimal), report)
        await asyncio.to_thread(images.put, image)
    return image


def default_tag(image: Image) -> str:
    """Return the default tag of an image."""
    return tag_of(image.version) + (OTHER_GUEST if image.guest == "osv" else "")


async def _manifest(registry: Registry, repository: str, reference: str) -> Manifest:
    """Return the manifest of an image, by default of the newest. Raises NOT_FOUND, UNVERIFIED, REMOTE."""
    if reference and not OF_MANIFEST.fullmatch(reference):
        reference = tag_of(reference)
    try:
        return await registry.manifest(repository, reference or await _newest(registry, repository))
    except DrumheadError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        image = f"{repository}:{reference}" if reference else repository
        raise DrumheadError(ErrorCode.NOT_FOUND, f"the registry has no image {image}: {error.message}") from error


async def _newest(registry: Registry, repository: str) -> str:
    tags = await registry.tags(repository)
    if "latest" in tags or not tags:
        return "latest"
    plain = [tag for tag in tags if not tag.endswith(OTHER_GUEST)]
    return max(plain or tags, key=version_key)


async def _read(registry: Registry, repository: str, manifest: Manifest, name: str) -> Image:
    """Return the image's record after checking that it names the same blobs as the manifest, by valid digests."""
    if manifest.config.media_type != IMAGE_TYPE:
        raise DrumheadError(ErrorCode.REMOTE, f"{repository} is not a drumhead image")
    try:
        image = msgspec.json.decode(await registry.blob(repository, manifest.config), type=Image)
    except MALFORMED as error:
        raise DrumheadError(ErrorCode.REMOTE, f"the record of {repository} cannot be read: {error}") from error
    named = {blob.digest: blob.size for blob in blobs_of(image)}
    listed = {layer.hexadecimal: layer.size for layer in manifest.layers}
    if named != listed or not all(DIGEST.fullmatch(digest) for digest in named) or image.name != name:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{repository} lists other contents than its record; nothing is kept")
    return image


def _repository(prefix: str, name: str) -> str:
    repository = f"{prefix}/images/{name}" if prefix else f"images/{name}"
    if not REPOSITORY_NAME.fullmatch(repository):
        raise DrumheadError(
            ErrorCode.USAGE,
            f"a registry does not accept the image name {name}; use lower-case letters, digits and . _ - /",
        )
    return repository
