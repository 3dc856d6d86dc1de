"""Write what the locks of other tools say as lines of a requirements file with hashes."""

from __future__ import annotations

import re

from drumhead.errors import manifest_error

PUBLIC_INDEX = re.compile(r"https?://pypi(\.python)?\.org/simple/?")
SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def check_any_hash(package: str, hashes: list[str], name: str, command: str) -> None:
    """Raise MANIFEST if none of the hashes of a package in the lock `name` is one that installers check."""
    if not any(map(SHA256.fullmatch, hashes)):
        raise manifest_error(name, 1, f"{package} has no SHA-256 hash; a newer version of `{command}` writes one")


def requirement_line(requirement: str, marker: str, hashes: list[str]) -> str:
    """Return a requirement with its marker and hashes, on as many lines as pip-compile writes."""
    condition = f" ; {marker}" if marker else ""
    return " \\\n    ".join([requirement + condition, *(f"--hash={one}" for one in sorted(hashes))])


def requirements_text(lines: list[str], indexes: set[str]) -> str:
    """Return a requirements file with these lines, for packages from these indexes."""
    more = [f"--extra-index-url {url}" for url in sorted(indexes) if url and not PUBLIC_INDEX.fullmatch(url)]
    return "\n".join([*more, *lines]) + "\n"
