"""Ways to break a served system, and the messages of the history checker for each.

`python -m kills.mutated NAME MODULE ARGUMENTS` breaks the product in one of these ways and runs a program of it, in a
new process.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from safelight.db import lifecycle
from safelight.db.calls.tasks import leasing
from safelight.db.rows import TaskRow
from safelight.db.sqlite import database
from safelight.db.sqlite.connection import Connection
from safelight.master.live.feed import Feed
from safelight.master.webhook.webhooks import Webhooks
from safelight.wire import Finished, State, WebhookAnswer
from simulation.mutations import events_apart as events_after
from simulation.mutations import keys_ignored, no_fence, returned_is_death


def answer_before_commit() -> None:
    """Answer calls at once, and commit many of them together later."""
    commit, begin, calls = Connection.commit, Connection.begin, itertools.count(1)

    def begin_later(self: Any, **options: Any) -> None:
        if self._sqlite.in_transaction and next(calls) % 30 == 0:
            commit(self)
        if not self._sqlite.in_transaction:
            begin(self, **options)

    Connection.begin = begin_later
    Connection.commit = lambda _self: None


def events_apart() -> None:
    """Commit events shortly after the changes that they describe."""
    events_after()
    commit = database.Database._commit

    def slowly(self: Any, calls: Any) -> Any:
        begin = self._connection.begin
        begun = itertools.count()

        def pausing(**options: Any) -> None:
            if next(begun):
                time.sleep(0.3)
            begin(**options)

        self._connection.begin = pausing
        try:
            return commit(self, calls)
        finally:
            del self._connection.begin

    database.Database._commit = slowly


def settled_twice() -> None:
    """Treat a repeated outcome as a new one."""
    held = TaskRow.held_under

    def held_or_settled(self: Any, reference: Any) -> bool:
        return held(self, reference) or (self.key == reference.key and self.settled == reference.token)

    TaskRow.held_under = held_or_settled


def leased_twice() -> None:
    """Leave every third task in the queue when it is leased."""
    leased, calls = lifecycle.leased, itertools.count(1)

    def and_left(*row: Any, **lease: Any) -> Any:
        change = leased(*row, **lease)
        if next(calls) % 3:
            return change
        return lifecycle.Change(kind="leased", old=change.old, new=change.new.evolve(state=State.WAITING))

    lifecycle.leased = and_left


def results_mixed() -> None:
    """Publish the result of another task for every third task."""
    settle, calls, last = leasing.settle, itertools.count(1), list[Any]()

    def mixed(transaction: Any, outcomes: Any, policy: Any) -> Any:
        given = []
        for outcome in outcomes:
            if isinstance(outcome, Finished):
                outputs = outcome.outputs
                given.append(outcome.evolve(outputs=last[-1]) if last and next(calls) % 3 == 0 else outcome)
                last.append(outputs)
            else:
                given.append(outcome)
        return settle(transaction, given, policy)

    leasing.settle = mixed


def event_skipped() -> None:
    """Omit every fifth event for all readers."""
    read = Feed.read

    async def some(self: Any, *after: Any, **options: Any) -> Any:
        page, frames = await read(self, *after, **options)
        if options.get("task") is not None:
            return page, frames
        kept = [n for n, event in enumerate(page.events) if event.seq % 5]
        return page.evolve(events=[page.events[n] for n in kept]), [frames[n] for n in kept]

    Feed.read = some


def stream_skips() -> None:
    """Omit every fifth event only in the stream."""
    read = Feed.read

    async def some(self: Any, *after: Any, **options: Any) -> Any:
        page, frames = await read(self, *after, **options)
        return page, [frame for event, frame in zip(page.events, frames, strict=True) if event.seq % 5]

    Feed.read = some


def webhook_lost() -> None:
    """Count every third webhook call as made without making it."""
    call, calls = Webhooks._call, itertools.count(1)

    async def some(self: Any, http: Any, delivery: Any) -> Any:
        if next(calls) % 3 == 0:
            return "delivered", "", WebhookAnswer(status=204)
        return await call(self, http, delivery)

    Webhooks._call = some


_EVENT_LOST = "0 events that say it was created|finished 0 times|while None held|event [0-9]+ is missing|numbers repeat"

MUTATIONS: dict[str, tuple[Callable[[], None], str, int]] = {
    "answer_before_commit": (answer_before_commit, "was acknowledged and is gone|was taken back", 1),
    "events_apart": (events_apart, _EVENT_LOST, 4),
    "no_fence": (no_fence, "held the lease|published [0-9] times|finished [02-9] times|leased after", 0),
    "settled_twice": (settled_twice, "published [0-9] times|finished [02-9] times", 0),
    "leased_twice": (leased_twice, "began while [0-9]+ held the lease", 0),
    "results_mixed": (results_mixed, "shows something else", 0),
    "event_skipped": (event_skipped, "event [0-9]+ is missing", 0),
    "stream_skips": (stream_skips, "stream has shown other events", 0),
    "webhook_lost": (webhook_lost, "its webhook was called with \\[\\]", 0),
    "keys_ignored": (keys_ignored, "became several tasks", 0),
    "returned_is_death": (returned_is_death, "is charged with [0-9]+ deaths", 0),
}
"""The mutation, the checker's message, and how many kills of the services it needs."""
