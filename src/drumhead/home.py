"""The directory in which drumhead stores everything; ``DRUMHEAD_HOME`` sets it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from drumhead.errors import DrumheadError, ErrorCode


@dataclass(frozen=True, kw_only=True)
class Home:
    """The layout under ``DRUMHEAD_HOME`` (default ``~/.drumhead``); docs/internals/drumhead.md describes each file.

    These are only paths; code that writes into a directory creates it.
    """

    root: Path

    @property
    def blobs(self) -> Path:
        """``blobs/sha256/HEX``: immutable files, named by their SHA-256."""
        return self.root / "blobs" / "sha256"

    @property
    def packages(self) -> Path:
        """``packages/NAME/VERSION.json``: one record for each package version."""
        return self.root / "packages"

    @property
    def images(self) -> Path:
        """``images/NAME/image.json``: the records of images, whose names may contain slashes."""
        return self.root / "images"

    @property
    def instances(self) -> Path:
        """``instances/NAME/``: record, sockets, logs and disks of a machine."""
        return self.root / "instances"

    @property
    def fleets(self) -> Path:
        """``fleets/NAME/``: fleets that ``drumhead up`` started."""
        return self.root / "fleets"

    @property
    def snapshots(self) -> Path:
        """``snapshots/KEY/``: machines that were saved before their command started."""
        return self.root / "snapshots"

    @property
    def volumes(self) -> Path:
        """``volumes/NAME.raw``: data disks that outlive their machine."""
        return self.root / "volumes"

    @property
    def secrets(self) -> Path:
        """``secrets/FLEET/NAME``: secrets that the machines of a fleet share. They are kept when the fleet is
        deleted.
        """
        return self.root / "secrets"

    @property
    def remotes(self) -> Path:
        """``remotes.json``: the remotes for searching, pulling and pushing."""
        return self.root / "remotes.json"

    @property
    def signing_key(self) -> Path:
        """``signing.key``: the private key that signs pushed packages and images. Only its owner can read it."""
        return self.root / "signing.key"

    @property
    def cache(self) -> Path:
        """``cache/``: Debian packages, wheels, unpacked kernels, layer records. It may be deleted at any time."""
        return self.root / "cache"


def make_private(directory: Path) -> None:
    """Create a directory of the home that only its owner can enter, whatever the umask is.

    The sockets of a machine control it, and its disks, log and variables belong to nobody else.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def entry(directory: Path, name: str, what: str) -> Path:
    """Return the path of an entry of a directory of the home, which need not exist. `what` it is appears in messages.

    Raises NOT_FOUND for a name that could not be that of an entry, because its path would lead elsewhere.
    """
    if name in {"", ".", ".."} or "/" in name:
        raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no {what} {name!r}")
    return directory / name


def files_in(directory: Path, pattern: str) -> list[Path]:
    """Return the files below a directory of the home that match a pattern, none if there is no such directory.

    Raises OSError if this user may not read the directory, for which ``glob`` finds nothing.
    """
    try:
        os.scandir(directory).close()
    except FileNotFoundError:
        return []
    return sorted(directory.glob(pattern))


def find_home() -> Home:
    """Return the home of this process: ``DRUMHEAD_HOME`` or ``~/.drumhead``.

    Symbolic links are followed, because private networks and snapshots belong to the path. Raises USAGE if neither is
    known, or if the path is not UTF-8: records hold it.
    """
    root = expanded(os.environ.get("DRUMHEAD_HOME") or "~/.drumhead", "set DRUMHEAD_HOME to a directory")
    if root.exists() or not root.is_symlink():  # a link to nothing is an error that names the link
        root = root.resolve()
    try:
        str(root).encode()
    except UnicodeEncodeError as error:
        raise DrumheadError(
            ErrorCode.USAGE, f"the path {os.fsencode(root)!r} is not UTF-8; set DRUMHEAD_HOME to another directory"
        ) from error
    return Home(root=root)


def expanded(path: str, advice: str) -> Path:
    """Return an absolute path, with ``~`` and ``~USER`` replaced by the home directory.

    Raises USAGE with `advice` if there is no such user, or if this process's user has none and HOME is not set.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise DrumheadError(ErrorCode.USAGE, f"there is no home directory for {path}; {advice}") from error
