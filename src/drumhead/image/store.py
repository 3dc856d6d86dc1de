"""Store the records of images, and provide their files to QEMU."""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import Blobs, replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import files_in
from drumhead.image.layers.mounted import mounted_path, sweep_mounted
from drumhead.package.store import PackageStore
from drumhead.records import Blob, Command, GuestName, Image, ImageFiles, Layer, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from drumhead.home import Home

RECORD = "image.json"
"""The record of a Linux image, and of a machine's image for any guest."""
RECORDS: dict[str, str] = {"linux": RECORD, "osv": "osv.json"}
"""The file of the record by guest. A name can have an image for each guest; the first that exists is the default."""

IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)*")
MAX_NAME = 128
_LARGEST_KERNEL = 256 << 20
_XZ_MEMORY = 128 << 20
"""Limits in bytes for an unpacked kernel and for the memory to unpack it, because images may be untrusted."""


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``drumhead info``, with sizes in bytes. `disk_size` counts kernel, initrd and layers as stored."""

    image: str
    format: str
    virtual_size: int
    disk_size: int
    guest: GuestName
    kernel: str
    layers: tuple[Layer, ...]
    commands: dict[str, Command]
    default: str


class ImageStore:
    """The images of one home.

    Reading needs no lock. Composing holds ``using``; removing unused blobs waits until it is released.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._blobs = Blobs(home)

    def list(self) -> list[Image]:
        """Return every image, sorted by name and guest."""
        files = [file for record in RECORDS.values() for file in files_in(self._home.images, f"**/{record}")]
        found = [_decode(file) for file in files]
        return sorted(found, key=lambda image: (image.name, image.guest))

    def find(self, name: str, guest: str = "") -> Image:
        """Return the image `name` for `guest`, or without a guest the only one or the one for Linux.

        Raises NOT_FOUND, and USAGE for an invalid name.
        """
        file = next((file for file in self._records(name, guest) if file.is_file()), None)
        if file is None:
            check_image_name(name)
            option = f" --guest {guest}" if guest else ""
            raise DrumheadError(
                ErrorCode.NOT_FOUND,
                f"there is no image {name}{f' for {guest}' if guest else ''}; "
                f"`drumhead package compose {name}{option}` composes it",
            )
        return _decode(file)

    def put(self, image: Image) -> str:
        """Store `image` under its name.

        Return the SHA-256 of its record, which identifies the image's exact contents. Raises USAGE for an invalid name.
        """
        check_image_name(image.name)
        record = encode(image)
        with replacing(self._records(image.name, image.guest)[0]) as temporary:
            temporary.write_bytes(record)
        return hashlib.sha256(record).hexdigest()

    def remove(self, name: str, guest: str = "") -> int:
        """Delete an image and every blob that nothing else refers to. Return the number of bytes freed.

        Raises NOT_FOUND, and CONFLICT if there are several images of this name and `guest` is not given.
        """
        there = [file for file in self._records(name, guest) if file.is_file()]
        if len(there) > 1:
            raise DrumheadError(
                ErrorCode.CONFLICT, f"there is an image {name} for {' and for '.join(RECORDS)}; choose one with --guest"
            )
        if not there:
            self.find(name, guest)
        with self._lock(fcntl.LOCK_EX):
            file = there[0]
            file.unlink()
            for directory in file.parents:
                if directory == self._home.images or any(directory.iterdir()):
                    break
                directory.rmdir()
            named = self._named_blobs()
            return self._blobs.sweep(named) + sweep_mounted(self._home, named)

    def files(self, image: Image) -> ImageFiles:
        """Return the image's files on this host. Unpack the kernel the first time, which blocks the calling thread.

        Raises NOT_FOUND, UNVERIFIED.
        """
        kernel = self._home.cache / "kernels" / image.kernel.vmlinux.digest
        if not kernel.is_file():
            elf = _unpacked(self._blobs.read(image.kernel.vmlinux.digest))
            with replacing(kernel) as temporary:
                temporary.write_bytes(elf)
        initrd = image.kernel.initrd
        return ImageFiles(
            kernel=kernel,
            initrd=self._blobs.find(initrd.digest) if initrd else None,
            layers=tuple(self._blobs.find(layer.blob.digest) for layer in image.layers),
        )

    def mounted_files(self, image: Image) -> ImageFiles:
        """Return the files that a machine mounts: the uncompressed copies of layers if they exist.

        Decompression in the guest would be slow under emulation and take memory.
        """
        files = self.files(image)
        plain = [mounted_path(self._home, layer.blob.digest) for layer in image.layers]
        chosen = (path if path.is_file() else stored for path, stored in zip(plain, files.layers, strict=True))
        return msgspec.structs.replace(files, layers=tuple(chosen))

    @contextmanager
    def using(self) -> Iterator[None]:
        """Prevent the removal of blobs while the block runs."""
        with self._lock(fcntl.LOCK_SH):
            yield

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        self._home.root.mkdir(parents=True, exist_ok=True)
        with (self._home.root / "lock").open("a") as file:
            fcntl.flock(file, kind)
            yield

    def _named_blobs(self) -> set[str]:
        """Return the blobs that images, packages, machines whose image was removed, and the next image need."""
        from drumhead.image.layers.store import kept_blobs  # noqa: PLC0415 - only needed to remove something

        images = self.list()
        files = files_in(self._home.instances, f"*/{RECORD}")
        images += [read_record(file, Image, f"`drumhead delete {file.parent.name}`") for file in files]
        named = kept_blobs(self._home).union(*(package.blobs for package in PackageStore(self._home).list()))
        for image in images:
            named |= {blob.digest for blob in blobs_of(image)}
        return named

    def _records(self, name: str, guest: str) -> tuple[Path, ...]:
        """Return the possible paths of an image's record, for `guest` or for every guest. Raises USAGE."""
        parts = name.split("/")
        if not name or any(part in {"", ".", "..", *RECORDS.values()} for part in parts):
            raise DrumheadError(ErrorCode.USAGE, f"{name!r} is not an image name (words, with slashes between them)")
        if guest and guest not in RECORDS:
            raise DrumheadError(ErrorCode.USAGE, f"there is no guest {guest}; there are {' and '.join(RECORDS)}")
        return tuple(self._home.images.joinpath(*parts, RECORDS[one]) for one in ([guest] if guest else RECORDS))


