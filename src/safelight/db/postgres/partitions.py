"""Partition ended tasks and events by time, so that old ones are dropped instead of deleted one by one."""

from __future__ import annotations

from safelight.db.postgres.transaction import PostgresTransaction
from safelight.db.store import Policy

_PARTS = 6
"""The number of partitions: a task or an event is kept up to a sixth longer than the policy says."""
_SHORTEST, _LONGEST = 1000, 30 * 86_400_000
"""The limits for the span of a partition, in milliseconds."""
_LOCK = 0.1
"""Seconds to wait for readers of a table; other sessions wait meanwhile."""


def spans(policy: Policy) -> dict[str, int]:
    """Return how many milliseconds a partition of each table spans."""

    def span(keep: float) -> int:
        return min(_LONGEST, max(_SHORTEST, round(keep * 1000 / _PARTS))) if keep else _LONGEST

    return {"ended": span(policy.keep_tasks), "event": span(policy.keep_events)}


def detach(transaction: PostgresTransaction, before: int) -> bool | None:
    """Detach the oldest partition of ended tasks with only older ones; return None if there is none.

    Its tasks are then no longer visible. Return False during a long read (a dump): try again later.
    """
    name = transaction.connection.value("old_partition", "ended", before)
    if name is None:
        return None
    if not transaction.connection.attempt(f"ALTER TABLE ended DETACH PARTITION {name}", lock_timeout=_LOCK):
        return False
    transaction.connection.run("set_announced", name, 0)
    return True


def drop_events(transaction: PostgresTransaction, before: int) -> bool | None:
    """Drop the oldest partition of events with only older ones; see `detach`."""
    name = transaction.connection.value("old_partition", "event", before)
    if name is None:
        return None
    last = transaction.connection.last_number(name)
    statements = f"ALTER TABLE event DETACH PARTITION {name}; DROP TABLE {name}"
    if not transaction.connection.attempt(statements, lock_timeout=_LOCK):
        return False
    transaction.connection.run("delete_partition", name)
    transaction.memory.removed_event = max(transaction.memory.removed_event, last or 0)
    return True
