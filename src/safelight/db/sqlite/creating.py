"""Create tasks."""

from __future__ import annotations

from collections.abc import Sequence

from safelight.db import ids
from safelight.db.lifecycle import Change
from safelight.db.rows import TaskRow
from safelight.db.sqlite.transaction import Transaction, encoded
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.wire import NewTask, State, Task


def create(transaction: Transaction, tasks: Sequence[NewTask], policy: Policy) -> list[Task]:
    """Create tasks, all or none; return existing tasks for idempotency keys that were used before."""
    known = _known(transaction, tasks)
    first: dict[str, int] = {}
    """The index in `tasks` at which each new key appears first."""
    for place, task in enumerate(tasks):
        _check(task, place)
        if task.idempotency_key is not None and task.idempotency_key not in known:
            first.setdefault(task.idempotency_key, place)
    new = [
        task
        for place, task in enumerate(tasks)
        if task.idempotency_key is None or first.get(task.idempotency_key) == place
    ]
    for place, task in enumerate(tasks):
        _check_same(transaction, task, place, known, tasks[first.get(task.idempotency_key or "", place)])
    _check_room(transaction, new, policy)
    made = iter(_insert(transaction, new))
    answer: list[TaskRow] = []
    for task in tasks:
        row = known.get(task.idempotency_key or "")
        if row is None:
            row = next(made)
            if task.idempotency_key is not None:
                known[task.idempotency_key] = row
        answer.append(row)
    return [row.task(transaction.spec(row).digest) for row in answer]


def _check(task: NewTask, place: int) -> None:
    if task.state not in {State.UPLOADING, State.WAITING}:
        position = f"$[{place}].state"
        raise Error(Code.INVALID_REQUEST, "A new task is uploading (-1) or waiting (0).", position=position)


def _check_same(transaction: Transaction, task: NewTask, place: int, known: dict[str, TaskRow], first: NewTask) -> None:
    row = known.get(task.idempotency_key or "")
    if row is not None:
        digest = transaction.spec(row).digest
        same = row.input == (task.input.digest if task.input else None) and digest == task.recipe_digest
    else:
        same = task is first or (task.input == first.input and task.recipe_digest == first.recipe_digest)
    if not same:
        raise Error(
            Code.CONFLICT,
            "This idempotency key was used for another input or recipe. Use a new key for a new task.",
            position=f"$[{place}].idempotency_key",
        )


def _check_room(transaction: Transaction, new: Sequence[NewTask], policy: Policy) -> None:
    waiting = transaction.memory.counts[State.WAITING]
    if new and waiting + len(new) > policy.max_waiting:
        detail = f"{waiting} tasks are waiting, and the limit is {policy.max_waiting}. Try again later."
        raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=5, limit=policy.max_waiting)


def _known(transaction: Transaction, tasks: Sequence[NewTask]) -> dict[str, TaskRow]:
    keys = [task.idempotency_key for task in tasks if task.idempotency_key is not None]
    rows = transaction.tasks("tasks_by_idempotency_key", encoded(keys)) if keys else []
    return {row.idempotency_key: row for row in rows if row.idempotency_key is not None}


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
            spec=spec,
            recipe=task.recipe,
            input=task.input.digest if task.input else None,
            input_size=task.input.size if task.input else None,
            filename=task.filename,
            media_type=task.media_type,
            batch=task.batch,
            idempotency_key=task.idempotency_key,
            webhook=task.webhook,
        )
        alike = finished.get((row.input, spec)) if task.state is State.WAITING else None
        if alike is not None:
            row = row.evolve(
                state=State.FINISHED, outputs=alike.outputs, engine=alike.engine, seconds=alike.seconds, reused=1
            )
        changes.append(Change(kind="created", new=row))
    return transaction.apply(changes)


def _finished_alike(
    transaction: Transaction, tasks: Sequence[NewTask], specs: Sequence[int]
) -> dict[tuple[str | None, int], TaskRow]:
    """Return a finished task of the current engine for each pair of input and spec that has one."""
    engine = transaction.memory.engine
    wanted = {(task.input.digest, spec) for task, spec in zip(tasks, specs, strict=True) if task.input is not None}
    if not engine or not wanted:
        return {}
    rows = transaction.tasks("finished_alike", encoded(list(wanted)), engine)
    return {(row.input, row.spec): row for row in rows}
