"""Encode recipes as canonical JSON, and compute the digest by which equal work is recognised."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from safelight.recipe.records import Recipe


def encode(recipe: Recipe) -> bytes:
    """Return the recipe as JSON for `parse`, with sorted keys and all defaults: equal recipes give equal bytes."""
    return msgspec.json.encode(recipe, order="sorted")


def digest(recipe: Recipe, engine_version: str) -> str:
    """Return the SHA-256 (hex) of a recipe and the version of the engine, without its name and description."""
    meaning = msgspec.structs.replace(recipe, name="custom", description="")
    return hashlib.sha256(encode(meaning) + b"\n" + engine_version.encode()).hexdigest()


def schema_components(ref_template: str = "#/components/schemas/{name}") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON Schema of a recipe: a reference, and the components by name for an OpenAPI document."""
    (reference,), components = msgspec.json.schema_components([Recipe], ref_template=ref_template)
    return reference, components
