"""Scheduled maintenance: expire leases, make delayed tasks available, delete old data."""

from __future__ import annotations

from safelight.db import ids
from safelight.db.calls import clock, statistics
from safelight.db.calls.tasks import leasing, pausing
from safelight.db.commit.transaction import Transaction, encoded
from safelight.db.lifecycle import Change
from safelight.db.rows import TaskRow
from safelight.db.stalls import Stalls
from safelight.db.store import Policy
from safelight.steady import Ages

_SLICE = 500
"""Rows of each kind to process in one call, so that requests do not wait long."""
_PAUSE = 1000
"""The least number of milliseconds between two deletions of old rows."""
_LOOK = 20
"""The least number of milliseconds between two observations of old data."""
_KEEP_AGES = 600_000
"""Milliseconds between two writes of db's running time."""
_HELD = 100
"""Milliseconds after which to check again leases that did not expire because of a stall."""
_RUNS = 100
"""The number of starts to remember; readers whose last event is from before these starts read everything again."""
_LONGEST_DELIVERY = 86_400_000


def start(transaction: Transaction, policy: Policy) -> str | None:
    """Extend every lease by its full duration, since workers are not to blame for the time that db was away.

    An earlier process may have had a wrong clock, so limit how far times lie ahead. Return the stored state of `Ages`.
    """
    connection = transaction.connection
    connection.run("extend_all", transaction.steady)
    connection.run("cap_delays", transaction.steady + _ms(policy.retry_longest))
    connection.run("cap_deliveries", transaction.steady + _LONGEST_DELIVERY)
    memory = transaction.memory
    memory.runs = [*memory.runs[-_RUNS:], (ids.randoms(1)[0], memory.last_event)]
    transaction.set_meta("runs", encoded(memory.runs))
    kept = connection.value("meta", "ages")
    return None if kept is None else str(kept)


def pass_time(transaction: Transaction, policy: Policy, ages: Ages, stalls: Stalls) -> None:
    """Do a slice of the due work, and schedule the next pass."""
    held = expire(transaction, policy, stalls)
    _fall_due(transaction)
    released = pausing.release(transaction, _SLICE) | statistics.count(transaction)
    more = remove(transaction, policy, ages)
    keep_ages(transaction, ages)
    transaction.foreseen = transaction.steady if released else _next(transaction, policy, ages, held=held, more=more)
    transaction.passed = True


def expire(transaction: Transaction, policy: Policy, stalls: Stalls) -> bool:
    """End the leases that were not extended in time. Return whether some were kept because db had stalled."""
    rows = transaction.tasks("expired", transaction.steady, _SLICE)
    expired = [row for row in rows if not stalls.hold((row.lease_duration or 0) / 1000)]
    leasing.expire(transaction, expired, policy)
    return len(expired) < len(rows)


def _fall_due(transaction: Transaction) -> None:
    """Make delayed tasks that are due available."""
    pausing.fall_due(transaction, transaction.tasks("due_now", transaction.steady, _SLICE))


def remove(transaction: Transaction, policy: Policy, ages: Ages) -> bool:
    """Delete a slice of the data that is older than the policy keeps; return whether more may be left."""
    connection, memory = transaction.connection, transaction.memory
    ages.confirm(clock.confirmed(transaction).at)
    before = {kind: _cut(ages, kind, keep) for kind, keep in _keeps(policy).items()}
    old = _old(transaction, "ended_before", before.get("tasks"))
    old += _old(transaction, "uploading_before", before.get("uploading"))
    if old:
        transaction.apply([Change(kind="deleted", old=row) for row in old])
        if connection.run("delete_specs", connection.value("first_task") or memory.last_task + 1):
            memory.forget_specs()
    gone = len(old)
    if (cut := before.get("events")) is not None:
        gone += connection.run("delete_old_deliveries", cut, _SLICE)
        connection.run("delete_old_webhook_calls", cut)
        memory.deliveries = connection.value("count_deliveries")
        last = connection.value("last_event_before", cut, 4 * _SLICE)
        if last is not None:
            gone += connection.run("delete_events", last)
            memory.removed_event = last
            transaction.set_meta("removed_event", last)
    if (cut := before.get("statistics")) is not None:
        statistics.remove(transaction, cut)
    if (cut := before.get("audit")) is not None:
        gone += connection.run("delete_old_audit", cut / 1000, _SLICE)
    return gone >= _SLICE


def keep_ages(transaction: Transaction, ages: Ages, *, due: bool = True) -> None:
    """Store db's running time, and its observations of ages."""
    if (kept := ages.kept(due=due)) is not None:
        transaction.set_meta("ages", kept)


def _keeps(policy: Policy) -> dict[str, float]:
    """Return how long each kind of data is kept, in seconds, without kinds that are kept forever."""
    keeps = {
        "tasks": policy.keep_tasks,
        "uploading": policy.keep_uploading,
        "events": policy.keep_events,
        "audit": policy.keep_audit,
        "statistics": statistics.KEPT,
    }
    return {kind: keep for kind, keep in keeps.items() if keep}


def _cut(ages: Ages, kind: str, keep: float) -> int | None:
    before = ages.before(kind, keep)
    return None if before is None else _ms(before)


def _old(transaction: Transaction, query: str, before: int | None) -> list[TaskRow]:
    return [] if before is None else transaction.tasks(query, before, _SLICE)


def _next(transaction: Transaction, policy: Policy, ages: Ages, *, held: bool, more: bool) -> int:
    value, now = transaction.connection.value, transaction.steady
    expiry = now + _HELD if held else value("first_expiry")
    precise = [expiry, value("first_delayed"), value("next_delivery", now)]
    looks = [_ms(ages.next_look(kind, keep)) for kind, keep in _keeps(policy).items()]
    slow = now + (_PAUSE if more else max(_LOOK, min([*looks, _KEEP_AGES])))
    return min([slow, *(int(at) for at in precise if at is not None)])


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
