"""Pause and resume the queue of a tenant, or one recipe; drain workers."""

from __future__ import annotations

from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.master.recipes.recipe_book import RecipeBook
from safelight.wire import DEFAULT_TENANT, Summary, WorkerSeen


class Queue:
    """The handlers."""

    def __init__(self, db: DbClient, accounts: AccountClient, recipes: RecipeBook) -> None:
        self._db = db
        self._accounts = accounts
        self._recipes = recipes

    async def summary(self, request: web.Request) -> web.Response:
        """`GET /summary`: workers and due webhooks, which concern all tenants, are shown only to operators."""
        tenant = tenant_of(request)
        summary = await self._db.summary(tenant=tenant)
        hidden = {} if tenant == DEFAULT_TENANT else {"workers": [], "workers_hidden": True, "webhooks_due": 0}
        return http.json_response(summary.evolve(**hidden))

    async def pause(self, request: web.Request) -> web.Response:
        """`POST /queue/pause`."""
        await self._accounts.pause(tenant_of(request), paused=True)
        return await self.summary(request)

    async def resume(self, request: web.Request) -> web.Response:
        """`POST /queue/resume`."""
        await self._accounts.pause(tenant_of(request), paused=False)
        return await self.summary(request)

    async def pause_recipe(self, request: web.Request) -> web.Response:
        """`POST /recipes/{name}/pause`."""
        tenant, name = tenant_of(request), request.match_info["name"]
        await self._recipes.of(tenant).find(name)
        await self._accounts.pause_recipe(tenant, name, paused=True)
        return await self.summary(request)

    async def resume_recipe(self, request: web.Request) -> web.Response:
        """`POST /recipes/{name}/resume`: the recipe may have been deleted meanwhile, but not if it was not paused."""
        tenant, name = tenant_of(request), request.match_info["name"]
        if name not in (await self._db.summary(tenant=tenant)).paused_recipes:
            await self._recipes.of(tenant).find(name)
        await self._accounts.pause_recipe(tenant, name, paused=False)
        return await self.summary(request)

    async def drain(self, request: web.Request) -> web.Response:
        """`POST /workers/{id}/drain`."""
        return await self._let(request, draining=True)

    async def resume_worker(self, request: web.Request) -> web.Response:
        """`POST /workers/{id}/resume`."""
        return await self._let(request, draining=False)

    async def _let(self, request: web.Request, *, draining: bool) -> web.Response:
        if tenant_of(request) != DEFAULT_TENANT:
            raise Error(
                Code.FORBIDDEN, f"Workers work for every tenant; only people of {DEFAULT_TENANT} may drain them."
            )
        return http.json_response(await self._db.drain(request.match_info["id"], draining=draining))

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        errors = (Code.NOT_FOUND, Code.UNAVAILABLE)
        return [
            Endpoint(
                method="GET", path="/summary", handler=self.summary, access=Access.READ, tag="tasks",
                summary="Get the state of the queue", answer={JSON: Summary}, errors=(Code.UNAVAILABLE,),
            ),
            Endpoint(
                method="POST", path="/queue/pause", handler=self.pause, access=Access.OPERATE, tag="tasks",
                summary="Pause the queue",
                description=(
                    "Workers begin no more tasks of the tenant, including previews, until the queue is resumed. "
                    "Tasks in progress continue, and photos are still accepted."
                ),
                answer={JSON: Summary}, errors=errors,
            ),
            Endpoint(
                method="POST", path="/queue/resume", handler=self.resume, access=Access.OPERATE, tag="tasks",
                summary="Resume the queue", answer={JSON: Summary}, errors=errors,
            ),
            Endpoint(
                method="POST", path="/recipes/{name}/pause", handler=self.pause_recipe, access=Access.OPERATE,
                tag="recipes", summary="Pause a recipe",
                description=(
                    "Workers begin no more tasks of this recipe until it is resumed; other recipes continue. Tasks "
                    "in progress continue, and photos are still accepted."
                ),
                answer={JSON: Summary}, errors=(*errors, Code.TOO_MANY_REQUESTS),
            ),
            Endpoint(
                method="POST", path="/recipes/{name}/resume", handler=self.resume_recipe, access=Access.OPERATE,
                tag="recipes", summary="Resume a recipe", answer={JSON: Summary}, errors=errors,
            ),
            *self._worker_endpoints(),
        ]  # fmt: skip

    def _worker_endpoints(self) -> list[Endpoint]:
        errors = (Code.NOT_FOUND, Code.UNAVAILABLE, Code.FORBIDDEN)
        return [
            Endpoint(
                method="POST", path="/workers/{id}/drain", handler=self.drain, access=Access.OPERATE, tag="tasks",
                summary="Drain a worker",
                description=(
                    "The worker finishes the tasks that it holds and takes no more. Once it holds none it is "
                    "drained, and can be stopped without delaying a photo. Only for users of the tenant `default`."
                ),
                answer={JSON: WorkerSeen}, errors=errors,
            ),
            Endpoint(
                method="POST", path="/workers/{id}/resume", handler=self.resume_worker, access=Access.OPERATE,
                tag="tasks", summary="Let a drained worker take tasks again", answer={JSON: WorkerSeen},
                errors=errors,
            ),
        ]  # fmt: skip
