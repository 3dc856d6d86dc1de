"""Tasks, events and the queue are read."""

from __future__ import annotations

from heapq import merge
from itertools import islice

from safelight.db import ids
from safelight.db.rows import EventRow, TaskRow
from safelight.db.sqlite import leasing
from safelight.db.sqlite.transaction import Transaction, encoded
from safelight.errors import Code, Error
from safelight.wire import EventPage, Reference, State, Summary, Task, TaskPage, TaskQuery

_ALL = 2**62


def get(transaction: Transaction, id: str) -> Task:
    """Return one task."""
    row = transaction.task(id)
    return row.task(transaction.spec(row).digest)


def find(transaction: Transaction, query: TaskQuery) -> TaskPage:
    """Return one page of tasks, newest first."""
    reference = ids.parse(query.before) if query.before is not None else None
    if query.before is not None and reference is None:
        raise Error(Code.INVALID_REQUEST, "The parameter before: give the id of a task.", position="before")
    rows = _find(transaction, query, reference.n if reference else _ALL)
    tasks = [row.task(transaction.spec(row).digest) for row in rows[: query.limit]]
    return TaskPage(tasks=tasks, next=tasks[-1].id if len(rows) > query.limit else None)


def _find(transaction: Transaction, query: TaskQuery, below: int) -> list[TaskRow]:
    """Return one row more than the page has, where there is one."""
    states, recipe = sorted(set(query.states)), query.recipe
    page = below, query.limit + 1, int(query.internal)
    if query.batch:
        return transaction.tasks("find_by_batch", *page, query.batch, recipe, encoded(states) if states else None)
    if states:
        each = (transaction.tasks("find_by_state", *page, state, recipe) for state in states)
        return list(islice(merge(*each, key=lambda row: row.n, reverse=True), query.limit + 1))
    if recipe is not None:
        return transaction.tasks("find_by_recipe", *page, recipe)
    return transaction.tasks("find", *page)


def events(transaction: Transaction, after: int, limit: int, task: str | None) -> EventPage:
    """Return one page of changes."""
    transaction.write_events()
    memory = transaction.memory
    if task is None:
        rows = transaction.connection.read("events_after", list[EventRow], after, limit)
    else:
        reference = ids.parse(task)
        n = reference.n if reference else 0
        found = transaction.connection.read("task_events_after", list[EventRow], after, limit, n)
        rows = [row for row in found if reference and row.key == reference.key]
    last = rows[-1].seq if len(rows) == limit else max(after, memory.last_event)
    return EventPage(events=[row.event() for row in rows], last=last, oldest=memory.removed_event)


def summary(transaction: Transaction) -> Summary:
    """Return the queue now."""
    memory = transaction.memory
    oldest = transaction.connection.value("oldest_waiting")
    return Summary(
        tasks={state.name.lower(): memory.counts[state] for state in State},
        delayed=memory.delayed,
        oldest_waiting=max(0, transaction.now - oldest) / 1000 if oldest is not None else 0.0,
        seq=memory.last_event,
        workers=leasing.workers(transaction),
    )


def referenced(transaction: Transaction, after: int, limit: int) -> Reference:
    """Return what one page of tasks points at in storage.

    The classic protocol's pictures stand under names: an upload under its task's id, a result under its lease's, from
    before the lease ends.
    """
    rows = transaction.tasks("tasks_after", after, limit)
    digests: dict[str, None] = {}
    names: list[str] = []
    for row in rows:
        if row.input is None:
            names.append(row.id)
        else:
            digests[row.input] = None
        digests.update((output.digest, None) for output in row.outputs or ())
        if row.worker == "" or (row.state is State.FINISHED and not row.outputs):
            names.append(row.lease_id)
    return Reference(
        digests=list(digests), names=names, next=rows[-1].n if len(rows) == limit else None, db=transaction.memory.id
    )
