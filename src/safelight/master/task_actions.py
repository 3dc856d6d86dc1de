"""Act on many tasks at once: cancel, retry, release, delete, or run their photos again with another recipe."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import MALFORMED, Code, Error
from safelight.master.access.audit import Audit
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.master.api.idempotency import HEADER, idempotency_key
from safelight.master.recipes.recipe_book import CUSTOM, RecipeBook
from safelight.master.recipes.recipe_cache import Chosen
from safelight.master.upload.task_batcher import TaskBatcher
from safelight.wire import NewTask, Task, TaskChange, TaskChanges, TaskCounts, TaskFilter

_AT_ONCE = 16
_Name = Annotated[str, Meta(min_length=1, max_length=64)]


class TaskAction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An action on the named tasks, or (page by page) on those that match a filter.

    `rerun` creates a new task for the photo of each, with `recipe` (a name, or a recipe), in the same batch.
    """

    action: Literal["cancel", "retry", "release", "delete", "rerun"]
    tasks: Annotated[list[str], Meta(max_length=1000)] | None = None
    filter: TaskFilter | None = None
    recipe: Annotated[msgspec.Raw, Meta(description="the name of a recipe, or a recipe")] = msgspec.field(
        default_factory=lambda: msgspec.Raw(b"null")
    )
    before: Annotated[str, Meta(max_length=128)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class TaskActionResult(TaskChanges, frozen=True, kw_only=True):
    """How many tasks were changed or skipped, and the ids of new ones.

    `next` goes into `before` for the next tasks of a filter, None at the end.
    """

    created: list[str] = msgspec.field(default_factory=list)


class TaskActions:
    """The handlers of counts and actions."""

    def __init__(self, db: DbClient, batcher: TaskBatcher, book: RecipeBook, audit: Audit) -> None:
        self._db = db
        self._batcher = batcher
        self._book = book
        self._audit = audit

    async def count(self, request: web.Request) -> web.Response:
        """`GET /tasks/counts`."""
        return http.json_response(await self._db.count(http.query(request, TaskFilter), tenant=tenant_of(request)))

    async def act(self, request: web.Request) -> web.Response:
        """`POST /tasks/actions`."""
        action = await http.read_json(request, TaskAction)
        if (action.tasks is None) == (action.filter is None):
            raise Error(Code.INVALID_REQUEST, "Name either tasks or a filter.", position="$.tasks")
        recipe = _wanted(action.recipe)
        if recipe is not None and action.action != "rerun":
            sentence = "Only a rerun takes a recipe; after other actions, tasks keep theirs."
            raise Error(Code.INVALID_REQUEST, sentence, position="$.recipe")
        named = ", ".join(action.tasks or [])
        detail = _detail(action, recipe)
        async with self._audit.record_on_others(request, f"tasks.{action.action}", named, **detail):
            if action.action == "rerun":
                done = await self._rerun(action, recipe, tenant_of(request), idempotency_key(request))
            else:
                done = await self._change(action, tenant_of(request))
        return http.json_response(done)

    async def _change(self, action: TaskAction, tenant: str) -> TaskActionResult:
        assert action.action != "rerun"
        changed = await self._db.change(
            TaskChange(
                action=action.action,
                tasks=action.tasks,
                filter=action.filter,
                before=action.before,
                limit=action.limit,
            ),
            tenant=tenant,
        )
        return TaskActionResult(changed=changed.changed, skipped=changed.skipped, next=changed.next)

    async def _rerun(self, action: TaskAction, wanted: str | None, tenant: str, key: str | None) -> TaskActionResult:
        if wanted is None:
            raise Error(Code.INVALID_REQUEST, "Name the recipe to run the photos with.", position="$.recipe")
        if key is not None and action.tasks is None:  # a filter would also match the tasks that the first request made
            raise Error(Code.INVALID_REQUEST, f"{HEADER} needs the ids of the tasks, not a filter.", position=HEADER)
        recipe = await self._book.of(tenant).choose(wanted)
        tasks, following, missing = await self._tasks(action, tenant)
        again = [task for task in tasks if task.input is not None]
        run = key or secrets.token_hex(16)
        outcomes = await asyncio.gather(*(self._created(_again(task, recipe, run)) for task in again))
        end = next((n for n, each in enumerate(outcomes) if isinstance(each, Error)), None)
        if end is not None:
            kept = end if action.filter is not None else 0
            if key is None:  # otherwise the client sends the same again, and no photo gets a second task
                await self._undo(outcomes[kept:], tenant)
            if not kept:
                raise outcomes[end]  # type: ignore[misc]
            # The rest of the page is left to the next request, which is refused until there is room.
            again, outcomes, following = again[:kept], outcomes[:kept], again[kept - 1].id
            tasks = tasks[: tasks.index(again[-1]) + 1]
        return TaskActionResult(
            changed=len(again),
            skipped=len(tasks) - len(again) + missing,
            next=following,
            created=[task.id for task in outcomes if isinstance(task, Task)],
        )

    async def _created(self, new: NewTask) -> Task | Error:
        """Return the new task, or the error for which it is refused."""
        try:
            return await self._batcher.create(new)
        except Error as error:
            if error.code is Code.CONFLICT:  # db names the place in the master's own request
                error.extra["position"] = HEADER
            return error

    async def _undo(self, outcomes: list[Task | Error], tenant: str) -> None:
        """Delete tasks that were just created, so that the client can ask for them again."""
        made = [each.id for each in outcomes if isinstance(each, Task)]
        if made:
            with suppress(Error):
                await self._db.change(TaskChange(action="delete", tasks=made), tenant=tenant)

    async def _tasks(self, action: TaskAction, tenant: str) -> tuple[list[Task], str | None, int]:
        """Return the tasks, where to continue, and how many of the named ones do not exist."""
        if action.filter is not None:
            page = await self._db.find(action.filter.page(before=action.before, limit=action.limit), tenant=tenant)
            return page.tasks, page.next, 0
        places = asyncio.Semaphore(_AT_ONCE)

        async def get(id: str) -> Task | None:
            async with places:
                try:
                    return await self._db.get(id, tenant=tenant)
                except Error as error:
                    if error.code is not Code.NOT_FOUND:
                        raise
                    return None

        found = await asyncio.gather(*(get(each) for each in dict.fromkeys(action.tasks or [])))
        tasks = [task for task in found if task is not None]
        return tasks, None, len(found) - len(tasks)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/tasks/counts", handler=self.count, access=Access.READ, tag="tasks",
                summary="Count the tasks that match a filter", query=TaskFilter, answer={JSON: TaskCounts},
                errors=(Code.INVALID_REQUEST, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="POST", path="/tasks/actions", handler=self.act, access=Access.OPERATE, tag="tasks",
                records=True,
                summary="Cancel, retry, release, delete or rerun many tasks",
                description=(
                    "For a filter, each request changes one page: repeat it with `next` as `before` until it is "
                    "null. Tasks in a state that does not allow the action are skipped. A rerun ends its page early "
                    "where it meets a limit of the tenant; 429 says that it created no task, unless it has a key."
                ),
                request_headers={HEADER: "for a rerun of named tasks: the same key again creates none of them twice"},
                body={JSON: TaskAction}, answer={JSON: TaskActionResult},
                errors=(
                    Code.INVALID_REQUEST, Code.INVALID_RECIPE, Code.NOT_FOUND, Code.CONFLICT, Code.TOO_MANY_REQUESTS,
                    Code.UNAVAILABLE,
                ),
            ),
        ]  # fmt: skip


