"""Provide services that require a key from every client, as on a public address, but that listen on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from safelight import serve
from safelight.access import cluster_key
from safelight.client import base
from safelight.db.__main__ import Config as DbConfig
from safelight.db.__main__ import build as build_db
from safelight.keyvaluestore.__main__ import Config as KeyValueStoreConfig
from safelight.keyvaluestore.__main__ import build as build_keyvaluestore
from safelight.master.__main__ import Config as MasterConfig
from safelight.master.__main__ import build as build_master
from safelight.storage.__main__ import Config as StorageConfig
from safelight.storage.__main__ import build as build_storage
from safelight.worker.__main__ import Config as WorkerConfig
from safelight.worker.__main__ import build as build_worker

KINDS: dict[str, tuple[type[serve.StandaloneConfig], Any]] = {
    "keyvaluestore": (KeyValueStoreConfig, build_keyvaluestore),
    "db": (DbConfig, build_db),
    "storage": (StorageConfig, build_storage),
    "master": (MasterConfig, build_master),
}
WORKER: tuple[type[serve.StandaloneConfig], Any] = (WorkerConfig, build_worker)
ELSEWHERE = "192.0.2.1"
"""A proxy that makes no requests. If a proxy is named, programs on this machine also need a key."""


class Plane:
    """Run the four services in this process with a shared key."""

    def __init__(self, stack: AsyncExitStack, data: Path) -> None:
        self._stack = stack
        self._data = data
        self.key_file = data / "cluster.key"
        cluster_key.ensure(self.key_file)
        self.key = self.key_file.read_text().strip()
        self.services: dict[str, serve.Service] = {}

    @property
    def credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def url(self, name: str) -> str:
        return self.services[name].url

    async def start(self, name: str, **settings: Any) -> serve.Service:
        kind, build = KINDS.get(name, WORKER)
        if name != "keyvaluestore":
            settings["keyvaluestore"] = self.url("keyvaluestore").removeprefix("http://")
        settings.setdefault("cluster_key_file", str(self.key_file))
        settings.setdefault("port", 0)
        config = kind(data=str(self._data / name), **settings)
        self.services[name] = await self._stack.enter_async_context(serve.running(name, config, build))
        return self.services[name]

    async def start_all(self, *, master: dict[str, Any] | None = None, **settings: Any) -> None:
        """Start all services, the master also with its own settings, and wait until the master knows the others."""
        for name in KINDS:
            await self.start(name, **settings, **((master or {}) if name == "master" else {}))
        discovery = self.services["master"].discovery
        assert discovery is not None
        for name in ("db", "storage"):
            await discovery.wait_for(name)


@pytest.fixture
async def plane(tmp_path) -> AsyncIterator[Plane]:
    """Yield the services before their start."""
    async with AsyncExitStack() as stack:
        yield Plane(stack, tmp_path)


@pytest.fixture
async def keyed(plane) -> Plane:
    """Return started services that all require a key."""
    await plane.start_all(trusted_proxies=ELSEWHERE)
    return plane


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with base.session() as session:
        yield session
