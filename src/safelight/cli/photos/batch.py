"""One run of `safelight upload`: upload many photos and record the outcome of each."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safelight.cli.photos.paths import Photo
from safelight.cli.photos.progress import Progress
from safelight.cli.photos.results import ResultDirectory
from safelight.cli.printing import held_up, path_text
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.files.opening import opened
from safelight.wire import ENDED, State, Task

_CHUNK = 1 << 18
_PATIENCE = 5.0
"""Seconds without a photo that is over, after which the command says what holds them up."""


@dataclass(eq=False)
class Entry:
    """One photo of the batch. `problem` says why it failed."""

    photo: Photo
    task: Task | None = None
    problem: str = ""
    saved: list[Path] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Its task may have ended or been deleted."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether this run is done with the photo."""

    @property
    def finished(self) -> bool:
        """Whether its task has finished."""
        return self.task is not None and self.task.state is State.FINISHED

    @property
    def good(self) -> bool:
        """Whether nothing has failed so far."""
        return self.task is not None and not self.problem


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to do with the photos of a batch. `recipe` is a name or a document; `directory` receives the results."""

    recipe: str | Mapping[str, Any]
    priority: int = 0
    directory: ResultDirectory | None = None
    waits: bool = False


class Batch:
    """Uploads photos, some at a time, each as a task of one batch; follows the tasks by the events of the master."""

    def __init__(self, client: Client, photos: Sequence[Photo], options: Options, progress: Progress) -> None:
        self.name = secrets.token_hex(4)
        self.waits = options.waits
        self.entries = [Entry(photo) for photo in photos]
        self._client = client
        self._options = options
        self._progress = progress
        self._by_task: dict[str, Entry] = {}
        self._ended: set[str] = set()
        self._missed = 0
        """The number of the last change before which some may have been missed."""
        self._gone: Error | None = None

    async def run(self, *, at_once: int) -> None:
        """Upload everything. With `waits`, return when the last task has ended.

        The failure of one photo is recorded in its entry. Raises only errors that affect all photos: a wrong recipe, no
        master.
        """
        match self._options.recipe:
            case str() as name:
                await self._client.recipe(name)
            case Mapping() as document:
                await self._client.check_recipe(document)
        after = (await self._client.summary()).seq if self.waits else 0  # a key that only uploads may not ask
        queue = iter(self.entries)
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(each) for each in (self._follow(after), self._explain())] if self.waits else []
            uploads = [group.create_task(self._upload_from(queue, group)) for _ in range(at_once)]
            await asyncio.wait(uploads)
            await asyncio.gather(*(entry.over.wait() for entry in self.entries))
            for each in beside:
                each.cancel()

    def report(self) -> dict[str, Any]:
        """Return the outcome of each photo, as JSON values or records."""
        return {
            "batch": self.name,
            "photos": [
                {
                    "photo": path_text(entry.photo.path),
                    "task": entry.task,
                    "problem": entry.problem or None,
                    "saved": [path_text(path) for path in entry.saved],
                }
                for entry in self.entries
            ],
        }

    async def _upload_from(self, queue: Iterator[Entry], group: asyncio.TaskGroup) -> None:
        for entry in queue:
            if self._gone is None:
                await self._upload(entry)
            else:
                entry.problem = f"not sent: {self._gone.detail}"
            if entry.task is not None and self.waits:
                group.create_task(self._result(entry))
            else:
                self._over(entry)

    async def _upload(self, entry: Entry) -> None:
        sent = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal sent
            self._progress.sent(-sent)  # a photo that is sent again counts once
            sent = 0
            async with opened(lambda: entry.photo.path.open("rb")) as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    yield chunk
                    sent += len(chunk)
                    self._progress.sent(len(chunk))

        try:
            # An unreadable file must not look like a broken connection.
            await asyncio.to_thread(lambda: entry.photo.path.open("rb").close())
            entry.task = await self._client.upload(
                chunks,
                recipe=self._options.recipe,
                filename=entry.photo.path.name,
                priority=self._options.priority,
                batch=self.name,
            )
        except OSError as error:
            entry.problem = f"The file cannot be read: {error.strerror}."
        except Error as error:
            entry.problem = error.detail
            if error.code in (Code.UNAVAILABLE, Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.STORAGE_FULL):
                self._gone = error
        else:
            self._by_task[entry.task.id] = entry
            task = entry.task
            if task.state in ENDED or task.id in self._ended or task.seq <= self._missed:
                entry.changed.set()

    async def _follow(self, after: int) -> None:
        """Read the events to learn which tasks of this batch have ended or been deleted.

        Every task is read again after events that may have been missed: retention has removed them, or an older copy of
        the database was restored, which the first page cannot show.
        """
        known = ""
        try:
            while True:
                page = await self._client.changes(after, wait=30.0, known=known)
                if page.restored or page.oldest > after or not known:
                    self._missed = page.last
                    self._look_again()
                after, known = page.last, page.db
                for event in page.events:
                    if event.batch == self.name and (event.state in ENDED or event.kind == "deleted"):
                        self._ended.add(event.task)
                        if event.task in self._by_task:
                            self._by_task[event.task].changed.set()
        except Error as error:
            self._gone = error
            self._look_again()

    async def _explain(self) -> None:
        """Say what holds the photos up, if it is known and none of them is over after a while."""
        await asyncio.sleep(_PATIENCE)
        if any(entry.over.is_set() for entry in self.entries):
            return
        recipe = self._options.recipe
        with suppress(Error):
            if why := held_up(await self._client.summary(), recipe if isinstance(recipe, str) else ""):
                self._progress.note(why)

    def _look_again(self) -> None:
        for entry in self.entries:
            entry.changed.set()

    async def _result(self, entry: Entry) -> None:
        assert entry.task is not None
        try:
            entry.task = await self._end_of(entry, entry.task.id)
            if entry.task.state is not State.FINISHED:
                failure = entry.task.failure
                entry.problem = failure.detail if failure else f"The task is {entry.task.state.name.lower()}."
            elif self._options.directory is not None:
                saved = await self._options.directory.save(self._client, entry.task, within=entry.photo.within)
                entry.saved, entry.problem = saved.paths, saved.problem.detail if saved.problem else ""
                for path in entry.saved:
                    self._progress.saved(path)
        except Error as error:
            entry.problem = error.detail
        self._over(entry)

    async def _end_of(self, entry: Entry, id: str) -> Task:
        """Return the task of a photo once it has ended, or as it is if the master is gone. Raises NOT_FOUND."""
        while True:
            await entry.changed.wait()
            entry.changed.clear()
            task = await self._client.task(id)
            if task.state in ENDED or self._gone is not None:
                return task

    def _over(self, entry: Entry) -> None:
        if entry.problem:
            self._progress.failed(entry.photo.path, entry.problem)
        elif self.waits:
            self._progress.finished()
        entry.over.set()
