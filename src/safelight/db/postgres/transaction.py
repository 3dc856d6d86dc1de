"""One transaction of the PostgreSQL backend.

Writing transactions hold one lock, so they happen one after another across all instances, many calls in each. Event
numbers are therefore assigned in commit order, and the memory reflects the last commit.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from safelight.db.commit.memory import Shares
from safelight.db.commit.transaction import Computed, DueDelivery, Reads, TenantKey, Transaction
from safelight.db.lifecycle import Change
from safelight.db.postgres.lanes import Lane, Lanes
from safelight.db.postgres.ledger import SharedMemory, payload
from safelight.db.postgres.rows import Found, OrderedConnection, Rows, Wanted, attributed_to_none, available, wanted
from safelight.db.postgres.sessions.connection import Connection
from safelight.db.rows import TaskRow
from safelight.wire import WorkerInfo, WorkerSeen

WRITING, WAITING, INSTANCES, MAINTENANCE = range(4)
_WORKER_WRITTEN = 5.0
"""Seconds after which to store again that a worker was seen."""
_REMEMBERED = 120.0
_LOOK_AGAIN = 1.0
"""Seconds between two searches for waiting tasks that are counted but in no lane."""


def lock(number: int) -> str:
    """Return the arguments of an advisory lock's functions."""
    # Advisory locks belong to a whole database, in which another schema may have another system with its own `ledger`.
    return f"'ledger'::regclass::int, {number}"


