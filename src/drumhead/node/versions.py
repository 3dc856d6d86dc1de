"""Choose the package of Node.js for a project, by name in the manifest or by ``engines`` in package.json."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import manifest_error
from drumhead.manifest.project_files import is_there, read_text
from drumhead.text import printable

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT = "node"
RELEASES = {"node": "18.20.4", "node-20": "20.20.2", "node-22": "22.23.3", "node-24": "24.21.0"}
"""The packages of Node.js, oldest first, with their versions. A test compares them with the recipes."""
MODULE_ABI = {"node": 108, "node-20": 115, "node-22": 127, "node-24": 137}
"""The NODE_MODULE_VERSION of each package (nodejs.org/download/releases). Native modules are built for one of them."""
CODENAMES = {"hydrogen": 18, "iron": 20, "jod": 22, "krypton": 24}
"""Code names of releases with long-term support (nodejs.org/about/previous-releases), as all of RELEASES are."""
ANY = frozenset({"", "latest", "lts", "lts/*", "current", "stable", "node"})
OPERATOR = re.compile(r"(>=|<=|[<>=^~])\s*v?(?=[\dxX*])|(?<![\w.+-])v(?=\d)")
"""An operator with blanks or a ``v`` after it, or a ``v`` alone, which npm allows and the library does not."""
PACKAGE_JSON = "package.json"


def engines(root: Path) -> str:
    """Return ``engines.node`` of a project's package.json, or an empty string. Raises MANIFEST."""
    described = read_json(root, PACKAGE_JSON).get("engines", {})
    asked = described.get("node", "") if isinstance(described, dict) else ""
    if isinstance(asked, int | float) and not isinstance(asked, bool):
        asked = str(asked)  # {"node": 20}
    return asked.strip() if isinstance(asked, str) else ""


def choose_node(root: Path, named: str) -> tuple[str, str]:
    """Return the package of Node.js that a project gets, and a notice if the manifest does not determine it.

    `named` is the package in the manifest or of the runtime. For ``node``, choose the newest that ``engines`` allows.
    Raises MANIFEST if there is none.
    """
    asked = engines(root)
    if not asked:
        return named, ""
    if named != DEFAULT:
        fits = satisfies(RELEASES[named], asked)
        return named, "" if fits else f"package.json asks for Node.js {asked}, but {named} is {RELEASES[named]}"
    for package, release in reversed(RELEASES.items()):
        if satisfies(release, asked):
            return package, "" if package == DEFAULT else f"engines asks for Node.js {asked}: the image gets {package}"
    offered = ", ".join(f"{package} ({release})" for package, release in RELEASES.items())
    raise manifest_error(
        PACKAGE_JSON, 1, f"engines asks for Node.js {asked}; there are {offered}. Require one by name to use it anyway"
    )


def satisfies(release: str, wanted: str) -> bool:
    """Return whether a version is in a range in npm's syntax. Raises MANIFEST if `wanted` is not a range."""
    text = " ".join(wanted.replace("~>", "~").split())
    if text.lower() in ANY:
        return True
    if major := CODENAMES.get(text.lower().removeprefix("lts/")):
        return release.startswith(f"{major}.")
    from semantic_version import NpmSpec, Version  # noqa: PLC0415 - only projects that say it need it

    try:
        return bool(NpmSpec(OPERATOR.sub(r"\1", text)).match(Version(release)))
    except (ValueError, AttributeError) as error:  # the library fails in either way
        shown = printable(wanted, longest=60)
        raise manifest_error(
            PACKAGE_JSON, 1, f"engines: {shown!r} is not a range of versions; use npm's syntax, like >=20 <23"
        ) from error


def read_json(root: Path, name: str) -> dict[str, object]:
    """Return the object in a JSON file of a project, or an empty one if there is no file. Raises MANIFEST."""
    if not is_there(root, name):
        return {}
    text = read_text(root, name)
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError) as error:
        raise manifest_error(name, 1, f"it is not a JSON object: {error}") from error
