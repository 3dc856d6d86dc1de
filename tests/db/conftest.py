from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from safelight import serve
from safelight.client.db import DbClient
from safelight.db.__main__ import Config, build
from safelight.db.postgres import PostgresStore
from safelight.db.sqlite import SqliteStore
from safelight.db.store import Policy, TaskStore
from support.servers import postgres

Opened = Callable[..., Awaitable[TaskStore]]
BACKENDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """Run one server for all tests of a process."""
    with postgres.server() as running:
        yield running


@pytest.fixture
async def database(postgres_server) -> str:
    """Return the URL of an empty PostgreSQL database."""
    return await postgres_server.empty()


class Backend:
    """Open the store of one backend for one test, repeatedly with the same data."""

    def __init__(self, tmp_path, database: str | None) -> None:
        self._path = tmp_path
        self._database = database

    def open(self, *, policy: Policy | None = None, **options):
        if self._database is None:
            return SqliteStore.open(self._path / "tasks.sqlite", policy=policy, **options)
        return PostgresStore.open(self._database, policy=policy, **options)

    def config(self, **fields) -> Config:
        return Config(port=0, data=str(self._path / "data"), store=self._database, **fields)


@pytest.fixture(params=BACKENDS)
def backend(request, tmp_path) -> Backend:
    return Backend(tmp_path, request.getfixturevalue("database") if request.param == "postgres" else None)


@pytest.fixture(params=["direct", "served"])
async def opened(request, backend) -> AsyncIterator[Opened]:
    """Return a function that opens a backend, or the client of a served one, with a policy. All keep the contract.

    Another call first closes the open store, like a restart.
    """
    async with AsyncExitStack() as stack:

        async def open_store(**policy) -> TaskStore:
            await stack.aclose()
            if request.param == "direct":
                return await stack.enter_async_context(backend.open(policy=Policy(**policy)))
            running = await stack.enter_async_context(serve.running("db", backend.config(**policy), build))
            return await stack.enter_async_context(DbClient.connect(running.url))

        yield open_store


@pytest.fixture
async def store(opened) -> TaskStore:
    return await opened()


@pytest.fixture
async def service(backend) -> AsyncIterator[serve.Service]:
    """Serve a store in this process."""
    async with serve.running("db", backend.config(), build) as running:
        yield running
