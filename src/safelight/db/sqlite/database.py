"""The SQLite connection on a thread of its own, with many calls per commit.

A call is a function of the transaction. All waiting calls run one after another in one transaction, are committed
together with one flush to disk, and are then answered; there is no flush if none of them needs to be durable. A call
that raises before it has written anything, because it was refused, does not affect the others. If a call fails after it
has written, the transaction is rolled back and the others run again without it. So a call may run more than once, and
must change only the transaction.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from safelight.db.commit.call import MAX_GROUP, Call, answer, execute, follow_up
from safelight.db.commit.transaction import Transaction
from safelight.db.sqlite import memory
from safelight.db.sqlite.connection import Connection
from safelight.db.stalls import Stalls
from safelight.errors import Code, Error
from safelight.logs import Sparing
from safelight.sql.sqlite import wrapped
from safelight.steady import Clock
from safelight.wire import WorkerSeen

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSE = 0.1
"""Seconds after which the thread tries again to hand over answers, if there was no memory for that."""

_OF_ONE_CALL = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH}
"""Result codes of SQLite that affect one call; all others affect the file or the disk."""


class Database:
    """The thread. After each commit it calls `committed` on the event loop: the transaction and the number of calls."""

    def __init__(self, path: Path, *, clock: Clock, committed: Callable[[Transaction, int], None]) -> None:
        self._connection = Connection(path)
        self._path = path
        self._clock = clock
        self.stalls = Stalls()
        self._committed = committed
        self._workers: dict[str, WorkerSeen] = {}
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._copies: deque[tuple[Path, asyncio.Future[None]]] = deque()
        self._closed = False
        self._ending = False
        self._broken = False
        self._tell_full = Sparing(log, logging.ERROR)
        self.memory = memory.read(self._connection)
        self._thread = threading.Thread(target=self._run, name="database", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[Transaction], T], *, lost: Callable[[T], None] | None = None, durable: bool = True
    ) -> asyncio.Future[T]:
        """Run a call in one of the next commits. If its caller has left by then, `lost` receives the result.

        A commit with a `durable` call flushes the disk, including all earlier commits.
        """
        call = Call(work, lost, durable=durable)
        if self._closed:
            call.error = Error(Code.UNAVAILABLE, "The database is stopping.", retry_after=1)
            call.answer()
        else:
            self._queue.put(call)
        return call.future

    def copy(self, target: Path) -> asyncio.Future[None]:
        """Copy the file to `target` while calls continue. The copy has the state of one moment after this call."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._closed:
            future.set_exception(Error(Code.UNAVAILABLE, "The database is stopping."))
        else:
            self._copies.append((target, future))
            self._queue.put(Call(lambda _: None))  # wakes the thread
        return future

    async def close(self) -> None:
        """Commit the waiting calls, then close the file."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # let the last answers be delivered

    def _run(self) -> None:
        while not self._ending:
            self._serve()
            while self._copies and not self._ending:
                self._copy(*self._copies.popleft())
        for _, future in self._copies:
            self._hand_over(_settle, future, Error(Code.UNAVAILABLE, "The database is stopping."))
        self._connection.close()

    def _serve(self) -> None:
        """Commit the waiting calls, or else wait for the next one. The thread must continue after any failure."""
        calls: list[Call] = []
        transaction = None
        try:
            self._take(calls)
            if calls:
                transaction = self._commit(calls)
        except Exception as error:  # noqa: BLE001 - a failed commit could not be handled, for lack of memory
            self._broken = True
            for call in calls:
                call.error = error
        if calls:
            self._hand_over(self._answer, calls, transaction)

    def _take(self, calls: list[Call]) -> None:
        """Add the waiting calls; wait if there are none."""
        first = True
        while first or (len(calls) < MAX_GROUP and not self._queue.empty()):
            call, first = self._queue.get(), False
            if call is None:
                self._ending = True
            else:
                calls.append(call)

    def _hand_over(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function on the event loop."""
        while True:
            try:
                self._loop.call_soon_threadsafe(function, *arguments)
            except RuntimeError:  # the loop is closed, and nobody waits
                self._ending = True
            except Exception:  # noqa: BLE001 - there is no memory now, and the callers wait
                time.sleep(_PAUSE)
                continue
            return

    def _copy(self, target: Path, future: asyncio.Future[None]) -> None:
        error: Error | None = None
        try:
            self._connection.copy(target, self._serve_between)
        except Error as reason:
            error = reason
        except (sqlite3.Error, OSError) as reason:
            error = wrapped(reason, "the database")
        except Exception as reason:  # the thread must continue after any failure
            log.exception("The database cannot be copied")
            error = wrapped(reason, "the database")
        self._hand_over(_settle, future, error)

    def _serve_between(self) -> None:
        while not self._queue.empty() and not self._ending:
            self._serve()
            if self._broken:
                raise Error(Code.UNAVAILABLE, "The disk of the database failed during the copy; try again.")
        if self._ending:
            raise Error(Code.UNAVAILABLE, "The database is stopping.")

    def _commit(self, calls: list[Call]) -> Transaction | None:
        runnable = list(calls)
        began = time.monotonic()
        while runnable:
            try:
                self._mend()
                self._connection.begin(durable=any(call.durable for call in runnable))
                transaction = self._transaction()
                failed = execute(runnable, transaction, _of_one_call)
                if failed is None:
                    transaction.finish()
                    self._connection.commit()
                    self.stalls.committed(began)
                    return transaction
                self._undo()
            except Exception as error:  # noqa: BLE001 - the thread must continue after any failure
                reason = wrapped(error, "the database")
                self._tell(reason, error)
                self.stalls.failed(began)
                if isinstance(error, sqlite3.Error) and reason.code is not Code.STORAGE_FULL:  # a flush may have failed
                    self._connection.log.doubt()
                self._fail(runnable, reason)
                return None
            runnable.remove(failed)
        return None

    def _transaction(self) -> Transaction:
        now, steady = int(self._clock.wall() * 1000), int(self._clock.steady() * 1000)
        return Transaction(self._connection, self.memory, self._workers, now, steady=steady)

    def _undo(self) -> None:
        self._connection.rollback()
        self.memory = memory.read(self._connection)

    def _tell(self, reason: Error, error: Exception) -> None:
        """Log why a commit failed; that the disk is full sparingly, also if smaller commits succeed in between."""
        if reason.code is Code.STORAGE_FULL:
            self._tell_full("The database cannot commit: %s", reason.detail)
        else:
            log.error("The database cannot commit", exc_info=error)

    def _fail(self, calls: list[Call], error: Error) -> None:
        for call in calls:
            call.error = error
        try:
            self._undo()
        except Exception:  # the disk may fail again
            self._broken = True
            log.exception("The database cannot roll back; it is opened again")

    def _mend(self) -> None:
        """Open the file again after a failed rollback, since nothing in memory can be relied on then.

        The same is done if its write-ahead log was deleted: closing the file writes everything into it.
        """
        if not self._broken and not self._connection.place.has_lost_its_log():
            return
        self._connection.place.check()  # a file that is gone would be made anew
        log.warning("The database is opened again")
        if not self._broken:
            self._connection.log.doubt()
            self._connection.log.renew()  # closing the file would not say if that failed
        with suppress(sqlite3.Error):
            self._connection.close()
        self._connection = Connection(self._path)
        self.memory = memory.read(self._connection)
        self._broken = False

    def _answer(self, calls: list[Call], transaction: Transaction | None) -> None:
        if transaction is not None:
            follow_up(self._committed, transaction, len(calls))
        answer(calls)


def _settle(future: asyncio.Future[None], error: Error | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _of_one_call(error: Exception) -> Error | None:
    """Classify a failure for `execute`: either SQLite refuses one call, or the commit fails."""
    if not isinstance(error, sqlite3.Error):
        return None
    if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF not in _OF_ONE_CALL:
        raise error
    log.warning("A call failed in the database", exc_info=error)
    return wrapped(error, "the database")
