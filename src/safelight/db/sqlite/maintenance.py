"""Maintenance by the clock: expire leases, make delayed tasks due, delete what is old."""

from __future__ import annotations

from safelight.db import lifecycle
from safelight.db.calls.transaction import Transaction, encoded
from safelight.db.lifecycle import Change
from safelight.db.store import Policy

_SLICE = 500
"""Rows of each kind that one call processes, so that requests do not wait long."""
_PAUSE = 1000
"""Milliseconds at least between two deletions of old rows."""


def start(transaction: Transaction) -> None:
    """Extend every lease by its full duration: workers are not to blame for the time db was away."""
    transaction.connection.run("extend_all", transaction.now)


def pass_time(transaction: Transaction, policy: Policy) -> None:
    """Do a slice of what is due, and note when something will be due next."""
    expire(transaction, policy)
    _fall_due(transaction)
    remove(transaction, policy)
    transaction.foreseen = _next(transaction, policy)
    transaction.passed = True


def expire(transaction: Transaction, policy: Policy) -> None:
    """End the leases that nobody has extended in time."""
    expired = transaction.tasks("expired", transaction.now, _SLICE)
    transaction.apply([lifecycle.expired(row, policy) for row in expired])


def _fall_due(transaction: Transaction) -> None:
    """Let delayed tasks whose time has come be leased."""
    due = transaction.connection.read("due_now", list[tuple[int, str]], transaction.now, _SLICE)
    if due:
        transaction.connection.run("fall_due", encoded([n for n, _ in due]))
        for _, tenant in due:
            transaction.memory.count_delayed(tenant, -1)


def remove(transaction: Transaction, policy: Policy) -> None:
    """Delete a slice of what is older than the policy keeps."""
    now, connection, memory = transaction.now, transaction.connection, transaction.memory
    old = transaction.tasks("ended_before", now - _ms(policy.keep_tasks), _SLICE) if policy.keep_tasks else []
    if policy.keep_uploading:
        old += transaction.tasks("uploading_before", now - _ms(policy.keep_uploading), _SLICE)
    if old:
        transaction.apply([Change(kind="deleted", old=row) for row in old])
        if connection.run("delete_specs", connection.value("first_task") or memory.last_task + 1):
            memory.forget_specs()
    if policy.keep_events:
        before = now - _ms(policy.keep_events)
        connection.run("delete_old_deliveries", before, _SLICE)
        memory.deliveries = connection.value("count_deliveries")
        last = connection.value("last_event_before", before, 4 * _SLICE)
        if last is not None:
            connection.run("delete_events", last)
            memory.removed_event = last
            transaction.set_meta("removed_event", last)


def _next(transaction: Transaction, policy: Policy) -> int | None:
    value, now = transaction.connection.value, transaction.now
    precise = [value("first_expiry"), value("first_delayed"), value("next_delivery", now)]
    removals = [
        (value("first_ended"), policy.keep_tasks),
        (value("first_uploading"), policy.keep_uploading),
        (value("first_event_time"), policy.keep_events),
        (value("first_delivery_created"), policy.keep_events),
    ]
    # Where there is no row yet, none can be old enough before that time has passed from now.
    slow = [max((now if since is None else since) + _ms(keep), now + _PAUSE) for since, keep in removals if keep]
    return min([*(at for at in precise if at is not None), *slow], default=None)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
