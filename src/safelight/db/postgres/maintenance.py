"""Scheduled maintenance, on one instance at a time: expire leases, make delayed tasks available, drop old data."""

from __future__ import annotations

import time

from safelight.db.calls import clock, statistics
from safelight.db.calls.tasks import leasing, pausing
from safelight.db.commit.transaction import COUNT_EVERY
from safelight.db.lifecycle import Change
from safelight.db.postgres import partitions
from safelight.db.postgres.ledger import SWEEP
from safelight.db.postgres.transaction import PostgresTransaction
from safelight.db.rows import TaskRow
from safelight.db.stalls import Stalls
from safelight.db.store import Policy
from safelight.steady import Ages, Clock

_SLICE = 500
"""Rows of each kind to process in one call, so that requests do not wait long."""
PAUSE = 1000
"""The most milliseconds between two passes, since instances do not announce what they schedule."""
_HELD = 100
"""Milliseconds after which to check again leases that did not expire because of a stall."""
_DROP_EVERY, _DROP_LONGEST = 1.0, 60.0
"""The least and most seconds between two searches for old partitions; the time doubles while readers are in the way."""
_LONGEST_DELIVERY = 86_400_000
_LEDGER_KEPT = 600_000
"""Milliseconds for which to keep entries of the ledger; an instance further behind loads everything again."""
_WORKERS_KEPT = 3600.0
_ANALYZE_EVERY = 2.0
_SMALL = 100_000
"""Rows up to which tables are analysed here: without statistics the planner chooses indexes that read a whole tenant,
and autovacuum checks only once a minute.
"""


class DatabaseClock(Clock):
    """A clock whose wall time is that of the database."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0

    def set(self, now: float) -> None:
        """Set the database's time."""
        self._ahead = now - time.monotonic()

    def wall(self) -> float:
        """Return the database's time."""
        return self._ahead + time.monotonic()


