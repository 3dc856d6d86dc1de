from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from safelight import serve
from safelight.client import base
from safelight.client.master import Client
from safelight.db.__main__ import Config as DbConfig
from safelight.db.__main__ import build as build_db
from safelight.keyvaluestore.__main__ import Config as KeyValueStoreConfig
from safelight.keyvaluestore.__main__ import build as build_keyvaluestore
from safelight.master.__main__ import Config as MasterConfig
from safelight.master.__main__ import build as build_master
from safelight.storage.__main__ import Config as StorageConfig
from safelight.storage.__main__ import build as build_storage
from support.photos import photo
from support.tus import Tus


@pytest.fixture(params=["one process", pytest.param("separate", marks=pytest.mark.slow)])
async def master(tmp_path, request) -> AsyncIterator[serve.Service]:
    """Run a master that accepts only small photos, with the real services, called directly or over HTTP."""
    neighbours = serve.Neighbours() if request.param == "one process" else None
    async with AsyncExitStack() as stack:

        async def start(name, config, build):
            return await stack.enter_async_context(serve.running(name, config, build, neighbours))

        first = await start(
            "keyvaluestore", KeyValueStoreConfig(port=0, data=str(tmp_path / "keyvaluestore")), build_keyvaluestore
        )
        common = {"keyvaluestore": first.url.removeprefix("http://"), "port": 0}
        await start("db", DbConfig(data=str(tmp_path / "db"), **common), build_db)
        await start("storage", StorageConfig(data=str(tmp_path / "storage"), idle_timeout=1.0, **common), build_storage)
        settings = {"max_photo": 4 << 20, "upload_idle_timeout": 1.0, **common}
        running = await start("master", MasterConfig(data=str(tmp_path / "master"), **settings), build_master)
        for name in ("db", "storage"):
            await running.discovery.wait_for(name)
        yield running


@pytest.fixture
async def client(master) -> AsyncIterator[Client]:
    async with Client.connect(master.url) as connected:
        yield connected


@pytest.fixture
async def tus(master) -> AsyncIterator[Tus]:
    async with base.session() as session:
        yield Tus(session, master.url)


@pytest.fixture
def png() -> bytes:
    return photo(0, width=200)
