"""Records that several layers of the code share: commands, images, kernels, layers and blobs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec

from drumhead.errors import MALFORMED, DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")
GuestName = Literal["linux", "osv"]
Filesystem = Literal["squashfs", "erofs", "rofs"]
LayerKind = Literal["package", "libraries", "python", "node", "application", "root"]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A program to start in a guest. `argv[0]` is a path, or a name to look up in the guest's PATH."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    cwd: str = "/"


VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
"""Names with dots and hyphens are read by programs in Java and Node.js, although a shell cannot write them."""


VERSION_RULE = "a version has at most 128 bytes, printable characters only, and nothing but a number before a colon"
_VERSION = re.compile(r"([0-9]{1,9}:.*|[^:]*)")


def version_fault(version: str) -> str:
    """Return why a text cannot be the version of a package; empty where it can.

    A version is the name of a file, and versions are sorted as Debian sorts them.
    """
    fits = version.isprintable() and len(version.encode()) <= 128 and _VERSION.fullmatch(version)
    return "" if fits else f"{VERSION_RULE}, not {version[:60]!r}"


def variable_fault(name: str, value: str) -> str:
    """Return why a program cannot receive an environment variable; empty where it can."""
    if not VARIABLE_NAME.fullmatch(name):
        return f"{name!r} is not a valid name of an environment variable"
    return f"the value of {name} holds a character that no variable can hold" if not is_text(value) else ""


def is_text(value: str) -> bool:
    """Tell whether a text can be an argument or a variable of a program: without NUL, and all of it Unicode."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


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
"""The sender's signature of a record (``package.signing``), or an empty string."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image (images/NAME/image.json): everything that a machine starts from.

    The record holds no time, path or host name, so the same inputs give the same bytes.
    `overlay_size` is the size in bytes of the disk that a machine writes to; 0 means that writes stay in memory.
    `commands` are the config sets by name; `default` is the name of one, or empty.
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
    """Python modules that a snapshot imports. Left out if there are none, so that older records keep their bytes."""

    @property
    def warm(self) -> tuple[str, ...]:
        return self.warm_modules or ()

    def shared_circumstances(self) -> Command:
        """Return the variables and the directory that all config sets share, as a command without argv."""
        return shared_circumstances(self.commands)


def shared_circumstances(commands: Mapping[str, Command]) -> Command:
    """Return the variables and the directory that all of `commands` share, as a command without argv."""
    first, *others = list(commands.values()) or [Command(argv=())]
    env = {name: value for name, value in first.env.items() if all(one.env.get(name) == value for one in others)}
    return Command(argv=(), env=env, cwd=first.cwd if all(one.cwd == first.cwd for one in others) else "/")


class ImageFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of an image on this host, ready for QEMU. ``image.store`` makes it. `kernel` is the unpacked ELF
    file.
    """

    kernel: Path
    initrd: Path | None
    layers: tuple[Path, ...]


def read_record(file: Path, kind: type[T], advice: str) -> T:
    """Read a record of the store. Raises FileNotFoundError, and UNVERIFIED with `advice` if the record is damaged."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except MALFORMED as error:
        raise DrumheadError(ErrorCode.UNVERIFIED, f"{file} is damaged ({error}); {advice}") from error


def read_cached(file: Path, kind: type[T]) -> T | None:
    """Read a record of the cache. Return None if it is missing or damaged, because it can be made again."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (FileNotFoundError, *MALFORMED):
        return None
