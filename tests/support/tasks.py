"""Make tasks, workers and outcomes for tests."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Awaitable, Iterable
from typing import Any

import msgspec
import pytest

from safelight.errors import Code, Error
from safelight.wire import Blob, Died, Failed, Failure, Finished, LeaseRequest, NewTask, Output, State, WorkerInfo

_numbers = itertools.count()


def digest(of: object) -> str:
    return hashlib.sha256(str(of).encode()).hexdigest()


def new_task(of: object = None, **changes: Any) -> NewTask:
    """Return a new task with a unique input, or with the input that `of` names."""
    content = of if of is not None else f"input {next(_numbers)}"
    fields: dict[str, Any] = {
        "input": Blob(digest=digest(content), size=1000),
        "filename": "photo.jpg",
        "media_type": "image/jpeg",
        "recipe": "invert",
        "recipe_digest": digest("invert"),
        "spec": msgspec.Raw(b'{"outputs":{"image":{}}}'),
    }
    return NewTask(**{**fields, **changes})


def request(worker: str = "w", n: int = 1, **fields: Any) -> LeaseRequest:
    return LeaseRequest(worker=WorkerInfo(id=worker, engine="engine 1"), n=n, **fields)


def output(name: str = "image") -> Output:
    return Output(name=name, digest=digest(f"output {name}"), size=10, media_type="image/jpeg", width=4, height=3)


def finished(lease: str, **fields: Any) -> Finished:
    return Finished(**{"lease": lease, "outputs": [output()], "engine": "engine 1", "seconds": 0.5, **fields})


def failed(lease: str, *, permanent: bool = False) -> Failed:
    code = "damaged_image" if permanent else "unavailable"
    return Failed(lease=lease, failure=Failure(code=code, detail="It went wrong."), permanent=permanent)


def died(lease: str) -> Died:
    return Died(lease=lease, failure=Failure(code="out_of_memory", detail="It took too much memory."))


async def refused(code: Code, call: Awaitable[object]) -> Error:
    """Await a call that must raise an error with this code; return the error."""
    with pytest.raises(Error) as caught:
        await call
    assert caught.value.code is code
    return caught.value


async def states(store: Any, tasks: Iterable[Any]) -> list[State]:
    """Return the states of tasks in a store."""
    return [(await store.get(task.id)).state for task in tasks]