class Maintenance:
    """The state of the instance that does the maintenance."""

    def __init__(self, policy: Policy, clock: Clock | None) -> None:
        self._policy = policy
        self._clock = clock or DatabaseClock()
        self._ages: Ages | None = None
        self._drop_at = self._sweep_at = self._count_at = self._analyze_at = 0.0
        self._drop_after = _DROP_EVERY

    def forget(self) -> None:
        """Start over, since another instance may have done the maintenance meanwhile."""
        self._ages = None

    def pass_time(self, transaction: PostgresTransaction, stalls: Stalls) -> None:
        """Do a slice of the due work, and schedule the next pass."""
        now, memory = transaction.now, transaction.memory
        started = time.monotonic()
        if isinstance(self._clock, DatabaseClock):
            self._clock.set(now / 1000)
        went_back = now < max(memory.expired_until, memory.due_until, memory.delivered_until)
        if self._ages is None:
            self._ages = Ages(transaction.connection.value("meta", "ages"), clock=self._clock)
            went_back = went_back or now < transaction.connection.value("latest_commit")  # before this session
        if started >= self._sweep_at or went_back:
            # After the clock went back; and once a minute, for rows that were locked when they were passed.
            self._sweep_at = started + SWEEP
            memory.expired_until = memory.due_until = memory.delivered_until = 0
            self._cap(transaction, went_back=went_back)
        self._confirm_clock(transaction)
        more, held = self._expire(transaction, stalls)
        more += self._fall_due(transaction)
        more += pausing.release(transaction, _SLICE)
        if started >= self._count_at:
            counted = statistics.count(transaction)
            self._count_at = started if counted else started + COUNT_EVERY / 1000
            more += counted
        if started >= self._analyze_at:
            self._analyze_at = started + _ANALYZE_EVERY
            self._analyze(transaction)
        if (running := self._clock.running()) >= self._drop_at:
            free = self._drop(transaction)
            self._drop_after = _DROP_EVERY if free else min(_DROP_LONGEST, 2 * self._drop_after)
            self._drop_at = running + self._drop_after
        more += self._remove(transaction)
        if memory.deliveries and transaction.connection.value("first_delivery", memory.delivered_until) is not None:
            self._look_at_deliveries(transaction)
        transaction.foreseen = now if more else now + _HELD if held else self._next(transaction)
        transaction.passed = True

    def _confirm_clock(self, transaction: PostgresTransaction) -> None:
        """Check whether a person has confirmed the clock, which lets partitions be dropped at once."""
        assert self._ages is not None
        confirmation = clock.confirmed(transaction).at
        if confirmation not in (0.0, self._ages.confirmation):
            self._drop_at = 0.0
        self._ages.confirm(confirmation)

    def _cap(self, transaction: PostgresTransaction, *, went_back: bool) -> None:
        """Limit how far times lie ahead, since they may be those of a clock that has been set back."""
        connection, now = transaction.connection, transaction.now
        connection.run("cap_leases", now)
        connection.run("cap_delays", now + _ms(self._policy.retry_longest))
        if went_back:  # otherwise a long --webhook-retry would be cut short
            connection.run("cap_deliveries", now + _LONGEST_DELIVERY)

    def _expire(self, transaction: PostgresTransaction, stalls: Stalls) -> tuple[int, bool]:
        """End the leases that were not extended in time, except those whose extension a stall of db prevented.

        Return the number of ended leases, and whether some were kept because of a stall.
        """
        memory = transaction.memory
        rows = transaction.tasks("expired", memory.expired_until, transaction.now, _SLICE)
        expired = [row for row in rows if not stalls.hold((row.lease_duration or 0) / 1000)]
        leasing.expire(transaction, expired, self._policy)
        if len(expired) < len(rows):
            return 0, True
        if len(rows) < _SLICE:
            memory.expired_until = transaction.now
            return 0, False
        return 1, False

    @staticmethod
    def _fall_due(transaction: PostgresTransaction) -> int:
        """Make delayed tasks that are due available."""
        memory = transaction.memory
        rows = transaction.tasks("due_now", memory.due_until, transaction.now, _SLICE)
        pausing.fall_due(transaction, rows)
        if len(rows) < _SLICE:
            memory.due_until = transaction.now
            return 0
        return 1

    @staticmethod
    def _look_at_deliveries(transaction: PostgresTransaction) -> None:
        """Wake callers that wait for webhook calls, if one is due."""
        first = transaction.connection.value("first_delivery", transaction.memory.delivered_until)
        transaction.webhooks = transaction.webhooks or (first is not None and first <= transaction.now)

    @staticmethod
    def _analyze(transaction: PostgresTransaction) -> None:
        """Analyse new tables that have grown, except those that autovacuum is processing."""
        if grown := transaction.connection.read("grown_tables", list[str], _SMALL):
            transaction.connection.attempt(f"ANALYZE {', '.join(grown)}", lock_timeout=0.1)

    def _drop(self, transaction: PostgresTransaction) -> bool:
        """Drop the partitions with only old data; return False if readers were in the way."""
        policy = self._policy
        dropped: list[bool | None] = []
        if (before := self._before("tasks", policy.keep_tasks)) is not None:
            dropped.append(partitions.detach(transaction, before))
        if (before := self._before("events", policy.keep_events)) is not None:
            dropped.append(partitions.drop_events(transaction, before))
            transaction.connection.run("delete_old_webhook_calls", before)
            transaction.memory.deliveries -= transaction.connection.run("delete_old_deliveries", before, _SLICE)
        if (before := self._before("statistics", statistics.KEPT)) is not None:
            statistics.remove(transaction, before)
        if (before := self._before("audit", policy.keep_audit)) is not None:
            transaction.connection.run("delete_old_audit", before / 1000, _SLICE)
        self._clean_ledger(transaction)
        transaction.connection.run("forget_workers", transaction.now / 1000 - _WORKERS_KEPT)
        assert self._ages is not None
        if (kept := self._ages.kept()) is not None:
            transaction.keep_meta("ages", kept)
        return False not in dropped

    def _remove(self, transaction: PostgresTransaction) -> int:
        """Announce a slice of the tasks of a detached partition; delete uploads that never ended."""
        connection, memory = transaction.connection, transaction.memory
        gone = 0
        if (found := connection.read("detached_partition", tuple[str, int] | None)) is not None:  # type: ignore[arg-type]
            name, after = found
            rows = connection.read_from(name, list[TaskRow], after, _SLICE)
            for row in rows:
                transaction.announce(row)
            if rows:
                connection.run("set_announced", name, rows[-1].n)
            elif connection.attempt(f"DROP TABLE {name}", lock_timeout=0.1):
                connection.run("delete_partition", name)
                connection.run("delete_specs", connection.value("first_task") or memory.last_task + 1)
            gone += len(rows)
        if (before := self._before("uploading", self._policy.keep_uploading)) is not None:
            old = transaction.tasks("uploading_before", before, _SLICE, memory.uploading_from)
            transaction.apply([Change(kind="deleted", old=row) for row in old])
            gone += len(old)
        return gone

    def _before(self, kind: str, keep: float) -> int | None:
        """Return the time before which data of a kind may be deleted, or None if none may be yet."""
        assert self._ages is not None
        before = self._ages.before(kind, keep) if keep else None
        return None if before is None else _ms(before)

    @staticmethod
    def _clean_ledger(transaction: PostgresTransaction) -> None:
        memory = transaction.memory
        until = transaction.connection.value("last_complete", transaction.now - _LEDGER_KEPT)
        if until is not None and until > memory.ledger_from:
            transaction.connection.run("clean_ledger", memory.ledger_from, until)
            memory.ledger_from = until

    @staticmethod
    def _next(transaction: PostgresTransaction) -> int:
        memory, value = transaction.memory, transaction.connection.value
        times = (
            value("first_expiry", memory.expired_until),
            value("first_delayed", memory.due_until),
            value("first_delivery", max(memory.delivered_until, transaction.now + 1)) if memory.deliveries else None,
        )
        soonest: int = min((at for at in times if at is not None), default=transaction.now + PAUSE)
        return max(transaction.now + 1, min(soonest, transaction.now + PAUSE))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
