"""Test recipes over HTTP."""

from __future__ import annotations

import msgspec
import pytest

from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.recipe import BUILTIN
from support.photos import photo

SMALL = {"outputs": {"small": {"operations": [{"op": "resize", "width": 64}], "format": "webp"}}}
FILE = """
[poster]
description = "For the wall"
[poster.outputs.image]
format = "png"
"""


async def test_built_in_recipes_are_listed(client):
    assert {recipe.name for recipe in await client.recipes()} == set(BUILTIN)
    found = await client.recipe("thumbnail")
    assert msgspec.json.decode(bytes(found.spec))["outputs"]["image"]["format"] == "webp"


async def test_a_recipe_is_saved_used_changed_and_deleted(client):
    saved = await client.save_recipe("small", SMALL)
    assert saved.name == "small"
    assert saved.changed > 0
    assert await client.recipe("small") == saved
    first = await client.upload(photo(1), recipe="small")
    assert first.recipe == "small"
    await client.save_recipe("small", {"outputs": {"small": {"format": "png"}}})
    second = await client.upload(photo(1), recipe="small")
    assert second.recipe_digest != first.recipe_digest
    await client.delete_recipe("small")
    for call in (client.recipe("small"), client.delete_recipe("small"), client.upload(photo(1), recipe="small")):
        with pytest.raises(Error) as caught:
            await call
        assert caught.value.code is Code.NOT_FOUND
    assert (await client.task(first.id)).recipe == "small"


async def test_masters_have_the_same_recipes(system, client):
    other = await system.master()
    async with Client.connect(other.url) as there:
        await client.save_recipe("small", SMALL)
        assert (await there.upload(photo(1), recipe="small")).recipe == "small"
        assert await there.recipes() == await client.recipes()


@pytest.mark.parametrize("name", ["invert", "web", "schema", "check", "custom"])
async def test_names_of_built_in_recipes_are_refused(client, name):
    with pytest.raises(Error) as caught:
        await client.save_recipe(name, SMALL)
    assert caught.value.code is Code.CONFLICT


@pytest.mark.parametrize("name", ["Big", "a b", "-a", "x" * 65])
async def test_invalid_names_are_refused(client, name):
    with pytest.raises(Error) as caught:
        await client.save_recipe(name, SMALL)
    assert caught.value.code is Code.INVALID_RECIPE


async def test_checking_a_recipe_names_the_place_of_an_error(client):
    checked = await client.check_recipe(SMALL)
    assert msgspec.json.decode(bytes(checked.spec))["outputs"]["small"]["quality"] == 80
    with pytest.raises(Error) as caught:
        await client.check_recipe({"outputs": {"small": {"operations": [{"op": "resise", "width": 64}]}}})
    assert caught.value.code is Code.INVALID_RECIPE
    assert "resize" in caught.value.detail
    assert caught.value.extra["position"].startswith("$.outputs.small")


async def test_recipes_as_toml(master, http):
    headers = {"Content-Type": "application/toml"}
    body = '[outputs.image]\nformat = "webp"\n'
    async with http.put(f"{master.url}/recipes/from-toml", data=body, headers=headers) as answer:
        assert answer.status == 200
        assert (await answer.json())["spec"]["outputs"]["image"]["format"] == "webp"


async def test_recipes_from_a_file(system, tmp_path):
    (tmp_path / "recipes.toml").write_text(FILE)
    master = await system.master(recipes=str(tmp_path / "recipes.toml"))
    async with Client.connect(master.url) as client:
        assert "poster" in {recipe.name for recipe in await client.recipes()}
        assert (await client.upload(photo(1), recipe="poster")).recipe == "poster"
        with pytest.raises(Error) as caught:
            await client.save_recipe("poster", SMALL)
        assert caught.value.code is Code.CONFLICT


async def test_a_wrong_file_ends_the_program(system, tmp_path, capsys):
    (tmp_path / "recipes.toml").write_text('[poster]\noutputs.image.format = "bmp"\n')
    with pytest.raises(SystemExit):
        await system.master(recipes=str(tmp_path / "recipes.toml"))
    assert "$.poster.outputs.image.format" in capsys.readouterr().err


async def test_the_schema(master, http):
    async with http.get(f"{master.url}/recipes/schema") as answer:
        schema = await answer.json()
    assert schema["$ref"] == "#/$defs/Recipe"
    assert {"Recipe", "OutputSpec", "Resize"} <= set(schema["$defs"])
