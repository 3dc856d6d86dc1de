"""Read single tasks, events and the state of the queue."""

from __future__ import annotations

import msgspec

from safelight.db import ids
from safelight.db.calls.tasks import leasing
from safelight.db.commit.transaction import Transaction
from safelight.db.rows import EventRow
from safelight.recipe import work_of
from safelight.wire import EventPage, NamedRecipe, Reference, State, Summary, Task

LOOKED_THROUGH = 10_000
"""The most changes that one call searches for those of one tenant, since these have no index."""


def get(transaction: Transaction, id: str, tenant: str | None) -> Task:
    """Return one task."""
    row = transaction.task(id, tenant)
    return transaction.record(row)


def spec(transaction: Transaction, id: str, tenant: str | None) -> NamedRecipe:
    """Return what the recipe of a task does, under the name that it had."""
    row = transaction.task(id, tenant)
    # Specs of earlier versions have the name and description of whichever tenant used the recipe first.
    body = msgspec.Raw(work_of(transaction.spec_body(row)))
    return NamedRecipe(tenant=row.tenant, name=row.recipe, spec=body, changed=row.created / 1000)


def events(
    transaction: Transaction, after: int, limit: int, task: str | None, tenant: str | None, known: str = ""
) -> EventPage:
    """Return one page of events; for a tenant, only those among the next `LOOKED_THROUGH`."""
    transaction.write_events()
    memory = transaction.memory
    until = memory.last_event
    if memory.restored(after, known):
        return EventPage(events=[], last=until, oldest=memory.removed_event, db=memory.history, restored=True)
    if tenant in memory.tenants:
        after = max(after, memory.tenants[tenant].after_event)
    if task is None and tenant is not None:
        until = min(until, after + LOOKED_THROUGH)
        rows = transaction.connection.read("tenant_events_after", list[EventRow], after, limit, until, tenant)
    elif task is None:
        rows = transaction.connection.read("events_after", list[EventRow], after, limit)
    else:
        reference = ids.parse(task)
        n = reference.n if reference else 0
        found = transaction.connection.read("task_events_after", list[EventRow], after, limit, n)
        rows = [row for row in found if reference and row.key == reference.key and tenant in (None, row.tenant)]
    last = rows[-1].seq if len(rows) == limit else max(after, until)
    return EventPage(events=[row.event() for row in rows], last=last, oldest=memory.removed_event, db=memory.history)


def summary(transaction: Transaction, tenant: str | None) -> Summary:
    """Return the state of the queue."""
    memory = transaction.memory
    held = memory if tenant is None else memory.of(tenant)
    available = {name: memory.available_of(name) for name in memory.held if tenant in (None, name)}
    since = (at for name, count in available.items() if count and (at := transaction.oldest_waiting(name)) is not None)
    oldest = min(since, default=None)
    paused = memory.tenants[tenant].paused if tenant in memory.tenants else 0.0
    return Summary(
        tasks={state.name.lower(): held.counts[state] for state in State},
        delayed=held.delayed - (memory.held_back if tenant is None else memory.of(tenant).held),
        available=sum(available.values()),
        oldest_waiting=max(0, transaction.now - oldest) / 1000 if oldest is not None else 0.0,
        seq=memory.last_event,
        workers=leasing.workers(transaction),
        webhooks_due=memory.deliveries,
        paused=paused,
        paused_recipes=memory.tenants[tenant].paused_recipes if tenant in memory.tenants else {},
        bytes=sum(has.bytes for name, has in memory.held.items() if tenant in (None, name)),
    )


def referenced(transaction: Transaction, after: int, limit: int) -> Reference:
    """Return the blobs and names that one page of tasks refers to in storage.

    The classic protocol stores photos under names: an upload under the id of its task, and a result under the id of its
    lease, even before the lease ends.
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
