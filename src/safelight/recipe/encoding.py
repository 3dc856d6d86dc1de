"""Recipes as canonical JSON, and the digest under which equal work is recognised."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from safelight.recipe.records import Recipe


def encode(recipe: Recipe) -> bytes:
    """The recipe as JSON that `parse` reads; equal recipes give equal bytes (keys sorted, defaults written out)."""
    return msgspec.json.encode(recipe, order="sorted")


def digest(recipe: Recipe, engine_version: str) -> str:
    """SHA-256 (hex) of what the recipe means to that engine; its name and description do not count."""
    meaning = msgspec.structs.replace(recipe, name="custom", description="")
    return hashlib.sha256(encode(meaning) + b"\n" + engine_version.encode()).hexdigest()


def schema_components(ref_template: str = "#/components/schemas/{name}") -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of a Recipe: a reference to it, and the components by name for an OpenAPI document."""
    (reference,), components = msgspec.json.schema_components([Recipe], ref_template=ref_template)
    return reference, components
