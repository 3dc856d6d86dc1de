from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from safelight import serve
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.keyvaluestore.__main__ import Config, build
from safelight.keyvaluestore.sqlite import SqliteStore
from safelight.keyvaluestore.store import KeyValueStore


@pytest.fixture
async def service(tmp_path) -> AsyncIterator[serve.Service]:
    """A served store, in this process."""
    async with serve.running("keyvaluestore", Config(port=0, data=str(tmp_path / "served")), build) as running:
        yield running


@pytest.fixture(params=["sqlite", "served"])
async def store(request, tmp_path) -> AsyncIterator[KeyValueStore]:
    """Every backend, and the client of a served one: all keep the contract."""
    async with AsyncExitStack() as stack:
        match request.param:
            case "sqlite":
                yield await stack.enter_async_context(SqliteStore.open(tmp_path / "store.sqlite"))
            case "served":
                config = Config(port=0, data=str(tmp_path / "data"))
                running = await stack.enter_async_context(serve.running("keyvaluestore", config, build))
                yield await stack.enter_async_context(KeyValueStoreClient.connect(running.url))
