"""Pause the tasks of one recipe.

A claim reads waiting tasks in order, so paused tasks must not be in its way. They are therefore postponed like delayed
ones, until a time that never comes (`rows.HOLD`). Each pause has its own such time, so that its end finds exactly its
tasks. New tasks are postponed at once, tasks that already wait when a claim first meets them. So each task is moved
once for a pause, whatever the length of the queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from safelight.db.commit.transaction import Transaction, encoded
from safelight.db.rows import HOLD, TaskRow
from safelight.errors import Code, Error
from safelight.wire.accounts import RecipePause, Tenant

MOST_PAUSES = 1000
_READ = 200
"""Tasks that a claim reads at a time while a recipe is paused."""
_PUT_OFF = 1000
"""The most tasks that one claim postpones; the next claim continues."""


def pause(transaction: Transaction, tenant: Tenant, recipe: str) -> Tenant:
    """Return the tenant with a recipe paused. Raises TOO_MANY_REQUESTS."""
    if recipe in tenant.paused_recipes:
        return tenant
    if len(tenant.pauses) >= MOST_PAUSES:
        raise Error(Code.TOO_MANY_REQUESTS, f"{MOST_PAUSES} recipes are paused; resume one of them first.")
    used = [pause.number for other in transaction.memory.tenants.values() for pause in other.pauses]
    made = RecipePause(recipe=recipe, number=max(used, default=0) + 1, since=transaction.now / 1000)
    return msgspec.structs.replace(tenant, pauses=[*tenant.pauses, made])


def resume(tenant: Tenant, recipe: str) -> Tenant:
    """Return the tenant with a recipe no longer paused; `release` then lets its tasks wait again."""
    pauses = [pause.evolve(ended=True) if pause.recipe == recipe else pause for pause in tenant.pauses]
    return msgspec.structs.replace(tenant, pauses=pauses)


def free(transaction: Transaction, tenant: str, n: int, read: Callable[[str, int], list[TaskRow]]) -> list[TaskRow]:
    """Return the first `n` tasks of `read` whose recipe is not paused, and postpone the paused ones before them."""
    if not transaction.memory.holds:
        return read(tenant, n)
    moved = 0
    while True:
        rows = read(tenant, max(n, _READ))
        held = [row for row in rows if transaction.memory.hold(row) is not None]
        others = [row for row in rows if transaction.memory.hold(row) is None]
        put_off(transaction, held)
        moved += len(held)
        if not held or len(others) >= n or moved >= _PUT_OFF:
            transaction.leave(others[n:])
            return others[:n]
        transaction.leave(others)


def put_off(transaction: Transaction, rows: Sequence[TaskRow]) -> None:
    """Postpone the waiting tasks of paused recipes. This is not an event, since they keep waiting."""
    memory = transaction.memory
    by_time: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows:
        at = memory.hold(row)
        assert at is not None
        by_time[at].append(row.n)
        if row.due is None:
            memory.count_delayed(row.tenant, 1)
        if row.due is None or row.due < HOLD:
            memory.count_held(row.tenant, 1)
    for at, numbers in by_time.items():
        transaction.connection.run("put_off", encoded(numbers), at)


def fall_due(transaction: Transaction, rows: Sequence[TaskRow]) -> None:
    """Make delayed tasks available when they are due, except those whose recipe was paused meanwhile."""
    memory = transaction.memory
    put_off(transaction, [row for row in rows if memory.hold(row) is not None])
    ready = [row for row in rows if memory.hold(row) is None]
    if not ready:
        return
    transaction.connection.run("fall_due", encoded([row.n for row in ready]))
    for row in ready:
        memory.count_delayed(row.tenant, -1)
        if row.due is not None and row.due >= HOLD:
            memory.count_held(row.tenant, -1)
    transaction.come_back(ready)


def release(transaction: Transaction, n: int) -> bool:
    """Make up to `n` tasks of resumed recipes available again; return whether more may be left."""
    memory = transaction.memory
    for tenant in list(memory.tenants.values()):
        for ended in [pause for pause in tenant.pauses if pause.ended]:
            rows = transaction.tasks("due_at", HOLD + ended.number, n)
            fall_due(transaction, rows)
            if len(rows) == n:
                return True
            n -= len(rows)
            left = [pause for pause in memory.tenants[tenant.id].pauses if pause.number != ended.number]
            transaction.keep_tenant(memory.tenants[tenant.id].evolve(pauses=left))
            if n <= 0:
                return True
    return False
