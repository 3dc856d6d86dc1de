"""Recipes, which say what to make from an upload: records and their validation, without image processing."""

from safelight.recipe.builtin import BUILTIN, DEFAULT
from safelight.recipe.encoding import digest, encode, encode_work, schema_components, work_of
from safelight.recipe.parsing import load_file, parse
from safelight.recipe.records import OutputSpec, Recipe

__all__ = [
    "BUILTIN",
    "DEFAULT",
    "OutputSpec",
    "Recipe",
    "digest",
    "encode",
    "encode_work",
    "load_file",
    "parse",
    "schema_components",
    "work_of",
]
