"""Create tasks."""

from __future__ import annotations

from collections.abc import Sequence

from safelight.db import ids
from safelight.db.commit.transaction import TenantKey, Transaction
from safelight.db.lifecycle import Change
from safelight.db.rows import TaskRow
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.wire import NewTask, State, Task


def create(transaction: Transaction, tasks: Sequence[NewTask], policy: Policy) -> list[Task]:
    """Create tasks, all or none; return existing tasks for idempotency keys that were used before."""
    keys = [None if task.idempotency_key is None else _key(task) for task in tasks]
    known = _known(transaction, keys)
    first: dict[TenantKey, int] = {}
    """The index in `tasks` at which each new key appears first."""
    new = []
    for place, (task, key) in enumerate(zip(tasks, keys, strict=True)):
        _check(transaction, task, place)
        if key is None or (key not in known and first.setdefault(key, place) == place):
            new.append(task)
        else:
            _check_same(transaction, task, place, known.get(key), tasks[first.get(key, place)])
    _check_room(transaction, new, policy)
    made = iter(_insert(transaction, new))
    answer: list[TaskRow] = []
    for key in keys:
        row = None if key is None else known.get(key)
        if row is None:
            row = next(made)
            if key is not None:
                known[key] = row
        answer.append(row)
    return [transaction.record(row) for row in answer]


def _key(task: NewTask | TaskRow) -> TenantKey:
    """Return the tenant and key, since idempotency keys are unique only within a tenant."""
    return task.tenant, task.idempotency_key or ""


def _check(transaction: Transaction, task: NewTask, place: int) -> None:
    if task.tenant not in transaction.memory.tenants:
        position = f"$[{place}].tenant"
        raise Error(Code.FORBIDDEN, f"The tenant {task.tenant} does not exist.", position=position)
    if task.state not in {State.UPLOADING, State.WAITING}:
        position = f"$[{place}].state"
        raise Error(Code.INVALID_REQUEST, "A new task is uploading (-1) or waiting (0).", position=position)


def _check_same(transaction: Transaction, task: NewTask, place: int, row: TaskRow | None, first: NewTask) -> None:
    """Refuse the key of an earlier, different task: `row`, or else `first` among the new ones."""
    if row is None:
        before = _compared(first, first.input.digest if first.input else None, first.recipe_digest)
    else:
        before = _compared(row, row.input, transaction.spec_digest(row))
    now = _compared(task, task.input.digest if task.input else None, task.recipe_digest)
    different = [field for field in now if now[field] != before[field]]
    if different:
        raise Error(
            Code.CONFLICT,
            f"This idempotency key was used for another {different[0]}. Use a new key for a new task.",
            position=f"$[{place}].idempotency_key",
        )


def _compared(task: NewTask | TaskRow, photo: str | None, recipe: str) -> dict[str, object]:
    """Return what makes two tasks with one idempotency key the same one."""
    return {
        "input": photo, "recipe": recipe, "priority": task.priority, "batch": task.batch, "webhook": task.webhook
    }  # fmt: skip


def _check_room(transaction: Transaction, new: Sequence[NewTask], policy: Policy) -> None:
    waiting = transaction.memory.counts[State.WAITING]
    if new and waiting + len(new) > policy.max_waiting:
        detail = f"{waiting} tasks are waiting, and the limit is {policy.max_waiting}. Try again later."
        raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=5, limit=policy.max_waiting)
    for tenant in {task.tenant for task in new}:
        _check_limits(transaction, tenant, [task for task in new if task.tenant == tenant])


def _check_limits(transaction: Transaction, tenant: str, new: Sequence[NewTask]) -> None:
    """Refuse tasks beyond the tenant's own limits. Internal tasks do not count."""
    limits, held = transaction.memory.tenants[tenant].limits, transaction.memory.of(tenant)
    counted = [task for task in new if not task.internal]
    waiting = held.counts[State.WAITING]
    if limits.waiting is not None and counted and waiting + len(counted) > limits.waiting:
        detail = f"{waiting} of your tasks wait, and no more than {limits.waiting} may; try again later."
        raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=5, limit=limits.waiting)
    size = sum(task.input.size for task in counted if task.input is not None)
    if limits.bytes is not None and size and held.bytes + size > limits.bytes:
        detail = (
            f"Your photos and results take up {held.bytes} bytes, and no more than {limits.bytes} may be kept. "
            "Delete tasks that you do not need any more."
        )
        raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=60, limit=limits.bytes)


def _known(transaction: Transaction, keys: Sequence[TenantKey | None]) -> dict[TenantKey, TaskRow]:
    wanted = [key for key in keys if key is not None]
    rows = transaction.tasks_by_key(wanted) if wanted else []
    return {_key(row): row for row in rows}


def _insert(transaction: Transaction, tasks: Sequence[NewTask]) -> list[TaskRow]:
    memory = transaction.memory
    last = memory.last_task + len(tasks)
    specs = [transaction.spec_id(task.recipe_digest, task.spec, last) for task in tasks]
    finished = _finished_alike(transaction, tasks, specs)
    changes = []
    for task, spec, key in zip(tasks, specs, ids.randoms(len(tasks)), strict=True):
        memory.last_task += 1
        row = TaskRow(
            n=memory.last_task,
            key=key,
            state=task.state,
            created=transaction.now,
            changed=transaction.now,
            priority=task.priority,
            classic=int(task.classic),
            internal=int(task.internal),
            interactive=int(task.interactive),
            tenant=task.tenant,
            spec=spec,
            recipe=task.recipe,
            input=task.input.digest if task.input else None,
            input_size=task.input.size if task.input else None,
            filename=task.filename,
            media_type=task.media_type,
            batch=task.batch,
            idempotency_key=task.idempotency_key,
            webhook=task.webhook,
            traceparent=task.traceparent,
        )
        found = finished.get((row.tenant, row.input, spec)) if task.state is State.WAITING and task.reuse else None
        if found is not None:
            row = row.evolve(
                state=State.FINISHED, outputs=found.outputs, engine=found.engine, seconds=found.seconds, reused=1
            )
        changes.append(Change(kind="created", new=row))
    return transaction.apply(changes)


def alike(transaction: Transaction, task: NewTask) -> Task | None:
    """Return the finished task whose outputs a new one would reuse."""
    spec: int | None = transaction.connection.value("spec_by_digest", task.recipe_digest)
    if spec is None:
        return None
    found = next(iter(_finished_alike(transaction, [task], [spec]).values()), None)
    return None if found is None else found.task(task.recipe_digest)


def keyed(transaction: Transaction, keys: Sequence[str], tenant: str) -> list[Task]:
    """Return the tenant's tasks that have one of these idempotency keys."""
    return [transaction.record(row) for row in transaction.tasks_by_key([(tenant, key) for key in keys])]


def _finished_alike(
    transaction: Transaction, tasks: Sequence[NewTask], specs: Sequence[int]
) -> dict[tuple[str, str | None, int], TaskRow]:
    """Return a finished task of the current engine for each tenant, input and spec that has one."""
    engine = transaction.memory.engine
    wanted = {
        (task.tenant, task.input.digest, spec)
        for task, spec in zip(tasks, specs, strict=True)
        if task.input is not None and task.reuse
    }
    if not engine or not wanted:
        return {}
    rows = transaction.finished_alike(list(wanted), engine)
    return {(row.tenant, row.input, row.spec): row for row in rows}
