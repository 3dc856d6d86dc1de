from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from safelight import serve
from safelight.client.db import DbClient
from safelight.db.__main__ import Config, build
from safelight.db.sqlite import SqliteStore
from safelight.db.store import Policy, TaskStore

Opened = Callable[..., Awaitable[TaskStore]]


@pytest.fixture(params=["sqlite", "served"])
async def opened(request, tmp_path) -> AsyncIterator[Opened]:
    """Open every backend, and the client of a served one, with a policy; all keep the contract.

    Opening again closes what was open first: a restart.
    """
    async with AsyncExitStack() as stack:

        async def open_store(**policy) -> TaskStore:
            await stack.aclose()
            match request.param:
                case "sqlite":
                    return await stack.enter_async_context(
                        SqliteStore.open(tmp_path / "tasks.sqlite", policy=Policy(**policy))
                    )
                case "served":
                    config = Config(port=0, data=str(tmp_path / "data"), **policy)
                    running = await stack.enter_async_context(serve.running("db", config, build))
                    return await stack.enter_async_context(DbClient.connect(running.url))

        yield open_store


@pytest.fixture
async def store(opened) -> TaskStore:
    return await opened()


@pytest.fixture
async def service(tmp_path) -> AsyncIterator[serve.Service]:
    """A served store, in this process."""
    async with serve.running("db", Config(port=0, data=str(tmp_path / "served")), build) as running:
        yield running
