"""Resolve the ids of the classic protocol. Every URL accepts the id of a task and that of a lease.

Programs that call storage directly, as the seed's master does for its clients, know no other names.
"""

from __future__ import annotations

from typing import Protocol

from safelight.errors import Code, Error
from safelight.storage.store import BlobStore
from safelight.wire import Blob, State, Task


class Tasks(Protocol):
    """The only method of db that this needs; `client.db.DbClient` has it."""

    async def get(self, id: str, *, tenant: str | None = None) -> Task:
        """Return a task by its id or that of a lease. Raises NOT_FOUND, UNAVAILABLE."""
        ...


async def find(store: BlobStore, tasks: Tasks | None, name: str, *, tenant: str | None) -> Blob:
    """Return the blob to which an id or a name refers: the result of a finished task, the photo of any other.

    Without `tasks`, only names are resolved. `tenant` limits whose tasks count. Raises NOT_FOUND, and UNAVAILABLE while
    db does not answer, since it is unknown then whether the photo or the result is meant.
    """
    task = None if tasks is None else await _task(tasks, name, tenant)
    if task is None:
        return await store.named(name)
    if task.state is State.FINISHED:
        if task.outputs:
            made = task.outputs[0]
            return Blob(digest=made.digest, size=made.size)
        if task.lease is not None:
            return await store.named(task.lease)
    return task.input if task.input is not None else await store.named(task.id)


async def _task(tasks: Tasks, name: str, tenant: str | None) -> Task | None:
    """Return the task with this id; None if the name is not an id, or if db is not one of ours."""
    try:
        return await tasks.get(name, tenant=tenant)
    except Error as error:
        # INTERNAL: the answer did not come from our db.
        if error.code in (Code.NOT_FOUND, Code.INVALID_REQUEST, Code.INTERNAL):
            return None
        raise