def _wanted(given: msgspec.Raw) -> str | None:
    """Return the recipe's name, or the recipe as JSON, of which no objects are made before its size is checked."""
    text = bytes(given)
    try:
        return text.decode() if text.startswith(b"{") else msgspec.json.decode(text, type=_Name | None)
    except MALFORMED:
        sentence = "A recipe is the name of one (1 to 64 characters), or an object with outputs."
        raise Error(Code.INVALID_REQUEST, sentence, position="$.recipe") from None


def _detail(action: TaskAction, recipe: str | None) -> dict[str, Any]:
    """Return what the audit log says about an action besides the names of tasks, of which it shows the first."""
    named = CUSTOM if recipe is not None and recipe.startswith("{") else recipe
    detail: dict[str, Any] = {"recipe": named, "before": action.before}
    if action.filter is not None:
        detail["filter"] = action.filter.params()
    else:
        detail["tasks"] = len(action.tasks or [])
    return {name: value for name, value in detail.items() if value is not None}


def _again(task: Task, recipe: Chosen, key: str) -> NewTask:
    return NewTask(
        tenant=task.tenant,
        interactive=False,
        input=task.input,
        filename=task.filename,
        media_type=task.media_type,
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        spec=recipe.spec,
        classic=recipe.classic,
        batch=task.batch,
        idempotency_key=f"rerun.{hashlib.sha256(f'{key} {task.id}'.encode()).hexdigest()}",
    )
