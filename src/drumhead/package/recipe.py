"""Read recipes: drumhead's own in package/recipes/NAME.yaml, and files of the user in the same form."""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import TYPE_CHECKING

import msgspec
import yaml

from drumhead.errors import DrumheadError, ErrorCode, manifest_error
from drumhead.package.records import Recipe

if TYPE_CHECKING:
    from pathlib import Path


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader where PyYAML has it, as it is ten times faster."""


@functools.cache
def known_recipes() -> dict[str, Recipe]:
    """Return the recipes that come with drumhead, by name."""
    folder = resources.files("drumhead.package") / "recipes"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    found = [_parse(file.name, file.read_text()) for file in files if file.name.endswith(".yaml")]
    return {recipe.name: recipe for recipe in found}


def find_recipe(name: str) -> Recipe:
    """Return the recipe called `name`. Raises NOT_FOUND with the existing names."""
    recipes = known_recipes()
    if name not in recipes:
        raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no recipe {name}; there are {', '.join(recipes)}")
    return recipes[name]


def read_recipe(path: Path) -> Recipe:
    """Return a recipe in a file. Raises MANIFEST."""
    return _parse(str(path), path.read_text())


def find_alias(name: str) -> Recipe | None:
    """Return the recipe that an old name stands for (``eu.mikelangelo-project.app.node-4.2.6`` → node)."""
    for recipe in known_recipes().values():
        if any(re.fullmatch(alias, name) for alias in recipe.aliases):
            return recipe
    return None


def _parse(file: str, text: str) -> Recipe:
    try:
        return msgspec.convert(yaml.load(text, Loader=LOADER), Recipe)  # noqa: S506 - a safe one, as its name says
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise manifest_error(file, mark.line + 1 if mark else 1, str(error)) from error
    except msgspec.ValidationError as error:
        raise manifest_error(file, 1, str(error)) from error
