"""Ways to break the product, each of which the simulation must find.

Each function breaks one promise, in a process that runs only once.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from safelight.db import lifecycle
from safelight.db.calls.tasks import creating, leasing
from safelight.db.commit.memory import Memory
from safelight.db.commit.transaction import Transaction
from safelight.db.rows import TaskRow
from safelight.db.sqlite import connection, database, maintenance
from safelight.db.sqlite.connection import Connection
from safelight.db.stalls import Stalls
from safelight.sql import sqlite
from safelight.steady import Ages
from safelight.storage import files
from safelight.storage.directory.shard import Shard
from safelight.storage.partial.files import PartialFiles
from safelight.wire import Blob, State
from safelight.worker.attempts import Attempts


def answer_before_commit() -> None:
    """Answer calls, and commit them a few calls later."""
    commit, begin = Connection.commit, Connection.begin
    begun = Counter[Any]()

    def begin_later(self: Any, **options: Any) -> None:
        begun[self] += 1
        if self._sqlite.in_transaction and begun[self] % 4:
            return
        if self._sqlite.in_transaction:
            commit(self)
        begin(self, **options)

    Connection.begin = begin_later
    Connection.commit = lambda _self: None


def events_apart() -> None:
    """Commit events after the changes that they are about."""
    write, commit = Transaction.write_events, database.Database._commit
    Transaction.finish = functools.partialmethod(_finish_without_events)

    def commit_twice(self: Any, calls: Any) -> Any:
        transaction = commit(self, calls)
        if transaction is not None and transaction.events:
            self._connection.begin()
            write(transaction)
            self._connection.commit()
        return transaction

    database.Database._commit = commit_twice


def _finish_without_events(self: Any) -> None:
    for tenant in self.memory.changed_bytes:
        self.connection.run("keep_bytes", tenant, self.memory.of(tenant).bytes)
    self.memory.changed_bytes.clear()
    self.available = self.memory.available


def no_flush_of_sqlite() -> None:
    """Make SQLite's flushes do nothing."""
    sqlite._PRAGMAS = sqlite._PRAGMAS.replace("FULL", "OFF")
    connection._DURABLE = connection._NOT_DURABLE = ("PRAGMA synchronous = OFF", "PRAGMA wal_autocheckpoint = 4000")


def no_flush_of_blobs() -> None:
    """Do not flush the bytes of blobs."""

    def flush(self: Any, moment: int) -> None:
        file = self._opened()
        os.utime(file.fileno(), ns=(moment, moment))
        file.close()

    files.Incoming.flush = flush


def no_flush_of_directories() -> None:
    """Do not flush the directories of blobs."""
    Shard.flush = lambda self, path, *_directory, **_content: self.unflushed.pop(path, None)


def parts_not_flushed() -> None:
    """Confirm the bytes of a partial upload before they are flushed."""
    append = PartialFiles.open

    def opened(self: Any, *arguments: Any) -> Any:
        made = append(self, *arguments)
        made.close = functools.partial(_close_unflushed, made)
        return made

    PartialFiles.open = opened


def _close_unflushed(append: Any, *, whole: bool) -> None:
    with append._file as file:
        append.write(append.handed())
        append._note(append._before._replace(size=file.tell(), hashed=None))


def no_fence() -> None:
    """Accept an outcome from any earlier lease of the task."""
    TaskRow.held_under = lambda self, reference: self.key == reference.key


def keys_ignored() -> None:
    """Create a new task for each call, and ignore the idempotency key."""
    _change_new(lambda _transaction, tasks: [task.evolve(idempotency_key=None) for task in tasks])


def _change_new(change: Callable[[Any, Any], Any]) -> None:
    """Let db change tasks before it creates them."""
    for name in ("create", "create_each"):
        create = getattr(creating, name)

        def changed(transaction: Any, tasks: Any, policy: Any, create: Any = create) -> Any:
            return create(transaction, change(transaction, tasks), policy)

        setattr(creating, name, changed)


def stalls_charged() -> None:
    """Let leases expire while db itself stalls, and leases that db finds at its start."""
    Stalls.hold = lambda _self, _duration: 0.0
    run = Connection.run
    Connection.run = lambda self, name, *values: 0 if name == "extend_all" else run(self, name, *values)


def returned_is_death() -> None:
    """Charge a task when its worker hands it back."""

    def returned(row: Any) -> Any:
        return lifecycle._died(row, "died", lifecycle._LOST, maintenance.Policy())

    lifecycle.returned = returned


def results_not_stored() -> None:
    """Settle a lease before the results are stored."""
    put = Attempts._put

    async def claim(self: Any, made: Any) -> Any:
        storage = self._storage.put
        self._storage.put = _only_digest
        self._shared.put = _only_digest
        try:
            return await put(self, made)
        finally:
            self._storage.put = storage

    Attempts._put = claim


async def _only_digest(data: bytes) -> Any:
    return Blob(digest=hashlib.sha256(data).hexdigest(), size=len(data))


def keys_forgotten_at_the_end() -> None:
    """Forget idempotency keys of tasks that have finished."""

    def forget(transaction: Any, tasks: Any) -> Any:
        known = creating._known(transaction, tasks)
        ended = {key for key, row in known.items() if row.state is State.FINISHED}
        return [task.evolve(idempotency_key=None) if creating._key(task) in ended else task for task in tasks]

    _change_new(forget)


def numbers_go_on_after_a_rollback() -> None:
    """Give out the numbers of events that were rolled back to nobody."""
    undo = database.Database._undo

    def undone(self: Any) -> None:
        last = self.memory.last_event
        undo(self)
        self.memory.last_event = max(last, self.memory.last_event)

    database.Database._undo = undone


def heartbeats_extend_all() -> None:
    """Extend the leases of all workers when one of them sends a heartbeat."""
    beat = leasing.heartbeat

    def heartbeat(transaction: Any, *sent: Any) -> Any:
        transaction.connection.run("extend_all", transaction.steady)
        return beat(transaction, *sent)

    leasing.heartbeat = heartbeat


def blobs_flushed_later() -> None:
    """Acknowledge a blob shortly before its directory is flushed."""
    flush = Shard.flush

    def later(self: Any, *arguments: Any, **options: Any) -> None:
        asyncio.get_running_loop().call_later(1.0, functools.partial(flush, self, *arguments, **options))

    Shard.flush = later


def grace_forgotten() -> None:
    """Let a collection remove unreferenced blobs, however new they are."""
    before, hour = Ages.before, 3600.0  # blobs stay up to an hour longer than names
    Ages.before = lambda self, name, keep: time.time() + hour if name == "blobs" else before(self, name, keep)


def restored_untold() -> None:
    """Do not inform readers that an older copy of the database was restored."""
    Memory.restored = lambda _self, _after, _known: False


MUTATIONS: dict[str, Callable[[], None]] = {
    made.__name__: made
    for made in (
        answer_before_commit, events_apart, no_flush_of_sqlite, no_flush_of_blobs, no_flush_of_directories,
        parts_not_flushed, no_fence, keys_ignored, stalls_charged, returned_is_death, results_not_stored,
        keys_forgotten_at_the_end, numbers_go_on_after_a_rollback, heartbeats_extend_all, blobs_flushed_later,
        grace_forgotten, restored_untold,
    )
}  # fmt: skip
