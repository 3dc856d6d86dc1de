"""Read package recipes: those of drumhead in package/recipes/NAME.yaml, and files of the user in the same format."""

from __future__ import annotations

import difflib
import functools
import re
from importlib import resources
from typing import TYPE_CHECKING, get_args

import msgspec
import yaml

from drumhead.errors import DrumheadError, ErrorCode, manifest_error, reason_and_place, wrong_value
from drumhead.package.records import PackageKind, Recipe
from drumhead.records import VERSION_RULE, is_text, variable_fault, version_fault

if TYPE_CHECKING:
    from pathlib import Path


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader if PyYAML has it, because it is ten times faster."""
MAX_BYTES = 256 << 10
"""The maximum size of a recipe. The longest of drumhead's own has 3 KiB."""
MAX_DEPTH = 16
EXPECTED = {
    "name": "a name has letters and digits, with . _ + - / between them",
    "debian": "the name of a Debian package has a-z, 0-9, + - and .",
    "version_of": "the name of a Debian package has a-z, 0-9, + - and .",
    "wheels": "a wheel is written NAME==VERSION --hash=sha256:DIGEST",
    "npm": "a package of npm is written NAME@VERSION sha512-DIGEST",
    "version": VERSION_RULE,
    "owners": "an owner is written USER, USER:GROUP or as numbers, and a path has no leading slash and no ..",
    "requires": "the name of a package has letters and digits, with . _ + - / between them",
}
"""Descriptions of valid values, by key."""


@functools.cache
def known_recipes() -> dict[str, Recipe]:
    """Return the recipes that come with drumhead, by name."""
    directory = resources.files("drumhead.package") / "recipes"
    files = sorted(directory.iterdir(), key=lambda file: file.name)
    found = [_parse(file.name, file.read_text()) for file in files if file.name.endswith(".yaml")]
    return {recipe.name: recipe for recipe in found}


def find_recipe(name: str) -> Recipe:
    """Return the recipe called `name`. Raises NOT_FOUND with the existing names."""
    recipes = known_recipes()
    if name not in recipes:
        raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no recipe {name}; there are {', '.join(recipes)}")
    return recipes[name]


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a file. Raises MANIFEST with file, line and reason, NOT_FOUND."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise manifest_error(str(path), 1, f"a recipe has at most {MAX_BYTES >> 10} KiB")
        return _parse(str(path), text.decode())
    except FileNotFoundError as error:
        raise DrumheadError(
            ErrorCode.NOT_FOUND, f"{path} does not exist; `drumhead package new NAME` writes a recipe to start from"
        ) from error
    except UnicodeDecodeError as error:
        raise manifest_error(str(path), 1, f"it is not text in UTF-8 ({error.reason})") from error
    except OSError as error:
        raise manifest_error(str(path), 1, f"it cannot be read: {error.strerror}") from error


def find_alias(name: str) -> Recipe | None:
    """Return the recipe of an old name (``eu.mikelangelo-project.app.node-4.2.6`` → node, ``osv.nginx`` → nginx)."""
    for recipe in known_recipes().values():
        if any(re.fullmatch(alias, name) for alias in recipe.aliases):
            return recipe
    return known_recipes().get(name.removeprefix("osv.")) if name.startswith("osv.") else None


def _parse(file: str, text: str) -> Recipe:
    try:
        _check_depth(file, text)
        node = yaml.compose(text, Loader=LOADER)
        recipe = msgspec.convert(yaml.load(text, Loader=LOADER), Recipe)  # noqa: S506 - a safe one, as its name says
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        raise manifest_error(file, mark.line + 1 if mark else 1, f"it is not YAML: {reason}") from error
    except (ValueError, TypeError) as error:  # dates that do not exist, keys that are lists
        if not isinstance(error, msgspec.ValidationError):
            raise manifest_error(file, 1, f"a value has the wrong type: {error}") from error
        reason, place = reason_and_place(error)
        raise manifest_error(file, _line_of(node, f"{place} {reason}"), _sentence(error)) from error
    if fault := _fault(recipe):
        key, reason = fault
        raise manifest_error(file, _line_of(node, f"$.{key}"), reason)
    return recipe


def _check_depth(file: str, text: str) -> None:
    """Refuse a file that is nested deeper than any recipe, before a recursive function reads it."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise manifest_error(
                file, (event.start_mark.line if event.start_mark else 0) + 1, "its values are nested too deeply"
            )


def _line_of(node: yaml.Node | None, place: str) -> int:
    """Return the line of a key in msgspec's notation (``$.config_sets[...].argv``, or an unknown field `x`)."""
    line = 1
    for name in re.findall(r"[A-Za-z_]+", place):
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == name]
            if found:
                line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line


def _sentence(error: msgspec.ValidationError) -> str:
    (reason, place), (said, _) = wrong_value(error), reason_and_place(error)
    key = place.split("[")[0]
    if unknown := re.search(r"unknown field `(.+)`", said):
        near = [] if key else difflib.get_close_matches(unknown[1], Recipe.__struct_fields__, n=1)
        return f"{key or 'a recipe'} has no key {unknown[1]}" + (f"; did you mean {near[0]}?" if near else "")
    if missing := re.search(r"missing required field `(.+)`", said):
        return f"{key or 'the recipe'} must give {missing[1]}"
    if not key:
        return "a recipe must be a mapping (key: value)"
    if "matching regex" in reason:
        return f"{key}: {EXPECTED.get(key, 'a path of the image has no leading slash and no ..')}"
    if key == "kind":
        reason += f"; write one of {', '.join(get_args(PackageKind))}"
    return f"{key}: {reason}"


def _fault(recipe: Recipe) -> tuple[str, str] | None:
    """Return the key with an invalid value and the reason, or None if the recipe can be built."""
    if not recipe.debian and not recipe.wheels and not recipe.npm:
        return "name", "the recipe must give debian (or wheels, or npm), the packages to take files from"
    if bool(recipe.version) == bool(recipe.version_of):
        return "version", "the recipe must give either version_of, a Debian package, or version"
    if fault := version_fault(recipe.version):
        return "version", fault
    if recipe.kind == "kernel" and not recipe.modules:
        return "kind", "a kernel must give modules"
    if recipe.modules and recipe.kind != "kernel":
        return "modules", "only a kernel has modules"
    for name, command in recipe.config_sets.items():
        if not command.argv:
            return "config_sets", f"config set {name} must give argv, the program and its arguments"
        if not command.cwd.startswith("/"):
            return "config_sets", f"cwd of config set {name} must be a path from the image's root, not {command.cwd}"
        if not all(map(is_text, (*command.argv, command.cwd))):
            return "config_sets", f"config set {name} holds a character that no argument can hold"
        if fault := next(filter(None, (variable_fault(*one) for one in command.env.items())), ""):
            return "config_sets", f"config set {name}: {fault}"
    for alias in recipe.aliases:
        try:
            re.compile(alias)
        except re.error as error:
            return "aliases", f"{alias!r} is not a regular expression: {error}"
    return None
