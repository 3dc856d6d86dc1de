"""Test that the examples in docs/guide/recipes.md are valid and that docs/reference/recipe-format.md is complete."""

import re
from pathlib import Path
from typing import get_args

from safelight.recipe import BUILTIN, OutputSpec, Recipe, load_file, parse
from safelight.recipe.operations import AnyOperation

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "guide/recipes.md").read_text()
FORMAT = (DOCS / "reference/recipe-format.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_examples_are_recipes(tmp_path):
    file = tmp_path / "recipes.toml"
    file.write_text(blocks("toml")[0])
    poster = load_file(file)["poster"]
    assert list(poster.outputs) == ["print", "preview"]
    assert parse(blocks("json")[0]).outputs["preview"] == poster.outputs["preview"]


def test_the_format_names_every_operation_and_field():
    for operation in get_args(AnyOperation):
        name = operation.__struct_config__.tag
        rows = [line for line in FORMAT.splitlines() if line.startswith(f"| `{name}` |")]
        assert any(all(f"`{field}`" in row for field in operation.__struct_fields__) for row in rows), name
    for field in (*OutputSpec.__struct_fields__, *Recipe.__struct_fields__):
        assert f"`{field}`" in FORMAT
    for name in BUILTIN:
        assert f"| `{name}` |" in GUIDE
