"""Select the tasks of a command: the named ones, or all that match a filter."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Literal

from cyclopts import Parameter

from safelight.cli import durations, service_time
from safelight.cli.groups import WHICH
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import State, Task, TaskFilter

StateName = Literal["uploading", "waiting", "working", "finished", "failed", "quarantined", "cancelled"]

OPEN = (State.UPLOADING, State.WAITING, State.WORKING)
"""The states of tasks that have not ended."""

PARTLY_COUNTED = "There are very many tasks: only the newest were counted, and older ones may match too."

_PAGE = 500


def _moment(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return max(0.0, datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        pass
    try:
        return max(0.0, service_time.now() - durations.seconds(text))
    except Error:
        detail = f"Write a time such as 2026-11-26T08:30 or how long ago, such as 2h or 7d, not {text[:32]!r}."
        raise Error(Code.INVALID_REQUEST, detail) from None


@Parameter(name="*", group=WHICH)
@dataclass(frozen=True, kw_only=True)
class Which:
    """Which tasks. A task must match every filter that is given.

    Parameters
    ----------
    state:
        Only tasks in this state; repeatable.
    recipe:
        Only tasks of this recipe.
    batch:
        Only tasks of this batch; each `safelight upload` makes one.
    search:
        Only tasks whose photo's name contains this, or whose id begins with it.
    reason:
        Only tasks that failed for this reason: a code, such as damaged_image.
    since:
        Only tasks created since this time, such as 2026-11-26 or 2026-11-26T08:30, or since this long ago, such as 2h.
    until:
        Only tasks created before this time, written in the same way.
    """

    state: Annotated[list[StateName] | None, Parameter(negative="")] = None
    recipe: str | None = None
    batch: str | None = None
    search: str | None = None
    reason: str | None = None
    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        """Refuse an invalid time before anything is asked. Raises INVALID_REQUEST."""
        for text in (self.since, self.until):
            _moment(text)

    @property
    def is_given(self) -> bool:
        """Whether any filter was given."""
        return any(getattr(self, field.name) for field in fields(self))

    async def filter(self, client: Client) -> TaskFilter:
        """Return the filter as the master takes it. How long ago something was is counted by the service's clock."""
        if self.since or self.until:
            await client.health()  # any answer tells the time
        return TaskFilter(
            state=",".join(self.state or ()) or None,
            recipe=self.recipe or None,
            batch=self.batch or None,
            search=self.search or None,
            reason=self.reason or None,
            since=_moment(self.since),
            until=_moment(self.until),
        )

    def states(self) -> list[State]:
        """Return the states that are asked for; none means all."""
        return [State[name.upper()] for name in self.state or ()]


ANY = Which()


def check(ids: tuple[str, ...], which: Which) -> str:
    """Return what is wrong with this selection, or ""."""
    if ids and which.is_given:
        return "Name tasks, or say which with --batch, --state and so on, but not both."
    if not ids and not which.is_given:
        return "Name at least one task, or say which with --batch, --state, --recipe, --search, --reason or --since."
    return ""


async def matching(client: Client, filter: TaskFilter) -> AsyncIterator[Task]:
    """Go through all tasks that match, newest first."""
    before: str | None = None
    while True:
        page = await client.find(filter.page(before=before, limit=_PAGE))
        for task in page.tasks:
            yield task
        before = page.next
        if before is None:
            return


async def find_all(client: Client, ids: Sequence[str]) -> list[Task]:
    """Return the named tasks, each once. Raises NOT_FOUND."""
    found = [await find(client, each) for each in dict.fromkeys(ids)]
    return list({task.id: task for task in found}.values())


async def find(client: Client, id: str) -> Task:
    """Return a task by its id, or by the number that the id begins with. Raises NOT_FOUND."""
    if re.fullmatch(r"[1-9][0-9]*", id):
        # Lists from just below the next number, newest first: the first task found has this number, if any has.
        page = await client.tasks(before=f"{int(id) + 1}-{'a' * 10}", limit=1)
        if page.tasks and page.tasks[0].id.startswith(f"{id}-"):
            return page.tasks[0]
        raise Error(Code.NOT_FOUND, f"There is no task {id}.")
    return await client.task(id)
