"""Search for packages in remotes, in the local store, and among recipes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from drumhead.debian.version import version_key
from drumhead.package.names import resolve_names
from drumhead.package.recipe import known_recipes
from drumhead.package.records import Package
from drumhead.package.remote.remotes import search_remotes
from drumhead.package.store import PackageStore

if TYPE_CHECKING:
    from drumhead.home import Home


async def search(home: Home, part: str) -> tuple[list[Package], list[str]]:
    """Find packages by a part of their name, a word of their description or an old name. Return them and notices.

    A recipe without any built version appears with the version ``(recipe)``; a remote that does not answer is a notice.
    """
    notices: list[str] = []
    wanted = {part.lower()}
    if part:
        refs, notices = resolve_names([part])
        wanted |= {ref.name.lower() for ref in refs}
    remote, unanswered = await search_remotes(home)
    packages = remote + PackageStore(home).list()
    names = {package.name for package in packages}
    packages += [
        Package(
            name=recipe.name,
            version="(recipe)",
            kind=recipe.kind,
            description=recipe.description,
            created="",
            archive="",
            archive_size=0,
            unpacked_size=0,
        )
        for recipe in known_recipes().values()
        if recipe.name not in names
    ]
    found = {
        (package.name, package.version): package
        for package in packages
        if any(_matches(package, word) for word in wanted)
    }
    return sorted(found.values(), key=_order), [*notices, *unanswered]


def _matches(package: Package, word: str) -> bool:
    return word in package.name.lower() or re.search(rf"\b{re.escape(word)}\b", package.description.lower()) is not None


def _order(package: Package) -> tuple[str, object]:
    return package.name, version_key(package.version) if package.version[:1].isdigit() else (-1, (), ())
