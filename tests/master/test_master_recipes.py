"""Test recipes over HTTP."""

from __future__ import annotations

import base64
import io
import threading

import aiohttp
import msgspec
import pytest

from safelight.client.master import Client
from safelight.db.sqlite import SqliteStore
from safelight.errors import Code, Error
from safelight.master.recipes.recipe_book import RecipeBook
from safelight.master.recipes.recipe_cache import RecipeCache
from safelight.recipe import BUILTIN, parse
from safelight.wire import NamedRecipe, SavedRecipe
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


async def test_a_saved_recipe_is_read_again_only_once_it_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr("safelight.master.recipes.recipe_book._FRESH", 0.0)
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as db:
        read: list[str] = []

        def note(statement: str) -> None:
            if "(spec, changed) FROM recipe" in statement:
                read.append(statement.rpartition(" = ")[2])

        db._database._connection._sqlite.set_trace_callback(note)
        book, other = (RecipeBook(db, {}).of("default") for _ in range(2))
        for name in ("a", "b"):
            await book.save(name, parse(SMALL))
        for _ in range(3):
            assert {"a", "b"} < {found.name for found in await book.all()}
            assert (await book.choose("a")).name == "a"
            with pytest.raises(Error, match="no recipe called 'c'"):
                await book.find("c")
        assert not read  # what it has saved is what was sent
        saved = await other.save("a", parse({"outputs": {"small": {"format": "png"}}}))
        read.clear()
        assert await book.find("a") == saved
        assert saved in await book.all()
        assert read == ["'a'"]
        await other.delete("b")
        assert "b" not in {found.name for found in await book.all()}
        db._database._connection._sqlite.set_trace_callback(None)


async def test_long_recipes_are_read_in_a_thread(master, client, http, monkeypatch):
    threads = []

    def noted(*given):
        threads.append(threading.current_thread())
        return parse(*given)

    monkeypatch.setattr("safelight.recipe.parse", noted)
    long = {"outputs": {"a": {"operations": [{"op": "watermark", "image": "A" * 100_000}]}}}
    asked = {"task": "1-aaaaaaaaaa", "recipe": long}
    async with http.post(f"{master.url}/preview", json=asked) as answer:
        assert answer.status == 404
    await client.save_recipe("long", long)
    assert (await client.upload(photo(1), recipe="long")).recipe == "long"
    assert len(threads) == 3, "a preview, a recipe that is saved, and its first use"
    assert threading.main_thread() not in threads


def test_recipes_that_were_not_used_lately_are_dropped():
    cache = RecipeCache(most=100)

    def named(name: str, size: int) -> NamedRecipe:
        return NamedRecipe(name=name, spec=msgspec.Raw(b"x" * size), changed=1.0)

    def kept() -> str:
        return "".join(name for name in "abcd" if (name in {key for _, key in cache._cached}))

    for name in "ab":
        cache.put(named(name, 40))
    assert cache.get("default", SavedRecipe(name="a", changed=1.0, size=40)) is not None
    assert cache.get("default", SavedRecipe(name="a", changed=2.0, size=40)) is None
    assert cache.get("other", SavedRecipe(name="a", changed=1.0, size=40)) is None
    cache.put(named("c", 40))
    assert kept() == "ac"
    cache.put(named("c", 60))
    assert kept() == "ac"
    cache.put(named("d", 500))
    assert kept() == "d"


async def test_recipes_of_many_bytes_are_refused(client, monkeypatch):
    monkeypatch.setattr("safelight.db.calls.recipes.MOST_BYTES", 500)
    await client.save_recipe("small", SMALL)
    with pytest.raises(Error, match="Delete one first") as caught:
        await client.save_recipe("other", SMALL)
    assert caught.value.code is Code.CONFLICT


async def test_masters_have_the_same_recipes(system, client):
    other = await system.master()
    async with Client.connect(other.url) as there:
        await client.save_recipe("small", SMALL)
        assert (await there.upload(photo(1), recipe="small")).recipe == "small"
        assert await there.recipes() == await client.recipes()


async def test_an_edit_of_another_version_is_refused_at_each_master(system, client):
    other = await system.master()
    async with Client.connect(other.url) as there:
        mine = await client.save_recipe("small", SMALL, unchanged_since=0)
        assert await there.recipe("small") == mine
        theirs = await client.save_recipe("small", SMALL | {"description": "theirs"})
        for call in (
            there.save_recipe("small", SMALL, unchanged_since=mine.changed),
            there.save_recipe("small", SMALL, unchanged_since=0),
            there.delete_recipe("small", unchanged_since=mine.changed),
        ):
            with pytest.raises(Error) as caught:
                await call
            assert caught.value.code is Code.PRECONDITION_FAILED
        assert await there.recipe("small") == theirs  # at once, without what was cached
        await there.delete_recipe("small", unchanged_since=theirs.changed)


async def test_a_recipe_has_an_etag(master, http):
    url, body = f"{master.url}/recipes/small", msgspec.json.encode(SMALL)
    tags = []
    for headers, status in (
        ({"If-Match": "*"}, 412),
        ({"If-None-Match": "*"}, 200),
        ({}, 200),
        ({"If-Match": "TAG"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": "unquoted"}, 400),
        ({"If-Match": ""}, 400),
    ):
        given = {name: value.replace("TAG", tags[-1] if tags else "") for name, value in headers.items()}
        sent = body.replace(b"webp", b"png") if status == 412 else body
        async with http.put(url, data=sent, headers=given) as answer:
            assert answer.status == status, (headers, await answer.text())
        if status == 200:
            tags.append(answer.headers["ETag"])
            async with http.get(url) as found:
                assert found.headers["ETag"] == tags[-1]
    assert len(set(tags)) == 3
    async with http.get(f"{master.url}/recipes/web") as builtin:
        assert "ETag" not in builtin.headers
    for tag, status in ((tags[0], 412), (tags[-1], 204)):
        async with http.delete(url, headers={"If-Match": tag}) as answer:
            assert answer.status == status


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


async def test_whatever_recipe_can_be_saved_can_be_sent_with_an_upload(client):
    image = base64.b64encode(photo(1).ljust(500_000, b"\0")).decode()
    output = {"operations": [{"op": "watermark", "image": image}]}
    large = {"outputs": {f"o{n}": output for n in range(5)}}  # 3.3 MB
    await client.save_recipe("large", large)
    task = await client.upload(photo(1), recipe=large)
    assert task.recipe_digest == (await client.upload(photo(1), recipe="large")).recipe_digest


async def test_the_recipe_may_be_in_the_address_of_an_upload(master, http, client):
    async def answered(path: str, **parts: str) -> dict:
        form = aiohttp.FormData({"image": io.BytesIO(photo(1)), **parts})
        async with http.post(master.url + path, data=form, headers={"Accept": "application/json"}) as answer:
            return await answer.json()

    task = await answered("/task?recipe=web&batch=b")
    assert (task["recipe"], task["batch"]) == ("web", "b")
    assert (await answered("/tasks?recipe=web"))[0]["task"]["recipe"] == "web"
    wrong = (("/task?reciep=web", {}), ("/task?recipe=web&recipe=web", {}), ("/task?recipe=web", {"recipe": "web"}))
    for path, parts in wrong:
        assert (await answered(path, **parts))["code"] == "invalid_request"
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(photo(1)))}
    headers["Content-Type"] = "application/offset+octet-stream"
    async with http.post(f"{master.url}/uploads?recipe=web", data=photo(1), headers=headers) as answer:
        assert (await client.task(answer.headers["Safelight-Task"])).recipe == "web"


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
