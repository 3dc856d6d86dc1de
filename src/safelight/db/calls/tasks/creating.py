"""Create tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from safelight.db import ids
from safelight.db.commit.transaction import TenantKey, Transaction
from safelight.db.lifecycle import Change
from safelight.db.rows import TaskRow
from safelight.db.store import Policy
from safelight.errors import Code, Error, plural
from safelight.wire import Created, NewTask, State, Task


def create(transaction: Transaction, tasks: Sequence[NewTask], policy: Policy) -> list[Task]:
    """Create tasks, all or none; return existing tasks for idempotency keys that were used before."""
    known = _known(transaction, tasks)
    refused = [error for error in _refusals(transaction, tasks, known, policy) if error is not None]
    if refused:
        raise next((error for error in refused if not error.transient), refused[0])
    return [transaction.record(row) for row in _rows(transaction, tasks, known)]


def create_each(transaction: Transaction, tasks: Sequence[NewTask], policy: Policy) -> list[Created]:
    """Create tasks like `create`, but refuse each by itself."""
    known = _known(transaction, tasks)
    refusals = _refusals(transaction, tasks, known, policy)
    accepted = [task for task, error in zip(tasks, refusals, strict=True) if error is None]
    rows = iter(_rows(transaction, accepted, known))
    return [
        Created(task=transaction.record(next(rows))) if error is None else Created(problem=error.problem())
        for error in refusals
    ]


def _rows(transaction: Transaction, tasks: Sequence[NewTask], known: dict[TenantKey, TaskRow]) -> list[TaskRow]:
    """Return the rows of tasks: of those that are known, or of new ones, of which there is one for each key."""
    new: list[NewTask] = []
    places: list[int | TaskRow] = []
    """For each task its row, or the index of its new one."""
    first: dict[TenantKey, int] = {}
    for task in tasks:
        key = _key(task)
        row = known.get(key) if key else None
        place = first.setdefault(key, len(new)) if key else len(new)
        places.append(place if row is None else row)
        if row is None and place == len(new):
            new.append(task)
    made = _insert(transaction, new)
    return [made[place] if isinstance(place, int) else place for place in places]


def _key(task: NewTask | TaskRow) -> TenantKey | None:
    """Return the tenant and key, since idempotency keys are unique only within a tenant; None without a key."""
    return None if task.idempotency_key is None else (task.tenant, task.idempotency_key)


def _refusals(
    transaction: Transaction, tasks: Sequence[NewTask], known: dict[TenantKey, TaskRow], policy: Policy
) -> list[Error | None]:
    """Return for each task why it is refused, or None; those that are accepted first use up the room."""
    room = _Room(transaction, policy)
    first: dict[TenantKey, NewTask] = {}

    def refusal(place: int, task: NewTask) -> Error | None:
        try:
            _check(transaction, task, place)
            key = _key(task)
            if key is not None and (key in known or key in first):
                _check_same(transaction, task, place, known.get(key), first.get(key, task))
            else:
                room.take(task)
                if key is not None:
                    first[key] = task
        except Error as error:
            return error
        return None

    return [refusal(place, task) for place, task in enumerate(tasks)]


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


class _Room:
    """The room that the limits leave for the new tasks of one call."""

    def __init__(self, transaction: Transaction, policy: Policy) -> None:
        self._memory = transaction.memory
        self._most = policy.max_waiting
        self._taken = 0
        self._waiting, self._bytes = Counter[str](), Counter[str]()
        """By tenant: how many tasks, and bytes of photos, were taken in."""

    def take(self, task: NewTask) -> None:
        """Take in a task. Raises TOO_MANY_REQUESTS if there is no room for it."""
        waiting = self._memory.counts[State.WAITING] + self._taken
        if waiting >= self._most:
            held = f"{waiting} waiting {plural(waiting, 'task')}"
            detail = f"The queue has {held}, and its limit is {self._most}. Try again later."
            raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=5, limit=self._most)
        if not task.internal:
            self._take_of_tenant(task)
        self._taken += 1

    def _take_of_tenant(self, task: NewTask) -> None:
        """Count a task against the tenant's own limits."""
        limits, held = self._memory.tenants[task.tenant].limits, self._memory.of(task.tenant)
        waiting = held.counts[State.WAITING] + self._waiting[task.tenant]
        if limits.waiting is not None and waiting >= limits.waiting:
            yours = f"{waiting} waiting {plural(waiting, 'task')}"
            detail = f"You have {yours}, and your limit is {limits.waiting}. Try again later."
            raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=5, limit=limits.waiting)
        size, kept = task.input.size if task.input is not None else 0, held.bytes + self._bytes[task.tenant]
        if limits.bytes is not None and size and kept + size > limits.bytes:
            detail = (
                f"Your photos and results take up {kept} bytes, and no more than {limits.bytes} may be kept. "
                "Delete tasks that you do not need any more."
            )
            raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=60, limit=limits.bytes)
        self._waiting[task.tenant] += 1
        self._bytes[task.tenant] += size


def _known(transaction: Transaction, tasks: Sequence[NewTask]) -> dict[TenantKey, TaskRow]:
    wanted = [key for task in tasks if (key := _key(task)) is not None]
    rows = transaction.tasks_by_key(wanted) if wanted else []
    return {key: row for row in rows if (key := _key(row)) is not None}


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
