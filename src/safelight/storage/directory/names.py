"""The file of a classic name: the digest of the blob that it names, and the name itself."""

from __future__ import annotations

from pathlib import Path

from safelight.storage.files import older, read_plainly

_LONGEST = 1 << 16


def read_name(path: Path) -> tuple[str, str] | None:
    """Return the digest and the name in a file, or None if there is no such file."""
    try:
        with read_plainly(path) as file:
            digest, _, name = file.read(_LONGEST).decode(errors="replace").partition("\n")
    except FileNotFoundError:
        return None
    return digest, name


def older_names(directory: Path, before: float) -> list[str]:
    """Return the names whose files in a directory are older than a time."""
    found = (read_name(directory / file) for file in older(directory, before))
    return [known[1] for known in found if known is not None]