def encode(image: Image) -> bytes:
    """Return the bytes of an image's record."""
    return msgspec.json.format(msgspec.json.encode(image), indent=1) + b"\n"


def _unpacked(kernel: bytes) -> bytes:
    """Unpack a kernel. Raises UNVERIFIED if it is damaged or larger than any kernel."""
    try:
        unpacking = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        elf = unpacking.decompress(kernel, _LARGEST_KERNEL)
    except lzma.LZMAError as error:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"the kernel of the image is damaged: {error}") from None
    if not unpacking.eof:
        sentence = f"the kernel of the image is truncated, or unpacks to more than {_LARGEST_KERNEL} bytes"
        raise DrumheadError(ErrorCode.UNVERIFIED, sentence)
    return elf


def blobs_of(image: Image) -> list[Blob]:
    """Return every blob of an image without duplicates."""
    kernel = [image.kernel.vmlinux, *([image.kernel.initrd] if image.kernel.initrd else [])]
    return list({blob.digest: blob for blob in [*kernel, *(layer.blob for layer in image.layers)]}.values())


def facts(image: Image) -> ImageFacts:
    """Return the facts about an image that ``drumhead info`` shows."""
    unpacked = sum(layer.unpacked_size for layer in image.layers)
    return ImageFacts(
        image=image.name,
        format="drumhead",
        virtual_size=unpacked + image.overlay_size,
        disk_size=sum(blob.size for blob in blobs_of(image)) + len(encode(image)),
        guest=image.guest,
        kernel=f"{image.kernel.package} {image.kernel.version}",
        layers=image.layers,
        commands=image.commands,
        default=image.default,
    )


def _decode(file: Path) -> Image:
    return read_record(file, Image, "compose the image again")


def check_image_name(name: str) -> None:
    """Check the name of an image, which is also a path in a registry. Raises USAGE."""
    if not IMAGE_NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise DrumheadError(
            ErrorCode.USAGE,
            f"{name!r} is not an image name (letters and digits, with . _ + - inside and slashes between such words, "
            f"{MAX_NAME} characters at most)",
        )
