"""Calls that wait for a transaction, and how the calls of one commit are run, for every backend."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from safelight.db.commit.transaction import Reads, Transaction
from safelight.errors import Error

log = logging.getLogger(__name__)

MAX_GROUP = 500
"""The most calls in one commit, so that the first of them does not wait too long."""


class Call:
    """A function of the transaction, and its result."""

    def __init__(
        self,
        work: Callable[[Transaction], Any],
        lost: Callable[[Any], None] | None = None,
        *,
        durable: bool = True,
        reads: Reads | None = None,
    ) -> None:
        self.work = work
        self.reads = reads
        """The data that it is known to read, which a backend can read for all calls of a commit at once."""
        self.durable = durable
        """Whether its writes must survive a power cut."""
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.lost = lost
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Give the result to the caller, or to `lost` if the caller was cancelled."""
        if self.future.cancelled():
            if self.lost is not None and self.error is None:
                self.lost(self.result)
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def answer(calls: Iterable[Call]) -> None:
    """Answer calls; a failure with one of them affects no other."""
    for call in calls:
        follow_up(call.answer)


def follow_up(function: Callable[..., None], *arguments: object) -> None:
    """Do what follows a commit. Only log a failure, such as a lack of memory: callers must get their answers."""
    try:
        function(*arguments)
    except Exception:
        with suppress(Exception):
            log.exception("Unexpected error after a commit")


def execute(
    calls: Iterable[Call], transaction: Transaction, of_one_call: Callable[[Exception], Error | None]
) -> Call | None:
    """Run calls until one fails after it has written, or in the database. Return that call, or None.

    `of_one_call` classifies a failure: it returns the error for the caller if the database refused this call, None if
    the database has not failed, and raises an error that affects all calls.
    """
    for call in calls:
        call.result, call.error = None, None
        before = transaction.mark()
        try:
            call.result = call.work(transaction)
        except Exception as error:  # noqa: BLE001 - judged, and given to the caller
            refused = None if isinstance(error, Error) else of_one_call(error)
            call.error = refused or error
            if refused is not None or transaction.mark() != before:
                return call
    return None
