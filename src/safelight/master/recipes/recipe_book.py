"""Recipes by name: built in, from the master's file, and saved in db."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from safelight import recipe
from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.master.recipes.recipe_cache import Cached, Chosen, RecipeCache
from safelight.master.recipes.recipe_reader import RecipeReader
from safelight.recipe import Recipe
from safelight.recipe.records import NAME
from safelight.wire import NamedRecipe, SavedRecipe
from safelight.wire.conditions import ALWAYS, Condition

_FRESH = 1.0
"""Seconds for which saved recipes are cached; after that, other masters see a saved recipe."""

_SHOWN = 50
"""The most names that a message lists."""
_TENANTS = 1000
"""Tenants whose lists of saved recipes are cached."""
_CACHED_BYTES = 64 * 1024 * 1024
"""The most bytes of saved recipes to cache: more than one tenant may have."""
CUSTOM = "custom"
"""The name of recipes that were sent with their photo, or with a rerun."""
_RESERVED = frozenset({"check", "schema", CUSTOM})
"""Reserved names: paths of the API, and CUSTOM."""


class RecipeBook:
    """The recipes of all tenants: built-in recipes and those in the file are shared, saved ones belong to a tenant."""

    def __init__(self, db: DbClient, from_file: Mapping[str, Recipe]) -> None:
        self._db = db
        fixed = {**recipe.BUILTIN, **from_file}
        self._fixed = {name: NamedRecipe(name=name, spec=_spec(found)) for name, found in fixed.items()}
        self._fixed_choices = {name: choose(found, name) for name, found in fixed.items()}
        self._of: OrderedDict[str, TenantRecipes] = OrderedDict()
        self._reader = RecipeReader()
        self._cache = RecipeCache(_CACHED_BYTES)

    async def read(self, document: bytes, *, toml: bool, name: str | None = None) -> Recipe:
        """Read a recipe, to be called `name`. Raises INVALID_RECIPE, TOO_MANY_REQUESTS."""
        return await self._reader.read(document, toml=toml, name=name)

    def of(self, tenant: str) -> TenantRecipes:
        """Return the recipes of a tenant."""
        found = self._of.get(tenant)
        if found is None:
            found = self._of[tenant] = TenantRecipes(
                self._db, tenant, self._reader, self._cache, self._fixed, self._fixed_choices
            )
            if len(self._of) > _TENANTS:
                self._of.popitem(last=False)
        self._of.move_to_end(tenant)
        return found


class TenantRecipes:
    """Finds, saves and deletes the recipes of a tenant. Built-in recipes and those in the file cannot be replaced."""

    def __init__(
        self,
        db: DbClient,
        tenant: str,
        reader: RecipeReader,
        cache: RecipeCache,
        fixed: Mapping[str, NamedRecipe],
        choices: Mapping[str, Chosen],
    ) -> None:
        self._db = db
        self._reader = reader
        self._cache = cache
        self._tenant = tenant
        self._fixed = fixed
        self._fixed_choices = choices
        self._saved: dict[str, SavedRecipe] = {}
        self._read = float("-inf")
        self._reading = asyncio.Lock()

    async def choose(self, wanted: str) -> Chosen:
        """Return the recipe of an upload or a rerun, given as a name, as JSON, or as "" for the default.

        Raises INVALID_RECIPE with position and reason, NOT_FOUND for an unknown name, and TOO_MANY_REQUESTS.
        """
        text = wanted.removeprefix("\ufeff").strip()  # editors may write a byte order mark
        if text.startswith("{"):
            return choose(await self._reader.read(text), CUSTOM)
        name = text or recipe.DEFAULT
        if name in self._fixed_choices:
            return self._fixed_choices[name]
        cached = await self._find(name)
        if cached.choice is None:
            cached.choice = choose(await self._reader.read(bytes(cached.saved.spec)), name)
        return cached.choice

    async def all(self) -> list[NamedRecipe]:
        """Return every recipe by name."""
        await self._refresh(0.0)
        found = list(self._fixed.values())
        for name in self._saved.keys() - self._fixed.keys():
            try:
                found.append((await self._read_one(name)).saved)
            except Error as error:
                if error.code is not Code.NOT_FOUND:  # it was deleted meanwhile
                    raise
        return sorted(found, key=lambda each: each.name)

    async def find(self, name: str) -> NamedRecipe:
        """Return one recipe. Raises NOT_FOUND."""
        if name in self._fixed:
            return self._fixed[name]
        return (await self._find(name)).saved

    async def _find(self, name: str) -> Cached:
        await self._refresh(_FRESH if name in self._saved else 0.0)
        if name not in self._saved:
            known = ", ".join(sorted({**self._saved, **self._fixed})[:_SHOWN])
            raise Error(Code.NOT_FOUND, f"There is no recipe called {name[:64]!r}. Known are {known}.")
        return await self._read_one(name)

    async def save(self, name: str, found: Recipe, condition: Condition = ALWAYS) -> NamedRecipe:
        """Save a recipe, replacing a saved one of the same name.

        Raises CONFLICT for a fixed name, and if too many are saved; NOT_FOUND for an unknown tenant; and
        PRECONDITION_FAILED.
        """
        self._check_free(name)
        new = NamedRecipe(tenant=self._tenant, name=name, spec=_spec(found))
        async with self._changing():
            changed = (await self._db.save_recipe(new, condition)).changed
        # What is read now may have been saved by somebody else meanwhile, and its ETag would be taken for this one's.
        return self._cache.put(msgspec.structs.replace(new, changed=changed)).saved

    async def delete(self, name: str, condition: Condition = ALWAYS) -> None:
        """Delete a saved recipe. Raises NOT_FOUND; CONFLICT for a fixed name; PRECONDITION_FAILED."""
        self._check_free(name)
        async with self._changing():
            await self._db.delete_recipe(name, tenant=self._tenant, condition=condition)

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Read the list again after a change, and after one that was refused since another master has made one."""
        try:
            yield
        except Error as error:
            if error.code is Code.PRECONDITION_FAILED:
                await self._refresh(0.0)
            raise
        await self._refresh(0.0)

    def _check_free(self, name: str) -> None:
        if re.match(NAME, name) is None:
            sentence = "A recipe's name has 1 to 64 of a-z, 0-9, - and _, and starts with a letter or digit."
            raise Error(Code.INVALID_RECIPE, sentence, position="$.name")
        if name in _RESERVED:
            raise Error(Code.CONFLICT, f"The name {name} is reserved. Choose another one.")
        if name in self._fixed:
            raise Error(Code.CONFLICT, f"The recipe {name} is built in and cannot be changed. Choose another name.")

    async def _refresh(self, older_than: float) -> None:
        asked = time.monotonic()
        async with self._reading:
            if self._read >= asked - older_than:  # another request has read them meanwhile, or they are still recent
                return
            begun = time.monotonic()
            self._saved = {found.name: found for found in await self._db.recipes(tenant=self._tenant)}
            self._read = begun

    async def _read_one(self, name: str) -> Cached:
        """Return a saved recipe, read only if it has changed. Raises NOT_FOUND."""
        async with self._reading:
            listed = self._saved.get(name)
            cached = None if listed is None else self._cache.get(self._tenant, listed)
            if cached is None:
                cached = self._cache.put(await self._db.recipe(name, tenant=self._tenant))
                size = len(bytes(cached.saved.spec))
                self._saved[name] = SavedRecipe(name=name, changed=cached.saved.changed, size=size)
            return cached


def choose(found: Recipe, name: str) -> Chosen:
    """Return a recipe as one to choose for an upload."""
    digest = _digest(found)
    work = msgspec.Raw(recipe.encode_work(found))
    return Chosen(name=name, spec=work, digest=digest, classic=digest == _INVERT)


def _digest(found: Recipe) -> str:
    # The digest is without the version of the engine, which db stores with each result.
    return recipe.digest(found, "")


def _spec(found: Recipe) -> msgspec.Raw:
    return msgspec.Raw(recipe.encode(found))


_INVERT = _digest(recipe.BUILTIN["invert"])
