"""Read recipes that people give to the command: by name, or in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from safelight import recipe
from safelight.errors import Code, Error


def recipe_argument(given: str) -> str | Mapping[str, Any]:
    """Return the recipe for an upload: a name, or the recipe in a file."""
    if given.partition(":")[0].endswith((".toml", ".json")):
        return document(read(given))
    return given


def read(given: str) -> recipe.Recipe:
    """Read `FILE.json`, `FILE.toml` with one recipe, or `FILE.toml:NAME`. Raises INVALID_RECIPE with the place."""
    path, _, name = given.partition(":")
    try:
        if path.endswith(".json"):
            return recipe.parse(Path(path).read_bytes())
        found = recipe.load_file(Path(path))
    except OSError as error:
        raise Error(Code.NOT_FOUND, f"The recipe file {path} cannot be read: {error.strerror}.") from None
    if name:
        if name not in found:
            raise Error(Code.NOT_FOUND, f"There is no recipe {name} in {path}; it has {', '.join(found) or 'none'}.")
        return found[name]
    if len(found) != 1:
        detail = f"{path} holds {len(found)} recipes ({', '.join(found)}); choose one: {path}:NAME."
        raise Error(Code.INVALID_RECIPE, detail)
    return next(iter(found.values()))


def document(made: recipe.Recipe) -> dict[str, Any]:
    """Return a recipe as JSON values."""
    fields: dict[str, Any] = msgspec.json.decode(recipe.encode(made))
    return fields
