"""Records that several layers of the code share: a command, an image, its kernel and layers, and blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from drumhead.errors import DrumheadError, ErrorCode

T = TypeVar("T")
GuestName = Literal["linux", "osv"]
Filesystem = Literal["squashfs", "erofs", "rofs"]
LayerKind = Literal["package", "libraries", "python", "node", "application", "root"]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A program to start in a guest. `argv[0]` is a path or a name looked up in the guest's PATH."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    cwd: str = "/"


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the blob store. `digest` is 64 hexadecimal digits (SHA-256), `size` is in bytes."""

    digest: str
    size: int


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One read-only file system. Later layers cover earlier ones; the application is last.

    For a guest without an overlay, a ``root`` layer unites the others (``filesystem.rofs.root``). `source` is the
    digest of the tree that the blob was written from; equal sources give equal blobs.
    """

    kind: LayerKind
    name: str
    """The package's name and version, or the kind of contents (``dependencies``, ``files``)."""
    filesystem: Filesystem
    source: str
    blob: Blob
    files: int
    unpacked_size: int


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel of an image. `vmlinux` is an xz-compressed ELF file with a PVH note; `initrd` is a cpio archive."""

    package: str
    version: str
    vmlinux: Blob
    initrd: Blob | None


Signature = Annotated[str, msgspec.Meta(max_length=200)]
"""Of a record by its sender (``package.signing``); empty where there is none."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """images/NAME/image.json: everything that a machine starts from.

    The record holds no time, path or name of the host, so the same inputs give the same bytes.
    `overlay_size` is the size in bytes of the disk that a machine writes to; 0 means that writes stay in memory.
    `commands` are the config sets by name; `default` names one, or is empty.
    """

    format: int = 1
    name: str
    title: str
    version: str
    guest: GuestName
    kernel: Kernel
    layers: tuple[Layer, ...]
    commands: dict[str, Command] = {}
    default: str = ""
    overlay_size: int = 0
    signature: Signature = ""
    warm_modules: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Python modules that a snapshot has imported. Left out where there are none, so older records keep their bytes."""

    @property
    def warm(self) -> tuple[str, ...]:
        return self.warm_modules or ()

    def shared_circumstances(self) -> Command:
        """Return what all config sets have in common, as a command without argv: variables, and the directory."""
        first, *others = list(self.commands.values()) or [Command(argv=())]
        env = {name: value for name, value in first.env.items() if all(one.env.get(name) == value for one in others)}
        return Command(argv=(), env=env, cwd=first.cwd if all(one.cwd == first.cwd for one in others) else "/")


class ImageFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of an image on this host, ready for QEMU; from ``image.store``. `kernel` is the unpacked ELF file."""

    kernel: Path
    initrd: Path | None
    layers: tuple[Path, ...]


def read_record(file: Path, kind: type[T], advice: str) -> T:
    """Read a record of the store. Raises FileNotFoundError, and UNVERIFIED with `advice` for a damaged one."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{file} is damaged ({error}); {advice}") from error


def read_cached(file: Path, kind: type[T]) -> T | None:
    """Read a file of the cache, which can be made again. Return None where it is missing or damaged."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
