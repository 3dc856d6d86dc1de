"""The sessions with the server, and the calls that wait for one.

One session writes: all waiting calls run in one transaction, are committed together and then answered. A call that
raises before it has written does not affect the others; if one fails later, the others run again without it. So a call
may run more than once, and must change only the transaction. The other sessions read, each from its own snapshot, so
that reads never wait for a commit.

A lost session is opened again, at the current primary, and the calls run again. If the answer to a commit was lost, the
ledger tells whether the commit happened. Callers only notice a delay, unless it exceeds the time for which they wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from safelight.db.commit.call import MAX_GROUP, Call, answer, execute, follow_up
from safelight.db.commit.transaction import Reads, Transaction
from safelight.db.postgres import ledger, rows
from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.sessions.calls import Calls
from safelight.db.postgres.sessions.connection import Connection
from safelight.db.postgres.sessions.failures import Concerns, Postponed, concerns, told
from safelight.db.postgres.sessions.session import Attempt, Session
from safelight.db.postgres.sessions.waiting import run, wait
from safelight.db.postgres.transaction import (
    INSTANCES,
    MAINTENANCE,
    WAITING,
    WRITING,
    PostgresTransaction,
    Roster,
    Snapshot,
    lock,
)
from safelight.db.stalls import Stalls
from safelight.errors import Error
from safelight.steady import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

_READ_TOGETHER = 20
_BEGIN_WRITING = f"BEGIN; SELECT pg_advisory_xact_lock({lock(WRITING)})"
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE ended, event IN ACCESS SHARE MODE"
"""The locks come before the snapshot, in the order of `Maintenance._drop`, so that no partition in the snapshot is
dropped while it is read.
"""


SUSPENDED, _LOOK_AFTER = 30.0, 5.0
"""Seconds without a transaction after which the instance that does the maintenance counts as suspended (it has one
every second), and seconds between two looks at it.
"""


class Database:
    """One session that writes and several that read. `committed` is called after each commit, with its calls."""

    def __init__(
        self,
        address: Address,
        *,
        readers: int,
        spans: dict[str, int],
        clock: Clock | None,
        committed: Callable[[PostgresTransaction, int], None],
        entered: Callable[[], None],
    ) -> None:
        """Call `entered` when the writing session was opened, since notifications may have been missed."""
        self._spans = spans
        self._clock = clock
        self._committed = committed
        self._entered = entered
        self._roster = Roster()
        self.stalls = Stalls()
        self._writes, self._reads = Calls(), Calls()
        self._unknown: PostgresTransaction | None = None
        """A transaction whose calls wait although it may be committed: its commit was not answered."""
        self._failing_since: float | None = None
        self.maintains = False
        """Whether this instance does the maintenance."""
        self._suspects_at = 0.0
        """When to look whether the instance that does it is suspended."""
        self.listening = False
        """Whether the other instances notify this one."""
        self.heard = False
        """Whether they do so in the current session."""
        self._writer = Session(address, self._enter)
        self._readers = [Session(address) for _ in range(readers)]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the writing session. Raises UNAVAILABLE if the server cannot be reached."""
        await self._writer.open()
        self._tasks = [
            asyncio.create_task(self._serve(self._writes, MAX_GROUP, self._write), name="database writer"),
            *(
                asyncio.create_task(self._serve(self._reads, _READ_TOGETHER, partial(self._read, session)))
                for session in self._readers
            ),
        ]

    def submit(
        self,
        work: Callable[[Transaction], T],
        *,
        lost: Callable[[T], None] | None = None,
        reads: Reads | None = None,
    ) -> asyncio.Future[T]:
        """Run a call in one of the next commits. If its caller has left by then, `lost` receives the result."""
        call = Call(work, lost, reads=reads)
        self._writes.put(call)
        return call.future

    def look(self, work: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Run a call that only reads."""
        call = Call(work)
        self._reads.put(call)
        return call.future

    async def close(self) -> None:
        """Run the waiting calls, then end the sessions."""
        self._writes.close()
        self._reads.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in (self._writer, *self._readers):
            await session.close()

    def _enter(self, session: Session) -> None:
        """Register as an instance. The only instance extends every lease, since workers could not while db was away.

        An instance that starts beside others extends nothing. Its locks show its presence, and end with the session.
        """
        connection = session.connection
        assert connection is not None
        self.maintains = self.heard = False
        wait(connection.server.execute("SET lock_timeout = '15s'"))
        alone = wait(connection.server.fetchval(f"SELECT pg_try_advisory_lock({lock(INSTANCES)})"))
        if alone:
            connection.script(_BEGIN_WRITING)
            now = ledger.refresh(connection, ledger.load(connection))
            connection.run("extend_all", now if self._clock is None else int(self._clock.steady() * 1000))
            connection.script("COMMIT")
        connection.script(f"SELECT pg_advisory_lock_shared({lock(INSTANCES)})")
        if alone:
            connection.script(f"SELECT pg_advisory_unlock({lock(INSTANCES)})")
        if self.listening:
            self._hear(connection)
        asyncio.get_running_loop().call_soon(self._entered)

    def maintain(self, connection: Connection) -> bool:
        """Return whether this instance does the maintenance; take it over if no other does.

        The kernel of a suspended process keeps its session alive, and with it the lock, so another instance ends it.
        """
        if not self.maintains:
            taken = wait(connection.server.fetchval(f"SELECT pg_try_advisory_lock({lock(MAINTENANCE)})"))
            self.maintains = bool(taken)
            if not taken and (now := time.monotonic()) >= self._suspects_at:
                self._suspects_at = now + min(_LOOK_AFTER, SUSPENDED)
                if connection.value("end_suspended", MAINTENANCE, SUSPENDED):
                    log.warning("The instance that did the maintenance is suspended; its session was ended")
        return self.maintains

    def hear(self, transaction: Transaction) -> None:
        """Have the other instances notify this one from their next commit on."""
        assert isinstance(transaction, PostgresTransaction)
        self._hear(transaction.connection)

    def unhear(self, transaction: Transaction) -> None:
        """Stop the other instances from notifying this one."""
        assert isinstance(transaction, PostgresTransaction)
        self.listening = False
        if self.heard:
            transaction.connection.script(f"SELECT pg_advisory_unlock_shared({lock(WAITING)})")
            self.heard = False

    def _hear(self, connection: Connection) -> None:
        self.listening = True
        if not self.heard:
            connection.script(f"SELECT pg_advisory_lock_shared({lock(WAITING)})")
            self.heard = True

    async def _serve(self, calls: Calls, most: int, run_them: Callable[[list[Call]], Any]) -> None:
        while taken := await calls.take(most):
            try:
                await run_them(taken)
            except Exception as error:  # the task must continue after any failure
                log.exception("The database failed")
                for call in taken:
                    call.error = told(error)
            answer(taken)

    async def _write(self, calls: list[Call]) -> None:
        """Run calls in one transaction and commit it; retry if the session or the commit fails."""
        runnable, attempt, began, postpone = list(calls), Attempt(self._failing_since), time.monotonic(), True
        while runnable:
            try:
                connection = await self._writer.open()
                done = await run(partial(self._transact, runnable, connection, postpone=postpone))
            except Postponed:
                postpone = False
                continue
            except Exception as error:  # noqa: BLE001 - judged by what it concerns
                self.stalls.failed(began)
                if not await attempt.again(error, self._writer):
                    self._failing_since, self._unknown = attempt.since, None
                    for call in runnable:
                        call.error = told(error)
                    return
                continue
            self._failing_since = None
            if isinstance(done, PostgresTransaction):
                self.stalls.committed(began)
                follow_up(self._committed, done, len(calls))
                return
            runnable.remove(done)

    def _transact(self, calls: list[Call], connection: Connection, *, postpone: bool) -> PostgresTransaction | Call:
        """Run calls and commit them. If a call fails, commit nothing and return that call."""
        connection.script(_BEGIN_WRITING)
        try:
            if (earlier := self._committed_earlier(connection)) is not None:
                connection.script("ROLLBACK")
                self._unknown = None
                return earlier
            reads = [call.reads for call in calls if call.reads is not None]
            ahead = reads if postpone and len(reads) == len(calls) else []
            transaction = self._transaction(connection, self._writer, self._roster, postpone=postpone, ahead=ahead)
            failed = _run_all(calls, transaction)
            if failed is None:
                transaction.finish()
                self._commit(connection, transaction)
                return transaction
        except Exception as error:
            if concerns(error) is not Concerns.SESSION:
                self._roll_back(connection, self._writer)
            raise
        self._roll_back(connection, self._writer)
        return failed

    def _committed_earlier(self, connection: Connection) -> PostgresTransaction | None:
        """Return the transaction whose commit got no answer, if it has happened. Until that is known, ask again."""
        unknown = self._unknown
        if unknown is not None and connection.value("committed", unknown.version, unknown.token) is None:
            self._unknown = unknown = None
        return unknown

    def _commit(self, connection: Connection, transaction: PostgresTransaction) -> None:
        self._unknown = transaction if transaction.token else None
        try:
            connection.script("COMMIT")
        except Exception as error:
            if concerns(error) is not Concerns.SESSION:  # the server has refused it
                self._unknown = None
            raise
        self._unknown = None

    def _transaction(
        self,
        connection: Connection,
        session: Session,
        workers: Roster | None,
        *,
        postpone: bool = True,
        ahead: Sequence[Reads] = (),
    ) -> PostgresTransaction:
        """Read what other instances have committed, and what calls will read `ahead`; return the new transaction."""
        if session.memory is None:
            session.memory = ledger.load(connection)
        wanted, found = rows.wanted(session.memory, ahead), None
        if wanted is None:
            now = ledger.refresh(connection, session.memory)
        else:
            now, found = rows.refresh_and_read_ahead(connection, session.memory, wanted)
        if now is None:
            session.memory = ledger.load(connection)
            now = ledger.refresh(connection, session.memory)
            assert now is not None
        if self._clock is not None:
            now = int(self._clock.steady() * 1000)
        if workers is None:
            return Snapshot(connection, session.memory, now, self._spans)
        transaction = PostgresTransaction(connection, session.memory, now, self._spans, workers, postpone=postpone)
        if session.memory.new_run:
            transaction.connection.run("set_meta", "runs", ledger.payload(session.memory.runs))
            session.memory.new_run = False
        if wanted is not None and found is not None:
            transaction.know(wanted, found)
        return transaction

    @staticmethod
    def _roll_back(connection: Connection, session: Session) -> None:
        session.memory = None
        connection.script("ROLLBACK")

    async def _read(self, session: Session, calls: list[Call]) -> None:
        """Run calls that only read, in one snapshot."""
        pending, attempt = list(calls), Attempt(self._failing_since)
        while pending:
            try:
                connection = await session.open()
                await run(partial(self._look_at, pending, connection, session))
            except Exception as error:  # noqa: BLE001 - judged by what it concerns
                if not await attempt.again(error, session):
                    for call in pending:
                        call.error = told(error)
                    return

    def _look_at(self, pending: list[Call], connection: Connection, session: Session) -> None:
        """Run calls, and remove those that are done from `pending`."""
        connection.script(_BEGIN_READING)
        transaction = self._transaction(connection, session, None)
        for call in list(pending):
            try:
                call.result = call.work(transaction)
            except Exception as error:
                whom = None if isinstance(error, Error) else concerns(error)
                if whom not in {None, Concerns.CALL}:
                    raise
                call.error = error if whom is None else told(error)
                if whom is not None:
                    pending.remove(call)
                    break
            pending.remove(call)
        connection.script("ROLLBACK")


def _run_all(calls: list[Call], transaction: PostgresTransaction) -> Call | None:
    """Run calls that arrived at the same time, so that they share statements: claims come last, after read-ahead.

    Return the failed call, as `execute` does.
    """
    others, known = [call for call in calls if call.reads is None], [call for call in calls if call.reads is not None]
    failed = execute(others, transaction, _of_one_call)
    if failed is None and known:
        transaction.read_ahead([call.reads for call in known if call.reads is not None])
        known.sort(key=lambda call: call.reads is not None and call.reads.claims > 0)
        failed = execute(known, transaction, _of_one_call)
    return failed


def _of_one_call(error: Exception) -> Error | None:
    """Classify a failure for `execute`: either the server refuses one call, or the commit fails."""
    if isinstance(error, Postponed):
        raise error
    whom = concerns(error)
    if whom is None:
        return None
    if whom is not Concerns.CALL:
        raise error
    log.warning("A call failed in the database: %s", error)
    return told(error)
