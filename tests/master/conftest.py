from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from safelight import serve
from safelight.client import base
from safelight.client.db import DbClient
from safelight.client.master import Client
from safelight.client.storage import StorageClient
from safelight.db.__main__ import Config as DbConfig
from safelight.db.__main__ import build as build_db
from safelight.keyvaluestore.__main__ import Config as KeyValueStoreConfig
from safelight.keyvaluestore.__main__ import build as build_keyvaluestore
from safelight.master.__main__ import Config as MasterConfig
from safelight.master.__main__ import build as build_master
from safelight.storage.__main__ import Config as StorageConfig
from safelight.storage.__main__ import build as build_storage


class System:
    """Run a master with the real services, all in this process."""

    def __init__(self, stack: AsyncExitStack, data: Path, *, together: bool) -> None:
        self.neighbours = serve.Neighbours() if together else None
        self._stack = stack
        self._data = data
        self.services: dict[str, serve.Service] = {}
        self.keyvaluestore = ""

    @classmethod
    @asynccontextmanager
    async def at(cls, data: Path, *, together: bool = True) -> AsyncIterator[System]:
        """Start everything behind a master."""
        async with AsyncExitStack() as stack:
            whole = cls(stack, data, together=together)
            await whole.start_services()
            yield whole

    async def start(self, name: str, build: Callable[..., Any], config: serve.Config) -> serve.Service:
        running = await self._stack.enter_async_context(serve.running(name, config, build, self.neighbours))
        self.services[name] = running
        return running

    async def start_services(self) -> None:
        """Start everything behind a master."""
        config = KeyValueStoreConfig(port=0, data=str(self._data / "keyvaluestore"))
        first = await self.start("keyvaluestore", build_keyvaluestore, config)
        self.keyvaluestore = first.url.removeprefix("http://")
        common = {"keyvaluestore": self.keyvaluestore, "port": 0}
        await self.start("db", build_db, DbConfig(data=str(self._data / "db"), **common))
        await self.start("storage", build_storage, StorageConfig(data=str(self._data / "storage"), **common))

    async def master(self, **settings: Any) -> serve.Service:
        """Start a master, or another one, and wait until it knows the services."""
        config = MasterConfig(keyvaluestore=self.keyvaluestore, port=0, data=str(self._data / "master"), **settings)
        running = await self.start("master", build_master, config)
        assert running.discovery is not None
        for name in ("db", "storage"):
            await running.discovery.wait_for(name)
        return running

    def address(self, name: str) -> str:
        return self.services[name].url


@pytest.fixture(params=["one process", pytest.param("separate", marks=pytest.mark.slow)])
async def system(tmp_path, request) -> AsyncIterator[System]:
    """Run the services behind a master, called directly or over HTTP; tests start the master that they need."""
    async with System.at(tmp_path, together=request.param == "one process") as whole:
        yield whole


@pytest.fixture
async def master(system) -> serve.Service:
    """Run a master with small limits, so that tests can reach them."""
    return await system.master(max_photo=4 << 20, uploads=4, upload_idle_timeout=1.0, webhook_allow_private=True)


@pytest.fixture
async def client(master) -> AsyncIterator[Client]:
    async with Client.connect(master.url) as connected:
        yield connected


@pytest.fixture
async def db(system) -> AsyncIterator[DbClient]:
    async with DbClient.connect(system.address("db")) as connected:
        yield connected


@pytest.fixture
async def storage(system) -> AsyncIterator[StorageClient]:
    async with StorageClient.connect(system.address("storage")) as connected:
        yield connected


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with base.session() as session:
        yield session