class Roster(dict[str, WorkerSeen]):
    """The workers that one instance has seen, and what other instances know of them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.written: dict[str, tuple[WorkerInfo, float]] = {}

    def __setitem__(self, id: str, worker: WorkerSeen) -> None:
        self.seen.add(id)
        super().__setitem__(id, worker)

    def news(self) -> list[WorkerSeen]:
        """Return the workers that other instances do not know, or know only from a while ago."""
        found = []
        for name in self.seen:
            seen = self[name]
            info, at = self.written.get(name, (None, 0.0))
            if info != seen.worker or not 0 <= seen.last_seen - at < _WORKER_WRITTEN:
                found.append(seen)
        self.seen.clear()
        return found

    def told(self, workers: Sequence[WorkerSeen]) -> None:
        """Record that other instances know these workers, and forget those not seen for long."""
        for seen in workers:
            self.written[seen.worker.id] = seen.worker, seen.last_seen
        newest = max(seen.last_seen for seen in workers)
        for name in [name for name, seen in self.items() if seen.last_seen < newest - _REMEMBERED]:
            self.pop(name)
            self.written.pop(name, None)


class PostgresTransaction(Transaction):
    """The state that the calls of one commit share."""

    connection: Connection
    memory: SharedMemory

    def __init__(
        self,
        connection: Connection,
        memory: SharedMemory,
        now: int,
        spans: dict[str, int],
        workers: dict[str, WorkerSeen],
        *,
        postpone: bool = True,
    ) -> None:
        self.rows = Rows(postpone=postpone)
        ordered = OrderedConnection(connection, lambda: self.rows.write(self.connection), self._forget)
        super().__init__(ordered, memory, workers, now)
        self.stamp = max(now, memory.earliest)  # there may be no partition for an earlier time
        if now < memory.delivered_until:  # the clock went back, and calls may fall due at times that are passed over
            memory.delivered_until = 0
        self._read = False
        """Whether rows were read when it began."""
        self._claims = 0
        """The approximate number of waiting tasks of each tenant that the following calls will take."""
        self._read_from: list[Lane] = []
        """Lanes from which more may have been read than taken."""
        self._spans = spans
        self.version = memory.version + 1
        self.token = ""
        """Identifies the commit, if it writes anything."""
        self.roused = False
        """Whether tasks became available without an event."""

    # Rows

    def know(self, wanted: Wanted, found: Found) -> None:
        """Remember the rows that were read when the transaction began."""
        self.rows.learn(wanted, found)
        self._read = True

    def read_ahead(self, reads: Sequence[Reads]) -> None:
        """Read ahead the rows that the following calls will read, unless this was done when the transaction began."""
        if not self._read:
            self.rows.write(self.connection)
            self._forget()
            self.rows.read_ahead(self.connection, wanted(self.memory, reads))
        tenants = sum(held.available > 0 for held in self.memory.held.values())
        self._claims = sum(each.claims for each in reads) // max(1, tenants)

    def tasks_by_number(self, numbers: Iterable[int]) -> dict[int, TaskRow]:
        """Read rows by their numbers, first among open tasks and then among ended ones."""
        wanted, known = set(numbers), self.rows.known
        rows = {n: row for n in wanted if (row := known.get(n)) is not None}
        if missing := [n for n in wanted if n not in known]:
            rows |= {row.n: row for row in self.tasks("live_by_number", missing)}
        if missing := [n for n in missing if n not in rows]:
            rows |= {row.n: row for row in self.tasks("ended_by_number", missing)}
        return rows

    def tasks_by_key(self, keys: Sequence[TenantKey]) -> list[TaskRow]:
        """Read the rows that have one of these idempotency keys."""
        known = self.rows.of_keys(keys)
        return super().tasks_by_key(keys) if known is None else known

    def finished_alike(self, wanted: Sequence[Computed], engine: str) -> list[TaskRow]:
        """Read a finished row for each of these that an engine has computed."""
        known = self.rows.alike(wanted, engine)
        return super().finished_alike(wanted, engine) if known is None else known

    def _write_tasks(self, pairs: Sequence[tuple[Change, TaskRow]]) -> None:
        if pairs:
            self._partition()
            self.rows.change(pairs, self.connection)

    def _forget(self) -> None:
        """Forget the rows that were read, since a statement may change them."""
        self.rows.forget()
        for lane in self._read_from:
            lane.give_back()
        self._read_from.clear()

    def _number(self, change: Change) -> TaskRow:
        row = super()._number(change)
        if change.new is not None and available(row) and (change.old is None or not available(change.old)):
            self.memory.waits(row)
        return row

    def announce(self, row: TaskRow) -> None:
        """Write the event for a row that was deleted, and remove it from the counts."""
        self._partition()
        self._number(Change(kind="deleted", old=row))

    def _partition(self) -> None:
        """Ensure that there is a partition for current changes."""
        for table, span in self._spans.items():
            if self.stamp < self.memory.partitioned.get(table, 0):
                continue
            until = self.connection.value("last_partition", table) or 0
            if self.stamp >= until:
                lo, until = max(until, self.stamp - self.stamp % span), self.stamp - self.stamp % span + span
                name = f"{table}_{lo}"
                # Attaching does not conflict with readers of the table; creating the partition in place would.
                self.connection.script(
                    f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS);"
                    f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({lo}) TO ({until})"
                )
                self.connection.run("insert_partition", name, table, lo, until)
                self.memory.earliest = max(self.memory.earliest, lo)
            self.memory.partitioned[table] = until

    # Claims

    def waiting(self, tenant: str, n: int) -> list[TaskRow]:
        """Return the first `n` tasks of a tenant that wait, in the order in which they are leased."""
        self._claims -= n
        rows = self._from_lanes("waiting", tenant, self._lanes(tenant).by_priority, n)
        missing = min(n, self.memory.of(tenant).available) - len(rows)
        if missing > 0 and self._look_again(tenant):
            # They were locked when the lanes were read. Now the lock is gone, or they are passed over again.
            taken = {row.n for row in rows}
            found = self._from_lanes("waiting", tenant, self._lanes(tenant).by_priority, n)
            rows += [row for row in found if row.n not in taken][: n - len(rows)]
        return rows

    def waiting_oldest(self, tenant: str, n: int) -> list[TaskRow]:
        """Return the oldest `n` waiting tasks of a tenant; none if `waiting` has returned the oldest anyway."""
        lanes = self._lanes(tenant)
        # A lane that is empty now may have been read for the same claim.
        used = [lane for lane in lanes.by_priority.values() if lane or any(lane is read for read in self._read_from)]
        if len(used) == 1:
            lanes.by_age.begin_at(used[0].first)
            return []
        return self._from_lane("waiting_oldest", (tenant,), lanes.by_age, n)

    def waiting_classic(self, tenant: str) -> TaskRow | None:
        """Return the first task of a tenant that waits and that a classic worker can do."""
        return next(iter(self._from_lanes("waiting_classic", tenant, self._lanes(tenant).classic, 1)), None)

    def leave(self, rows: Sequence[TaskRow]) -> None:
        """Let tasks that were not leased be claimed again."""
        for row in rows:
            self._lanes(row.tenant).add((row.priority, row.interactive), row.n, classic=bool(row.classic))

    def come_back(self, rows: Sequence[TaskRow]) -> None:
        """Report that waiting tasks can be leased from now on."""
        self.roused = True
        for row in rows:
            self.memory.waits(row)

    def held_by(self, worker: str) -> list[TaskRow]:
        """Return the tasks on which a worker has leases, reading forward from the oldest of them."""
        since = self.memory.held_since
        known = self.rows.of_worker(worker)
        rows = self.tasks("held_by", worker, since.get(worker, 0)) if known is None else known
        if len(since) > 10_000:
            since.clear()
        since[worker] = min((row.seq for row in rows), default=self.memory.last_event + 1)
        return rows

    def due_deliveries(self, n: int) -> list[DueDelivery]:
        """Return up to `n` due webhook calls of each tenant, reading forward from those taken before."""
        return self.connection.read("due_deliveries", list[DueDelivery], self.now, n, self.memory.calls_from())

    def all_taken(self) -> None:
        """Report that all due webhook calls were taken."""
        self.memory.delivered_until = self.now

    def quoted(self, letter: str) -> str:
        """Quote a letter for a regular expression."""
        return re.escape(letter)

    def oldest_waiting(self, tenant: str) -> int | None:
        """Return when a tenant's oldest waiting task began to wait."""
        lane = self._lanes(tenant).by_age
        back = self.tasks("live_by_number", lane.take_back(1000))
        waiting = [row for row in back if available(row)]
        for row in waiting:
            lane.add(row.n)
        if waiting:
            return min(waiting, key=lambda row: row.n).changed
        found = self.connection.read("oldest_from", list[tuple[int, int]], tenant, lane.position)
        if not found:
            return None
        lane.position = found[0][0]
        return found[0][1]

    def _lanes(self, tenant: str) -> Lanes:
        """Return the lanes of a tenant, which are searched once."""
        lanes = self.memory.lanes.get(tenant)
        if lanes is None:
            lanes = self.memory.lanes[tenant] = Lanes()
            last = self.memory.last_task
            lanes.by_age.last = last
            for query, found in (("lanes", lanes.by_priority), ("classic_lanes", lanes.classic)):
                for priority, interactive, n in self.connection.read(query, list[tuple[int, int, int]], tenant):
                    found[priority, interactive] = Lane(n, last)
        return lanes

    def _look_again(self, tenant: str) -> bool:
        """Forget the lanes of a tenant, unless this was done lately."""
        if time.monotonic() < self.memory.look_again_at:
            return False
        self.memory.look_again_at = time.monotonic() + _LOOK_AGAIN
        self.memory.lanes.pop(tenant, None)
        return True

    def _from_lanes(self, query: str, tenant: str, lanes: dict[tuple[int, int], Lane], n: int) -> list[TaskRow]:
        rows: list[TaskRow] = []
        for key in sorted(lanes, reverse=True):
            if len(rows) == n:
                break
            if lanes[key]:
                rows += self._from_lane(query, (tenant, *key), lanes[key], n - len(rows))
        return rows

    def _from_lane(self, query: str, where: tuple[object, ...], lane: Lane, n: int) -> list[TaskRow]:
        rows: list[TaskRow] = []
        while len(rows) < n and lane:
            if lane.behind or not lane.ahead:
                self._read_lane(query, where, lane, n - len(rows))
            elif (row := self.rows.now(lane.ahead.popleft())) is not None:
                rows.append(row)
        return rows

    def _read_lane(self, query: str, where: tuple[Any, ...], lane: Lane, n: int) -> None:
        """Read the next `n` tasks of a lane, and as many more as the following calls will take.

        Add tasks that are not written yet from memory. Write postponed leases before reading by age; otherwise the
        oldest tasks would be those that were just leased.
        """
        self._read_from.append(lane)
        oldest = query == "waiting_oldest"
        most = n if oldest else n + max(0, self._claims)
        if lane.behind:
            back, known = lane.take_back(most), self.rows.known
            found = [row for number in back if (row := known.get(number)) is not None]
            if unknown := [number for number in back if number not in known]:
                found = sorted(found + self.tasks("waiting_by_number", unknown), key=lambda row: row.n)
            lane.ahead.extendleft(reversed(found))
            return
        unwritten: list[TaskRow] = []
        if query == "waiting":
            tenant, *key = where
            unwritten = self.rows.waiting(tenant, (key[0], key[1]), lane.position)
        else:
            (self.rows.write if oldest else self.rows.write_waiting)(self.connection)

        def read() -> list[TaskRow]:
            return self.tasks(query, *where, lane.position, most)

        # The server may refuse the priority of an unwritten task.
        found = attributed_to_none(read) if unwritten else read()
        lane.ahead.extend(lane.passed(found, unwritten, most))

    # The end

    def keep_shares(self, tenant: str, shares: Shares) -> None:
        """Put the unused part of a tenant's limits into the ledger."""
        self.memory.share(tenant, shares)
        self.connection.writes += 1

    def set_meta(self, name: str, value: object) -> None:
        """Put a value that belongs to the whole database into the ledger."""
        assert getattr(self.memory, name) == value
        self.connection.writes += 1

    def keep_unheard(self) -> None:
        """Put the expired leases of silent workers into the ledger."""
        self.connection.writes += 1

    def keep_meta(self, name: str, value: str) -> None:
        """Store a value that only maintenance reads."""
        self.connection.run("set_meta", name, value)

    def finish(self) -> None:
        """Write what was postponed, before the commit."""
        changed, inserted = self.rows.take(self.connection)
        self._forget()
        events = self.unwritten_events()
        self._write_workers()
        self.available = self.memory.available
        woken = bool(self.events or self.webhooks or self.roused or self.memory.tells_of_tenants)
        told = f"{self.available} {int(bool(self.events))} {int(self.webhooks)}" if woken else None
        if self.connection.writes or events:
            entry, complete = self.memory.entry()
            self.token = os.urandom(8).hex()
            values = (self.version, self.now, self.token, payload(entry), complete, told, WAITING)
            commit = partial(self.connection.commit, values, changed=changed, inserted=inserted, events=events)
            if changed or inserted:
                attributed_to_none(commit)
            else:
                commit()
            self.memory.entered(self.version)
        elif told is not None:
            self.connection.value("notify", told, WAITING)

    def _write_workers(self) -> None:
        if not isinstance(self.workers, Roster) or not (news := self.workers.news()):
            return
        columns = zip(*((w.worker.id, payload(w.worker), w.first_seen, w.last_seen) for w in news), strict=True)
        writes = self.connection.writes
        self.connection.run("keep_workers", *map(list, columns))
        self.connection.writes = writes  # no other instance needs it, and losing it costs nothing
        self.workers.told(news)


class Snapshot(PostgresTransaction):
    """A transaction that only reads."""

    def __init__(self, connection: Connection, memory: SharedMemory, now: int, spans: dict[str, int]) -> None:
        super().__init__(connection, memory, now, spans, {})
        self._seen: dict[str, WorkerSeen] | None = None

    @property
    def workers(self) -> dict[str, WorkerSeen]:
        """The workers that any instance has seen lately, read on demand."""
        if self._seen is None:
            since = self.now / 1000 - _REMEMBERED
            found = self.connection.read("workers", list[WorkerSeen], since)
            self._seen = {seen.worker.id: seen for seen in found}
        return self._seen

    @workers.setter
    def workers(self, workers: dict[str, WorkerSeen]) -> None:
        pass
