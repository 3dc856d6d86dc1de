"""Create tasks in db in batches: all that wait at the same time share one call and one commit."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from safelight import tracing
from safelight.client.db import DbClient
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.wire import NewTask, Task

log = logging.getLogger(__name__)

_BATCH = 256
_BATCH_BYTES = 512 * 1024
"""Limits of one call; recipes that were sent with their photo may be large."""


class TaskBatcher:
    """Creates tasks. One call to db is open at a time; tasks that arrive meanwhile are in the next one."""

    def __init__(self, db: DbClient, storage: StorageClient) -> None:
        self._db = db
        self._storage = storage
        self._waiting: deque[tuple[NewTask, asyncio.Future[Task]]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def create(self, task: NewTask, *, new: bool = False) -> Task:
        """Create a task, which is durable when this returns. It must have an idempotency key.

        Outputs of an earlier task are reused only if storage still has them undamaged. `new` says that storage did not
        have the input: there is no earlier task, or storage has lost its blobs.
        """
        assert task.idempotency_key is not None, "the call to db may be repeated"
        with tracing.span("create task"):
            if new:
                task = task.evolve(reuse=False)
            elif task.input is not None and task.reuse:
                task = await self._checked(task)
            if (traceparent := tracing.current()) is not None:
                task = task.evolve(traceparent=traceparent)
            future: asyncio.Future[Task] = asyncio.get_running_loop().create_future()
            self._waiting.append((task, future))
            if self._sender is None:
                with tracing.apart():  # tasks of other callers follow
                    self._sender = asyncio.create_task(self._send(), name="task batcher")
            return await future

    async def _checked(self, task: NewTask) -> NewTask:
        alike = await self._db.alike(task)
        for output in alike.outputs if alike is not None else ():
            try:
                async with self._storage.open(output.digest, verify=True, headers={"Range": "bytes=0-0"}):
                    pass
            except Error as error:
                if error.code not in (Code.NOT_FOUND, Code.DAMAGED_BLOB):
                    raise
                log.warning("A result is made again, because the one of an earlier task is lost: %s", error.detail)
                return task.evolve(reuse=False)  # type: ignore[no-any-return]
        return task

    async def _send(self) -> None:
        try:
            while batch := self._next():
                await self._create(batch)
        finally:
            self._sender = None

    def _next(self) -> list[tuple[NewTask, asyncio.Future[Task]]]:
        batch: list[tuple[NewTask, asyncio.Future[Task]]] = []
        size = 0
        while self._waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
            task, future = self._waiting.popleft()
            if not future.done():  # otherwise its client has disconnected
                batch.append((task, future))
                size += len(bytes(task.spec))
        return batch

    async def _create(self, batch: list[tuple[NewTask, asyncio.Future[Task]]]) -> None:
        try:
            answers = await self._db.create_each([task for task, _ in batch])
        except Error as error:
            if len(batch) > 1 and not error.transient:
                # One task caused the refusal of all: halve the batch until that task is alone.
                middle = len(batch) // 2
                await self._create(batch[:middle])
                await self._create(batch[middle:])
            else:
                _fail(batch, error)
        except Exception as error:
            log.exception("Creating %d tasks failed", len(batch))
            _fail(batch, error)
        else:
            for each, created in zip(batch, answers, strict=True):
                if created.task is None:
                    _fail([each], Error.from_problem(created.problem, 500))
                elif not each[1].done():
                    each[1].set_result(created.task)


def _fail(batch: list[tuple[NewTask, asyncio.Future[Task]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
