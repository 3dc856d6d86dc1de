"""Statistics of the last week, in slots of five minutes for each tenant.

They are counted from the events, not while tasks change: one slice of events at a time, stored together with the number
of the last counted event, so that each counts once. The number of slots and tenants bounds their size.
"""

from __future__ import annotations

from safelight.db.commit.transaction import Transaction, encoded
from safelight.db.rows import EventRow
from safelight.wire.statistics import Counts, StatisticsSlot

SLOT = 300
"""Seconds."""
KEPT = 7 * 86400.0 + 7200.0
"""The least number of seconds for which to keep slots."""
_SLICE = 1000
_COUNTED = "counted_to"

_Cell = tuple[str, int, Counts]
"""A tenant, a slot (its time divided by `SLOT`) and its counts."""


def count(transaction: Transaction) -> bool:
    """Count a slice of the uncounted events; return whether more may be left."""
    connection = transaction.connection
    after = int(connection.value("meta", _COUNTED) or 0)
    if after >= transaction.memory.last_event:
        return False
    events = connection.read("events_after", list[EventRow], after, _SLICE)
    if not events:
        return False
    counted: dict[tuple[str, int], Counts] = {}
    for event in events:
        if not event.internal:
            place = event.tenant, event.at // 1000 // SLOT
            counted.setdefault(place, Counts()).add(event, f"{event.n}-{event.key}")
    for tenant, slot, before in connection.read("statistics_at", list[_Cell], encoded(list(counted))):
        counted[tenant, slot].merge(before)
    for (tenant, slot), counts in counted.items():
        connection.run("keep_statistic", tenant, slot, encoded(counts))
    connection.run("set_meta", _COUNTED, str(events[-1].seq))
    return len(events) == _SLICE


def find(transaction: Transaction, tenant: str, span: int, step: int) -> list[StatisticsSlot]:
    """Return the counts of the last `span` seconds, in slots of `step` seconds, oldest first."""
    last = transaction.now // 1000 // step
    first = last - span // step + 1
    merged: dict[int, Counts] = {}
    per = step // SLOT
    for _, slot, counts in transaction.connection.read("statistics", list[_Cell], tenant, first * per):
        merged.setdefault(slot // per, Counts()).merge(counts)
    return [StatisticsSlot(at=at * step, counts=merged[at]) for at in sorted(merged) if at <= last]


def remove(transaction: Transaction, before: int) -> None:
    """Delete the slots before a time in milliseconds."""
    transaction.connection.run("delete_statistics", before // 1000 // SLOT)
