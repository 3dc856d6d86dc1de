"""The life of a task: every change of state, and its rules. This module stores nothing.

Each function takes the row of a task and returns the change, which the store then writes together with its event.

`fairness` chooses the tenant. Its tasks are leased in order of priority; among tasks of the same priority, interactive
ones come first, and among these the oldest. So running everything again at a low priority never delays new uploads, and
a large batch never delays a photo whose sender waits for it. To prevent starvation, one in `Policy.oldest_every` leases
of a tenant goes to its oldest task, whatever its priority. Leases of classic workers always follow priority.
"""

from __future__ import annotations

from typing import Any

import msgspec

from safelight.db.retry import retry_delay
from safelight.db.rows import EXPIRED, TaskRow, ending
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.wire import Died, Failed, Failure, Finished, Outcome, Returned, State

KIND: dict[type, str] = {Finished: "finished", Failed: "failed", Died: "died", Returned: "returned"}
"""The names of the outcomes in `TaskRow.settled_as` and in events."""

_CAUSES = {Code.OUT_OF_MEMORY, Code.TIMED_OUT, Code.DECODER_CRASHED}
LEASED = "leased"
"""The kind of the change that gives a task to a worker."""
EXCUSED = "excused"
"""The end of a lease whose worker came back after it had expired, in `TaskRow.settled_as` and in events."""
_LOST = Failure(
    code=Code.WORKER_LOST.value,
    detail="The worker sent no more heartbeats: it was killed, it hangs, or its machine is gone.",
)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one task. `old` is None when the task is created, `new` when it is deleted."""

    kind: str
    old: TaskRow | None = None
    new: TaskRow | None = None
    failure: Failure | None = None
    seconds: float = 0.0


def leased(row: TaskRow, *, token: str, worker: str, now: int, lease_duration: int) -> Change:
    """Lease the task to a worker; `worker` is empty for a classic one."""
    new = row.evolve(
        state=State.WORKING,
        attempts=row.attempts + 1,
        lease=token,
        worker=worker,
        lease_duration=lease_duration,
        expires=now + lease_duration,
    )
    return Change(kind=LEASED, old=row, new=new)


def settled(row: TaskRow, outcome: Outcome, policy: Policy, now: int) -> Change:
    """End the lease in force with an outcome."""
    match outcome:
        case Finished():
            return _finished(row, outcome)
        case Failed():
            change = _failed(row, outcome, policy, now)
        case Died():
            change = _died(row, "died", outcome.failure, policy, seconds=outcome.seconds)
        case Returned():
            change = returned(row)
    assert change.new is not None
    new = change.new.evolve(settled=row.lease, settled_as=ending(KIND[type(outcome)], row.missing))
    return msgspec.structs.replace(change, new=new)


def expired(row: TaskRow, policy: Policy) -> Change:
    """End a lease that was not extended, which is a death. The cause of an earlier death stays the reason."""
    known = row.failure is not None and row.deaths > 0 and row.failure.code in _CAUSES
    change = _died(row, EXPIRED, row.failure if known and row.failure else _LOST, policy)
    assert change.new is not None
    assert row.lease is not None
    missing = ending(EXPIRED, (*row.missing, row.lease))
    return msgspec.structs.replace(change, new=change.new.evolve(settled=row.lease, settled_as=missing))


def excused(row: TaskRow, lease: str, policy: Policy, *, classic: bool = False) -> Change:
    """Take back the death of an expired lease, since its worker was only unreachable or suspended and has come back.

    `lease` is one of `row.missing`, and `classic` says that a classic worker had it. Other workers may have had, and
    even finished, the task since. The lease stays lost. A quarantined task waits again, unless the other deaths are
    enough to quarantine it.
    """
    deaths = row.deaths - 1
    classic_deaths = max(0, min(deaths, row.classic_deaths - classic))
    kind = EXCUSED if lease == row.settled else row.ended_as or EXCUSED
    missing = ending(kind, [other for other in row.missing if other != lease])
    failure = row.failure if deaths or row.errors else None
    new = row.evolve(deaths=deaths, classic_deaths=classic_deaths, settled_as=missing, failure=failure)
    if row.state is State.QUARANTINED and not _is_poison(deaths, classic_deaths, policy):
        new = new.evolve(state=State.WAITING)
    return Change(kind=EXCUSED, old=row, new=new)


def returned(row: TaskRow) -> Change:
    """Return the lease. The task gets back its place in the queue; the attempt is neither an error nor a death."""
    return Change(kind="returned", old=row, new=_unleased(row, State.WAITING))


def ready(row: TaskRow) -> Change | None:
    """Let an uploaded task wait for a worker; None if it already does. Raises CONFLICT from a later state."""
    if row.state is State.WAITING:
        return None
    if row.state is not State.UPLOADING:
        raise _conflict(row, "Only a task that is being uploaded can become ready")
    return Change(kind="ready", old=row, new=row.evolve(state=State.WAITING))


def cancelled(row: TaskRow) -> Change | None:
    """Cancel the task; None if it was cancelled before. Raises CONFLICT if it has ended otherwise."""
    if row.state is State.CANCELLED:
        return None
    if row.state not in {State.UPLOADING, State.WAITING, State.WORKING}:
        raise _conflict(row, "Only a task that has not ended can be cancelled")
    return Change(kind="cancelled", old=row, new=_unleased(row, State.CANCELLED))


def retried(row: TaskRow) -> Change:
    """Let the task wait again. Raises CONFLICT unless it has failed or was cancelled or quarantined."""
    if row.state not in {State.FAILED, State.CANCELLED, State.QUARANTINED}:
        raise _conflict(row, "Only a failed, cancelled or quarantined task can be retried")
    return Change(kind="retried", old=row, new=_reset(row))


def released(row: TaskRow) -> Change:
    """Release the task from quarantine. Raises CONFLICT from another state."""
    if row.state is not State.QUARANTINED:
        raise _conflict(row, "Only a quarantined task can be released")
    return Change(kind="released", old=row, new=_reset(row))


def _finished(row: TaskRow, outcome: Finished) -> Change:
    # Nearly every task ends like this, so copy its row only once.
    new = _unleased(
        row,
        State.FINISHED,
        outputs=outcome.outputs or None,
        failure=None,
        engine=outcome.engine,
        seconds=outcome.seconds,
        settled=row.lease,
        settled_as=ending(KIND[Finished], row.missing),
    )
    return Change(kind="finished", old=row, new=new, seconds=outcome.seconds)


def _failed(row: TaskRow, outcome: Failed, policy: Policy, now: int) -> Change:
    errors = row.errors + 1
    final = outcome.permanent or errors >= policy.max_errors
    new = _unleased(row, State.FAILED if final else State.WAITING).evolve(
        errors=errors,
        failure=outcome.failure,
        seconds=outcome.seconds,
        due=None if final else now + round(1000 * retry_delay(policy, errors)),
    )
    kind = "failed" if final else "delayed"
    return Change(kind=kind, old=row, new=new, failure=outcome.failure, seconds=outcome.seconds)


def _died(row: TaskRow, kind: str, failure: Failure, policy: Policy, *, seconds: float = 0.0) -> Change:
    deaths, classic_deaths = row.deaths + 1, row.classic_deaths + (row.worker == "")
    poison = _is_poison(deaths, classic_deaths, policy)
    new = _unleased(row, State.QUARANTINED if poison else State.WAITING).evolve(
        deaths=deaths, classic_deaths=classic_deaths, failure=failure, seconds=seconds
    )
    return Change(kind=kind, old=row, new=new, failure=failure, seconds=seconds)


def _is_poison(deaths: int, classic_deaths: int, policy: Policy) -> bool:
    return deaths - classic_deaths >= policy.max_deaths or deaths >= max(policy.classic_max_deaths, policy.max_deaths)


def _unleased(row: TaskRow, state: State, **changes: Any) -> TaskRow:
    return row.evolve(state=state, due=None, lease=None, expires=None, lease_duration=None, worker=None, **changes)


def _reset(row: TaskRow) -> TaskRow:
    ended = row.ended_as if row.ended_as != EXPIRED else EXCUSED  # forgotten deaths are not taken back
    return row.evolve(
        state=State.WAITING, due=None, errors=0, deaths=0, classic_deaths=0, settled_as=ended, failure=None, seconds=0.0
    )


def _conflict(row: TaskRow, rule: str) -> Error:
    state = row.state.name.lower()
    return Error(Code.CONFLICT, f"{rule}; this one is {state}.", state=state)
