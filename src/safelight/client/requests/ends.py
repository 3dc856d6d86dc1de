"""Wait until tasks have ended, for any number of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from safelight.wire import ENDED, EventPage, Task

_APART = 16
"""The most tasks that are waited for by a request each; a session has 100 connections for all requests."""
_POLL = 30.0


class Source(Protocol):
    """What a client of the master can say of tasks and their changes."""

    async def task(self, id: str) -> Task:
        """Return a task. Raises NOT_FOUND."""
        ...

    async def changes(self, after: int, *, wait: float, task: str | None = None, known: str = "") -> EventPage:
        """Return the changes after a number, of all tasks or of one."""
        ...


class Ends:
    """Waits for the ends of tasks.

    A few are followed one by one, so that the changes of other tasks cost nothing. All others share one request:
    otherwise they would take all connections, and what the program asks besides, a cancellation too, would wait for
    minutes.
    """

    def __init__(self, source: Source) -> None:
        """Read tasks and changes from a client."""
        self._source = source
        self._apart = 0
        self._changed: dict[str, set[asyncio.Event]] = {}
        self._following: asyncio.Task[None] | None = None

    async def of(self, id: str) -> Task:
        """Return a task once it has ended."""
        if self._apart == _APART:
            return await self._together(id)
        self._apart += 1
        try:
            return await self._alone(id)
        finally:
            self._apart -= 1

    async def _alone(self, id: str) -> Task:
        """Follow one task.

        It is read again after each page, even one without events: the database may have been restored between the last
        read and the first page, and the page would not show that.
        """
        known = ""
        task = await self._source.task(id)
        while task.state not in ENDED:
            page = await self._source.changes(task.seq, wait=_POLL, task=task.id, known=known)
            known = page.db
            task = await self._source.task(id)
        return task

    async def _together(self, id: str) -> Task:
        with self._registered(id) as changed:
            while True:
                following = self._following
                changed.clear()
                task = await self._source.task(id)
                if task.state in ENDED:
                    return task
                if self._following is None or self._following.done():
                    self._following = asyncio.create_task(self._follow(task.seq))
                elif self._following is not following:
                    continue  # it may have begun after the end of this task, which had been read before that
                await changed.wait()
                if self._following.done():
                    await self._following

    @contextmanager
    def _registered(self, id: str) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._changed.setdefault(id, set()).add(changed)
        try:
            yield changed
        finally:
            self._changed[id].remove(changed)
            if not self._changed[id]:
                del self._changed[id]
            if not self._changed and self._following is not None:
                self._following.cancel()
                self._following = None

    async def _follow(self, after: int) -> None:
        """Wake those whose tasks have ended, and everybody if changes may have been missed or no more can be read."""
        known = ""
        try:
            while True:
                page = await self._source.changes(after, wait=_POLL, known=known)
                if page.restored or page.oldest > after or not known:
                    self._wake(*self._changed)
                after, known = page.last, page.db
                self._wake(*{event.task for event in page.events if event.state in ENDED or event.kind == "deleted"})
        finally:
            self._wake(*self._changed)

    def _wake(self, *tasks: str) -> None:
        for task in tasks:
            for changed in self._changed.get(task, ()):
                changed.set()
