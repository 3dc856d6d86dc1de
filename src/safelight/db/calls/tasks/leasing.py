"""Grant, extend and end leases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from safelight.db import ids, lifecycle
from safelight.db.calls.tasks import pausing
from safelight.db.commit.transaction import Transaction, encoded
from safelight.db.lifecycle import Change
from safelight.db.rows import TaskRow
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.wire import (
    DEFAULT_TENANT,
    Died,
    Finished,
    Heartbeat,
    HeartbeatAnswer,
    Lease,
    LeaseRequest,
    Outcome,
    Settled,
    State,
    Task,
    WorkerInfo,
    WorkerSeen,
)

_UNHEARD = 1000
"""The most workers whose expired leases are remembered."""
_EXCUSABLE = frozenset({State.WAITING, State.WORKING, State.QUARANTINED, State.FINISHED})
_ANSWER_BYTES = 8 << 20
"""The most bytes of recipes in one answer, which db and the master hold several times while they send it."""
WORKER_REMEMBERED = 120_000
"""Milliseconds after which a silent worker is forgotten: twice the longest wait for a lease."""


def arrive(transaction: Transaction, request: LeaseRequest, policy: Policy) -> None:
    """Record that a worker asks for leases. Return its leases that it does not know of, which were lost on the way."""
    _see(transaction, request.worker)
    known = set(request.holding)
    held = transaction.held_by(request.worker.id)
    transaction.apply([lifecycle.returned(row) for row in held if row.lease_id not in known])
    if request.n:  # with 0, a successor reports for a dead worker, whose deaths are not taken back
        _excuse(transaction, [*request.holding, *_heard(transaction, request.worker)], policy)


def claim(transaction: Transaction, request: LeaseRequest, policy: Policy) -> list[Lease]:
    """Lease waiting tasks to a worker, fewer than it asks for if their recipes are large; it will ask again."""
    _see(transaction, request.worker)
    if request.worker.id in transaction.memory.draining:
        return []
    rows = _within(transaction, _next(transaction, min(request.n, transaction.memory.available), policy))
    return _lease(transaction, rows, request.worker.id, request.seconds)


def claim_classic(transaction: Transaction, tenant: str, policy: Policy) -> Lease | None:
    """Lease the next task of a tenant that a classic worker can do; None if none waits."""
    rows = _next_classic(transaction, tenant)
    return next(iter(_lease(transaction, rows, "", policy.classic_lease_duration)), None)


def classic_waits(transaction: Transaction, tenant: str) -> bool:
    """Return whether `claim_classic` would lease a task now."""
    rows = _next_classic(transaction, tenant)
    transaction.leave(rows)
    return bool(rows)


def _next_classic(transaction: Transaction, tenant: str) -> list[TaskRow]:
    """Return the next task of a tenant that a classic worker can do, if one waits."""

    def read(tenant: str, _n: int) -> list[TaskRow]:
        row = transaction.waiting_classic(tenant)
        return [] if row is None else [row]

    return pausing.free(transaction, tenant, 1, read) if transaction.memory.available_of(tenant) else []


def _next(transaction: Transaction, n: int, policy: Policy) -> list[TaskRow]:
    """Return the next tasks; `fairness` chooses the tenants, `lifecycle` defines the order."""
    if not n:
        return []
    memory = transaction.memory
    turns = memory.turns.choose({tenant: memory.available_of(tenant) for tenant in memory.held}, n)
    taken = {tenant: iter(_of_tenant(transaction, tenant, count, policy)) for tenant, count in Counter(turns).items()}
    rows = (next(taken[tenant], None) for tenant in turns)
    return [row for row in rows if row is not None]


def _of_tenant(transaction: Transaction, tenant: str, n: int, policy: Policy) -> list[TaskRow]:
    """Return the first `n` waiting tasks of a tenant."""
    rows = pausing.free(transaction, tenant, n, transaction.waiting)
    share = transaction.memory.turns.share(tenant)
    turn, share.leases = share.leases, share.leases + len(rows)
    by_age = share.leases // policy.oldest_every - turn // policy.oldest_every if policy.oldest_every else 0
    if not by_age:
        return rows
    taken = {row.n for row in rows}
    oldest = pausing.free(transaction, tenant, by_age, transaction.waiting_oldest)
    older = [row for row in oldest if row.n not in taken]
    kept = len(rows) - len(older)
    transaction.leave(rows[kept:])
    return rows[:kept] + older


def _within(transaction: Transaction, rows: Sequence[TaskRow]) -> Sequence[TaskRow]:
    """Return the first rows whose recipes fit into one answer, at least one, and leave the others."""
    size = 0
    for place, row in enumerate(rows):
        size += len(transaction.spec_body(row))
        if size > _ANSWER_BYTES and place:
            transaction.leave(rows[place:])
            return rows[:place]
    return rows


def _lease(transaction: Transaction, rows: Sequence[TaskRow], worker: str, seconds: float) -> list[Lease]:
    lease_duration = round(seconds * 1000)
    changes = [
        lifecycle.leased(row, token=token, worker=worker, now=transaction.steady, lease_duration=lease_duration)
        for row, token in zip(rows, ids.randoms(len(rows)), strict=True)
    ]
    return [row.lease_record(transaction.spec_body(row)) for row in transaction.apply(changes)]


def expire(transaction: Transaction, rows: Sequence[TaskRow], policy: Policy) -> None:
    """End leases that were not extended in time, and remember their workers."""
    memory = transaction.memory
    missed: dict[str, list[str]] = {}
    for row in rows:
        if row.worker:
            missed.setdefault(row.worker, list(memory.unheard.get(row.worker, ()))).append(row.lease_id)
    for worker, leases in missed.items():
        memory.set_unheard(worker, leases)
    while len(memory.unheard) > _UNHEARD:
        memory.set_unheard(next(iter(memory.unheard)), [])
    if missed:
        transaction.keep_unheard()
    transaction.apply([lifecycle.expired(row, policy) for row in rows])


def _heard(transaction: Transaction, worker: WorkerInfo) -> list[str]:
    """Return the leases of a worker that have expired since its last request; it may not have received all."""
    leases = transaction.memory.unheard.get(worker.id, [])
    if leases:
        transaction.memory.set_unheard(worker.id, [])
        transaction.keep_unheard()
    return leases


def heartbeat(transaction: Transaction, beat: Heartbeat, policy: Policy) -> HeartbeatAnswer:
    """Extend the leases in force, and return the others."""
    _see(transaction, beat.worker)
    references = {lease: ids.parse(lease) for lease in beat.holding}
    rows = transaction.tasks_by_number({reference.n for reference in references.values() if reference})
    held = []
    lost = []
    for lease, reference in references.items():
        row = rows.get(reference.n) if reference else None
        if row is not None and reference is not None and row.held_under(reference):
            held.append(row.n)
        else:
            lost.append(lease)
    if held:
        lease_duration = round(beat.seconds * 1000)
        transaction.connection.run("extend", encoded(held), transaction.steady + lease_duration, lease_duration)
        transaction.schedule(transaction.steady + lease_duration)
    _excuse(transaction, [*lost, *_heard(transaction, beat.worker)], policy)
    return HeartbeatAnswer(lost=lost)


def _excuse(transaction: Transaction, leases: Sequence[str], policy: Policy, *, classic: bool = False) -> None:
    """Take back the deaths of expired leases whose worker, which names them now, is alive."""
    if not leases:
        return
    references = [reference for lease in leases if (reference := ids.parse(lease)) is not None]
    rows = transaction.tasks_by_number({reference.n for reference in references}) if references else {}
    for reference in references:
        row = rows.get(reference.n)
        token = reference.token
        if row is None or token is None or row.key != reference.key or token not in row.missing or row.deaths == 0:
            continue
        if row.state in _EXCUSABLE:
            # A task may have several of these deaths: the next one is taken back from the row as it is stored now.
            (rows[row.n],) = transaction.apply([lifecycle.excused(row, token, policy, classic=classic)])


def settle(
    transaction: Transaction, outcomes: Sequence[Outcome], policy: Policy, *, classic: bool = False
) -> list[Settled]:
    """End attempts, independently of one another; with `classic`, those of classic workers."""
    references = [ids.parse(outcome.lease) for outcome in outcomes]
    rows = transaction.tasks_by_number({reference.n for reference in references if reference})
    changes: list[Change] = []
    answers, late = [], []
    for outcome, reference in zip(outcomes, references, strict=True):
        row = rows.get(reference.n) if reference else None
        if row is not None and reference is not None and row.held_under(reference):
            change = lifecycle.settled(row, outcome, policy, transaction.steady)
            assert change.new is not None
            changes.append(change)
            row = rows[row.n] = change.new
        elif row is None or reference is None or not _settled_before(row, reference, outcome):
            answers.append(Settled(lease=outcome.lease, problem=_lost(row, reference).problem()))
            late.append(outcome)
            continue
        answers.append(Settled(lease=outcome.lease, state=row.state))
    transaction.apply(changes)
    _excuse(transaction, [outcome.lease for outcome in late if not isinstance(outcome, Died)], policy, classic=classic)
    return answers


def finish_classic(transaction: Transaction, id: str, finished: Finished, policy: Policy) -> Task | Error:
    """End the attempt of a classic worker, whose id may be that of the task or of the lease.

    Return the error of a lost lease: to raise it would undo that its death is taken back. Raises NOT_FOUND.
    """
    row = transaction.task(id)
    reference = ids.parse(id)
    named_task = reference is not None and reference.token is None
    if named_task and (row.worker == "" or row.state is State.FINISHED):
        finished = finished.evolve(lease=row.lease_id)
    (answer,) = settle(transaction, [finished], policy, classic=True)
    if answer.problem is not None:
        return Error.from_problem(answer.problem, 409)
    row = transaction.task(id)
    return transaction.record(row)


def _settled_before(row: TaskRow, reference: ids.Reference, outcome: Outcome) -> bool:
    return (
        row.key == reference.key
        and row.settled is not None
        and row.settled == reference.token
        and row.ended_as == lifecycle.KIND[type(outcome)]
    )


def _lost(row: TaskRow | None, reference: ids.Reference | None) -> Error:
    if row is None or reference is None or row.key != reference.key:
        return Error(Code.LEASE_LOST, "The task of this lease does not exist or was deleted.")
    if reference.token is None:
        return Error(Code.LEASE_LOST, "This is the id of a task. End an attempt with the id of its lease.")
    state = row.state.name.lower()
    return Error(Code.LEASE_LOST, f"The lease is no longer in force; the task is {state} now.", state=state)


def _see(transaction: Transaction, worker: WorkerInfo) -> None:
    workers, now = transaction.workers, transaction.steady / 1000
    seen = workers.pop(worker.id, None)  # reinsert it, so that the worker seen last comes last
    workers[worker.id] = WorkerSeen(worker=worker, first_seen=seen.first_seen if seen else now, last_seen=now)
    if worker.engine and worker.engine != transaction.memory.engine:
        transaction.memory.engine = worker.engine
        transaction.set_meta("engine", worker.engine)


def workers(transaction: Transaction) -> list[WorkerSeen]:
    """Return the workers seen lately, each with the number of leases that it holds and with times of the wall clock."""
    oldest = (transaction.steady - WORKER_REMEMBERED) / 1000
    ahead = (transaction.now - transaction.steady) / 1000  # callers compare with the wall clock, which may have jumped
    for seen in [seen for seen in transaction.workers.values() if seen.last_seen < oldest]:
        del transaction.workers[seen.worker.id]
    held = transaction.connection.read("holdings", dict[str, int])
    draining = transaction.memory.draining
    return [
        seen.evolve(
            first_seen=seen.first_seen + ahead,
            last_seen=seen.last_seen + ahead,
            holding=held.get(seen.worker.id, 0),
            draining=draining.get(seen.worker.id, 0.0),
        )
        for seen in transaction.workers.values()
    ]


def drain(transaction: Transaction, id: str, seen: Collection[str], *, draining: bool) -> None:
    """Drain a worker, or let it take leases again; forget workers that were not seen lately."""
    operators = transaction.memory.tenants[DEFAULT_TENANT]
    if draining is (id not in operators.draining):
        marked = {each: since for each, since in operators.draining.items() if each in seen and each != id}
        if draining:
            marked[id] = transaction.now / 1000
        transaction.keep_tenant(operators.evolve(draining=marked))
