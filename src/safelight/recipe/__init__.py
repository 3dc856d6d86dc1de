"""Recipes, which say what to make from an upload: records and their validation, without image processing."""

from safelight.recipe.builtin import BUILTIN, DEFAULT
from safelight.recipe.encoding import digest, encode, schema_components
from safelight.recipe.parsing import load_file, parse
from safelight.recipe.records import OutputSpec, Recipe

__all__ = ["BUILTIN", "DEFAULT", "OutputSpec", "Recipe", "digest", "encode", "load_file", "parse", "schema_components"]
