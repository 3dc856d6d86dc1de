"""Commands that change tasks: the named ones, or all that match a filter, after a preview and a confirmation."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from cyclopts import Parameter
from rich.text import Text

from safelight.cli.connection import HERE, Where, master
from safelight.cli.printing import complain, counted, err, out, print_json, state_text
from safelight.cli.prompt import confirm
from safelight.cli.recipe_files import recipe_argument
from safelight.cli.tasks.which import ANY, OPEN, PARTLY_COUNTED, Which, check, find, find_all
from safelight.client.availability.retrying import retrying
from safelight.client.master import Client
from safelight.errors import Error, status_of
from safelight.wire import State, Task, TaskChanges, TaskFilter

_Action = Literal["cancel", "retry", "release", "delete", "rerun"]

_ELIGIBLE: dict[_Action, tuple[State, ...]] = {
    "cancel": OPEN,
    "retry": (State.FAILED, State.QUARANTINED, State.CANCELLED),
    "release": (State.QUARANTINED,),
    "delete": tuple(State),
    "rerun": tuple(state for state in State if state is not State.UPLOADING),
}
_DONE: dict[_Action, str] = {
    "cancel": "cancelled",
    "retry": "sent back to the queue",
    "release": "released",
    "delete": "deleted",
    "rerun": "queued again",
}

_AT_ONCE = 200
_EXAMPLES = 5
_RETRY_FOR = 30.0
"""Seconds for which a long action waits for a server that is away."""

Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do it without asking for confirmation.")]
DryRun = Annotated[bool, Parameter(negative="", help="Only show which tasks would be changed.")]


async def cancel_command(
    *id: str, which: Which = ANY, yes: Yes = False, dry_run: DryRun = False, where: Where = HERE
) -> int:
    """Cancel tasks that have not ended: the named ones, or all that match.

    Parameters
    ----------
    id:
        The ids of the tasks, or the numbers that they begin with.
    """
    return await _act("cancel", id, which, where, yes=yes, dry_run=dry_run)


async def retry_command(
    *id: str, which: Which = ANY, yes: Yes = False, dry_run: DryRun = False, where: Where = HERE
) -> int:
    """Process failed, cancelled or quarantined tasks again: the named ones, or all that match.

    Parameters
    ----------
    id:
        The ids of the tasks, or the numbers that they begin with.
    """
    return await _act("retry", id, which, where, yes=yes, dry_run=dry_run)


async def release_command(
    *id: str, which: Which = ANY, yes: Yes = False, dry_run: DryRun = False, where: Where = HERE
) -> int:
    """Process quarantined tasks again: the named ones, or all that match.

    Parameters
    ----------
    id:
        The ids of the tasks, or the numbers that they begin with.
    """
    return await _act("release", id, which, where, yes=yes, dry_run=dry_run)


async def delete_command(
    *id: str, which: Which = ANY, yes: Yes = False, dry_run: DryRun = False, where: Where = HERE
) -> int:
    """Delete tasks with their photos and results: the named ones, or all that match.

    Parameters
    ----------
    id:
        The ids of the tasks, or the numbers that they begin with.
    """
    return await _act("delete", id, which, where, yes=yes, dry_run=dry_run)


async def rerun_command(
    *id: str,
    with_recipe: Annotated[str, Parameter(name=["--with", "-w"])],
    which: Which = ANY,
    yes: Yes = False,
    dry_run: DryRun = False,
    where: Where = HERE,
) -> int:
    """Process the photos of the named tasks, or of all that match, with another recipe, as new tasks.

    Parameters
    ----------
    id:
        The ids of the tasks, or the numbers that they begin with.
    with_recipe:
        The recipe to process the photos with: its name, or a file: FILE.toml, FILE.toml:NAME or FILE.json.
    """
    return await _all("rerun", id, which, where, recipe=with_recipe, yes=yes, dry_run=dry_run)


_ONE: dict[_Action, Callable[[Client, str], Awaitable[Task | None]]] = {
    "cancel": Client.cancel,
    "retry": Client.retry,
    "release": Client.release,
    "delete": Client.delete,
}
"""Changes one task, named by its id."""


async def _act(action: _Action, ids: tuple[str, ...], which: Which, where: Where, *, yes: bool, dry_run: bool) -> int:
    """Apply an action to the named tasks at once, or to all that match, after a preview and a confirmation."""
    if ids and not which.is_given and not dry_run:
        return await _each(ids, where, _ONE[action])
    return await _all(action, ids, which, where, yes=yes, dry_run=dry_run)


async def _each(ids: tuple[str, ...], where: Where, action: Callable[[Client, str], Awaitable[Task | None]]) -> int:
    done: list[Task] = []
    status = 0
    async with master(where) as client:
        for each in dict.fromkeys(ids):
            try:
                task = await find(client, each)
                now = await action(client, task.id)
            except Error as error:
                complain(f"{each}: {error.detail}")
                status = status_of(error)
                continue
            done.append(now or task)
            if not where.json:
                out.print(Text(f"{task.id} is ") + (state_text(now.state) if now else Text("gone")))
    if where.json:
        print_json(done)
    return status


class _Plan(NamedTuple):
    """The tasks that an action will change: their number by state, for every state that is asked for.

    Unless it is complete, only the newest tasks were counted.
    """

    action: _Action
    states: dict[State, int]
    examples: list[str]
    complete: bool

    @property
    def touched(self) -> int:
        return sum(held for state, held in self.states.items() if state in _ELIGIBLE[self.action])

    @property
    def total(self) -> int:
        return sum(self.states.values())

    @property
    def is_empty(self) -> bool:
        """Whether it is certain that no task will be changed."""
        possible = not self.complete and any(state in _ELIGIBLE[self.action] for state in self.states)
        return self.touched == 0 and not possible

    @property
    def what(self) -> str:
        """The tasks that will be changed, for people."""
        if self.complete:
            return counted(self.touched, "task")
        return f"at least {counted(self.touched, 'task')}" if self.touched else "every task that matches"


async def _all(
    action: _Action,
    ids: tuple[str, ...],
    which: Which,
    where: Where,
    *,
    recipe: str | None = None,
    yes: bool,
    dry_run: bool,
) -> int:
    """Show which tasks an action will change, ask for confirmation, and do it page by page."""
    if wrong := check(ids, which):
        complain(wrong)
        return 2
    wanted = which.states() or list(State)
    eligible = ",".join(state.name.lower() for state in wanted if state in _ELIGIBLE[action])
    async with master(where) as client:
        wanted_recipe = None if recipe is None else await _checked(client, recipe)
        tasks, asked = await find_all(client, ids), await which.filter(client)
        plan = _chosen(action, tasks) if ids else await _planned(action, client, asked, wanted)
        if dry_run or not where.json:
            _show(plan, where, recipe)
        if dry_run:
            return 0
        if plan.is_empty:
            if where.json:
                print_json(TaskChanges(skipped=plan.total))
            return 0
        chosen = msgspec.structs.replace(asked, state=eligible)
        if not ids:  # a photo that arrives while a person decides was not among those that were shown
            chosen = await _so_far(client, chosen)
        if not yes and not await _confirmed(action, plan):
            return 2 if not sys.stdin.isatty() else 0
        steps = _steps(client, action, [task.id for task in tasks], chosen, wanted_recipe)
        return await _run(steps, action, plan, where)


async def _checked(client: Client, given: str) -> str | Mapping[str, Any]:
    """Return a recipe, unless it is refused: before what would be done with it is shown."""
    recipe = recipe_argument(given)
    await (client.recipe(recipe) if isinstance(recipe, str) else client.check_recipe(recipe))
    return recipe


async def _planned(action: _Action, client: Client, filter: TaskFilter, wanted: list[State]) -> _Plan:
    counts = await client.count(filter)
    states = {state: counts.states.get(state.name.lower(), 0) for state in wanted}
    touched = [state.name.lower() for state, held in states.items() if held and state in _ELIGIBLE[action]]
    examples: list[str] = []
    if touched:
        page = await client.find(filter.page(limit=_EXAMPLES, state=",".join(touched)))
        examples = [task.filename or task.id for task in page.tasks]
    return _Plan(action, states, examples, counts.complete)


async def _so_far(client: Client, filter: TaskFilter) -> TaskFilter:
    """Return a filter that leaves out the tasks that are created from now on."""
    newest = (await client.find(filter.page(limit=_AT_ONCE))).tasks
    if not newest:
        return filter
    end = max(task.created for task in newest) + 0.001  # db counts milliseconds, and leaves out those from `until` on
    return msgspec.structs.replace(filter, until=end if filter.until is None else min(end, filter.until))


def _chosen(action: _Action, tasks: list[Task]) -> _Plan:
    states: dict[State, int] = {}
    for task in tasks:
        states[task.state] = states.get(task.state, 0) + 1
    names = [task.filename or task.id for task in tasks if task.state in _ELIGIBLE[action]]
    return _Plan(action, states, names[:_EXAMPLES], complete=True)


def _show(plan: _Plan, where: Where, recipe: str | None) -> None:
    """Print which tasks will be changed and which will be left alone."""
    touched = {state: held for state, held in plan.states.items() if state in _ELIGIBLE[plan.action] and held}
    others = {state: held for state, held in plan.states.items() if state not in touched and held}
    if where.json:
        named = {state.name.lower(): held for state, held in touched.items()}
        print_json({"action": plan.action, "would_change": plan.touched, "would_skip": sum(others.values()),
                    "states": named, "complete": plan.complete})  # fmt: skip
        return
    if plan.is_empty:
        err.print("No task matches." if not others else f"Nothing to {plan.action}: {_listed(others)} left alone.")
        return
    with_ = f" with {recipe}" if recipe else ""
    err.print(Text(f"{plan.action} {plan.what}{with_}" + (f": {_listed(touched)}" if touched else "")))
    if touched:
        more = plan.touched - len(plan.examples)
        err.print(Text("  " + ", ".join(plan.examples) + (f" and {more:,} more" if more > 0 else "")), style="dim")
    if others:
        err.print(Text(f"Left alone: {_listed(others)}"))
    if not plan.complete:
        err.print(PARTLY_COUNTED)


def _listed(states: dict[State, int]) -> str:
    return ", ".join(f"{held:,} {state.name.lower()}" for state, held in states.items())


async def _confirmed(action: _Action, plan: _Plan) -> bool:
    if not sys.stdin.isatty():
        complain(f"Nothing was changed. There is no terminal to ask on; give --yes to {action} them.")
        return False
    if await confirm(f"{action.capitalize()} {plan.what}?"):
        return True
    err.print("Nothing was changed.")
    return False


async def _steps(
    client: Client, action: _Action, ids: list[str], filter: TaskFilter, recipe: str | Mapping[str, Any] | None
) -> AsyncIterator[TaskChanges]:
    """Apply an action page by page; repeat a page if the server goes away."""
    if not ids and action != "rerun":
        before: str | None = None
        while True:
            act = partial(client.act, action, filter=filter, before=before)
            changes = await retrying(act, retry_for=_RETRY_FOR)
            yield changes
            before = changes.next
            if before is None:
                return
    key = secrets.token_hex(16) if action == "rerun" else None  # a repeated page creates no task twice
    async for page in _pages(client, ids, filter):
        act = partial(client.act, action, tasks=page, recipe=recipe, idempotency_key=key)
        yield await retrying(act, retry_for=_RETRY_FOR)


async def _pages(client: Client, ids: list[str], filter: TaskFilter) -> AsyncIterator[list[str]]:
    """Yield the named ids, or those of the tasks that match, newest first: later tasks are not among them."""
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]
    before: str | None = None
    while not ids:
        query = filter.page(before=before, limit=_AT_ONCE)
        found = await retrying(partial(client.find, query), retry_for=_RETRY_FOR)
        yield [task.id for task in found.tasks]
        before = found.next
        if before is None:
            return


async def _run(steps: AsyncIterator[TaskChanges], action: _Action, plan: _Plan, where: Where) -> int:
    changed = skipped = 0
    whole = False
    of = f" of {plan.total:,}" if plan.complete else ""
    try:
        with err.status("") as status:
            async for step in steps:
                changed, skipped = changed + step.changed, skipped + step.skipped
                status.update(f"{changed + skipped:,}{of}")
        whole = True
    finally:  # also after Ctrl-C and errors, because some tasks may have been changed
        if where.json:
            print_json(TaskChanges(changed=changed, skipped=skipped))
        else:
            left = f"; {skipped:,} left alone" if skipped else ""
            stopped = "" if whole else ". It ended before all were reached"
            out.print(Text(f"{counted(changed, 'task')} {_DONE[action]}{left}{stopped}."))
    return 0
