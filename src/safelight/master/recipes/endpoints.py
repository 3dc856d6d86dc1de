"""The endpoints of recipes: list, get, check, save and delete them."""

from __future__ import annotations

import msgspec
from aiohttp import web

from safelight import http, recipe
from safelight.access.caller import Access
from safelight.errors import Code
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.master.recipes.recipe_book import RecipeBook
from safelight.recipe import Recipe
from safelight.wire import NamedRecipe
from safelight.wire.conditions import Condition, tag_of

_TOML = "application/toml"
_EXAMPLE = {"outputs": {"small": {"operations": [{"op": "resize", "width": 640, "height": 640}], "format": "webp"}}}
_VERSION = {"If-Match": "the ETag of the recipe that it may replace"}
_VERSIONS = {**_VERSION, "If-None-Match": "* to replace no recipe"}


class Recipes:
    """The handlers of recipes."""

    def __init__(self, book: RecipeBook) -> None:
        self._book = book

    async def all(self, request: web.Request) -> web.Response:
        """`GET /recipes`."""
        return http.json_response(await self._book.of(tenant_of(request)).all())

    async def get(self, request: web.Request) -> web.Response:
        """`GET /recipes/{name}`."""
        return _answer(await self._book.of(tenant_of(request)).find(request.match_info["name"]))

    async def put(self, request: web.Request) -> web.Response:
        """`PUT /recipes/{name}`: the name in the URL replaces the one in the recipe."""
        name, condition = request.match_info["name"], Condition.of(request.headers)
        found = await self._book.read(await http.read_body(request), toml=request.content_type == _TOML, name=name)
        return _answer(await self._book.of(tenant_of(request)).save(name, found, condition))

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /recipes/{name}`: tasks that were created with it keep it."""
        condition = Condition.of(request.headers)
        await self._book.of(tenant_of(request)).delete(request.match_info["name"], condition)
        return web.Response(status=204)

    async def check(self, request: web.Request) -> web.Response:
        """`POST /recipes/check`."""
        found = await self._book.read(await http.read_body(request), toml=request.content_type == _TOML)
        return http.json_response(NamedRecipe(name=found.name, spec=msgspec.Raw(recipe.encode(found))))

    async def schema(self, _request: web.Request) -> web.Response:
        """`GET /recipes/schema`: JSON Schema of a recipe."""
        reference, definitions = recipe.schema_components("#/$defs/{name}")
        document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **reference, "$defs": definitions}
        return http.json_response(document)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        body = {JSON: Recipe, _TOML: {"type": "string"}}
        wrong = (Code.INVALID_RECIPE, Code.TOO_LARGE, Code.TOO_MANY_REQUESTS)
        return [
            Endpoint(
                method="GET", path="/recipes", handler=self.all, access=Access.READ | Access.UPLOAD, tag="recipes",
                summary="Every recipe: built in, from the master's file, and saved", answer={JSON: list[NamedRecipe]},
                errors=(Code.UNAVAILABLE,),
            ),
            Endpoint(
                method="GET", path="/recipes/schema", handler=self.schema, access=Access.READ | Access.UPLOAD,
                tag="recipes",
                summary="JSON Schema of a recipe", answer={JSON: {"type": "object"}},
            ),
            Endpoint(
                method="POST", path="/recipes/check", handler=self.check, access=Access.READ | Access.UPLOAD,
                tag="recipes",
                summary="Check a recipe and return its canonical form", body=body,
                answer={JSON: NamedRecipe}, errors=wrong, examples={JSON: _EXAMPLE},
            ),
            Endpoint(
                method="GET", path="/recipes/{name}", handler=self.get, access=Access.READ | Access.UPLOAD,
                tag="recipes", summary="Get a recipe",
                answer={JSON: NamedRecipe}, errors=(Code.NOT_FOUND, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="PUT", path="/recipes/{name}", handler=self.put, access=Access.OPERATE, tag="recipes",
                summary="Save a recipe under a name", body=body, answer={JSON: NamedRecipe},
                request_headers=_VERSIONS, examples={JSON: _EXAMPLE},
                errors=(*wrong, Code.NOT_FOUND, Code.CONFLICT, Code.PRECONDITION_FAILED, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="DELETE", path="/recipes/{name}", handler=self.delete, access=Access.OPERATE, tag="recipes",
                summary="Delete a saved recipe", status=204, request_headers=_VERSION,
                errors=(Code.NOT_FOUND, Code.CONFLICT, Code.PRECONDITION_FAILED, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip


def _answer(found: NamedRecipe) -> web.Response:
    # Built-in recipes cannot be changed, so they have no version.
    headers = {"ETag": f'"{tag_of(found.changed)}"'} if found.changed else None
    return http.json_response(found, headers=headers)
