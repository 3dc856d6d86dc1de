"""What becomes of a task: the rules of its life, without any storage.

Each function takes a task's row and returns the change, which the store then writes together with its event.

Who is served first: the waiting task of the highest priority, among those the oldest. So a re-run of everything at a
low priority never delays new uploads. For the low ones not to starve while high ones keep coming, every
`Policy.oldest_every`-th lease goes to the task that was created first, whatever its priority. Tasks given to classic
workers are always taken by priority.
"""

from __future__ import annotations

import msgspec

from safelight.db.retry import retry_delay
from safelight.db.rows import TaskRow
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.wire import Died, Failed, Failure, Finished, HandedBack, Outcome, State

KIND: dict[type, str] = {Finished: "finished", Failed: "failed", Died: "died", HandedBack: "handed_back"}
"""The name of each outcome in `TaskRow.settled_as` and in events."""

_CAUSES = {Code.OUT_OF_MEMORY, Code.TIMED_OUT, Code.DECODER_CRASHED}
_LAPSED = Failure(
    code=Code.WORKER_LOST.value,
    detail="The worker that held the task went silent: it was killed, its machine went away, or it froze.",
)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one task, as its event tells it. `old` is None at creation, `new` at deletion."""

    kind: str
    old: TaskRow | None = None
    new: TaskRow | None = None
    failure: Failure | None = None
    seconds: float = 0.0


def leased(row: TaskRow, *, token: str, worker: str, now: int, lease_duration: int) -> Change:
    """A worker takes the task; `worker` is empty for a classic one."""
    new = row.evolve(
        state=State.WORKING,
        attempts=row.attempts + 1,
        lease=token,
        worker=worker,
        lease_duration=lease_duration,
        expires=now + lease_duration,
    )
    return Change(kind="leased", old=row, new=new)


def settled(row: TaskRow, outcome: Outcome, policy: Policy, now: int) -> Change:
    """The lease in force ends by an outcome."""
    match outcome:
        case Finished():
            change = _finished(row, outcome)
        case Failed():
            change = _failed(row, outcome, policy, now)
        case Died():
            change = _died(row, "died", outcome.failure, policy, seconds=outcome.seconds)
        case HandedBack():
            change = handed_back(row)
    assert change.new is not None
    new = change.new.evolve(settled=row.lease, settled_as=KIND[type(outcome)])
    return msgspec.structs.replace(change, new=new)


def lapsed(row: TaskRow, policy: Policy) -> Change:
    """Nobody extended the lease: a death. A cause that an earlier death told stays the reason."""
    known = row.failure is not None and row.deaths > 0 and row.failure.code in _CAUSES
    return _died(row, "lapsed", row.failure if known and row.failure else _LAPSED, policy)


def handed_back(row: TaskRow) -> Change:
    """The task goes back to its old place; the attempt is neither error nor death."""
    return Change(kind="handed_back", old=row, new=_unleased(row, State.WAITING))


def ready(row: TaskRow) -> Change | None:
    """The upload ended; None where it had before. Raises CONFLICT from a later state."""
    if row.state is State.WAITING:
        return None
    if row.state is not State.UPLOADING:
        raise _conflict(row, "Only a task that is being uploaded becomes ready")
    return Change(kind="ready", old=row, new=row.evolve(state=State.WAITING))


def cancelled(row: TaskRow) -> Change | None:
    """Somebody does not want it any more; None where that was so. Raises CONFLICT once it ended otherwise."""
    if row.state is State.CANCELLED:
        return None
    if row.state not in {State.UPLOADING, State.WAITING, State.WORKING}:
        raise _conflict(row, "Only a task that has not ended can be cancelled")
    return Change(kind="cancelled", old=row, new=_unleased(row, State.CANCELLED))


def retried(row: TaskRow) -> Change:
    """Somebody wants it tried again. Raises CONFLICT unless it failed, was cancelled or quarantined."""
    if row.state not in {State.FAILED, State.CANCELLED, State.QUARANTINED}:
        raise _conflict(row, "Only a failed, cancelled or quarantined task can be retried")
    return Change(kind="retried", old=row, new=_anew(row))


def released(row: TaskRow) -> Change:
    """Somebody lets it out of quarantine. Raises CONFLICT from another state."""
    if row.state is not State.QUARANTINED:
        raise _conflict(row, "Only a quarantined task can be released")
    return Change(kind="released", old=row, new=_anew(row))


def _finished(row: TaskRow, outcome: Finished) -> Change:
    new = _unleased(row, State.FINISHED).evolve(
        outputs=outcome.outputs or None, failure=None, engine=outcome.engine, seconds=outcome.seconds
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
    poison = deaths - classic_deaths >= policy.max_deaths or deaths >= max(policy.classic_max_deaths, policy.max_deaths)
    new = _unleased(row, State.QUARANTINED if poison else State.WAITING).evolve(
        deaths=deaths, classic_deaths=classic_deaths, failure=failure, seconds=seconds
    )
    return Change(kind=kind, old=row, new=new, failure=failure, seconds=seconds)


def _unleased(row: TaskRow, state: State) -> TaskRow:
    return row.evolve(state=state, due=None, lease=None, expires=None, lease_duration=None, worker=None)


def _anew(row: TaskRow) -> TaskRow:
    return row.evolve(state=State.WAITING, due=None, errors=0, deaths=0, classic_deaths=0, failure=None, seconds=0.0)


def _conflict(row: TaskRow, rule: str) -> Error:
    state = row.state.name.lower()
    return Error(Code.CONFLICT, f"{rule}; this one is {state}.", state=state)
