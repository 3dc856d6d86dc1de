"""Encode recipes as canonical JSON, and compute the digest by which equal work is recognised."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from safelight.recipe.records import Recipe

_UNNAMED = {"name": "custom", "description": ""}


def encode(recipe: Recipe) -> bytes:
    """Return the recipe as JSON for `parse`, with sorted keys and all defaults: equal recipes give equal bytes."""
    return msgspec.json.encode(recipe, order="sorted")


def encode_work(recipe: Recipe) -> bytes:
    """Return what the recipe does, as JSON for `parse`: recipes of one digest give equal bytes, whatever their names.

    Tenants share what is stored by the digest, so nothing else of their recipes may be in there.
    """
    return encode(msgspec.structs.replace(recipe, **_UNNAMED))


def work_of(document: str) -> bytes:
    """Return a recipe that `encode` has made, perhaps that of an earlier version, without its name and description."""
    fields = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
    blank = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in _UNNAMED.items() if name in fields}
    return msgspec.json.encode(fields | blank)


def digest(recipe: Recipe, engine_version: str) -> str:
    """Return the SHA-256 (hex) of a recipe and the version of the engine, without its name and description."""
    return hashlib.sha256(encode_work(recipe) + b"\n" + engine_version.encode()).hexdigest()


def schema_components(ref_template: str = "#/components/schemas/{name}") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON Schema of a recipe: a reference, and the components by name for an OpenAPI document."""
    (reference,), components = msgspec.json.schema_components([Recipe], ref_template=ref_template)
    return reference, components
