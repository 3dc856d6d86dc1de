from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from safelight import serve
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.keyvaluestore.__main__ import Config, build
from safelight.keyvaluestore.etcd import Access, EtcdStore, Gateway
from safelight.keyvaluestore.sqlite import SqliteStore
from safelight.keyvaluestore.store import KeyValueStore
from support.servers.etcd import Cluster, cluster


@pytest.fixture
async def service(tmp_path) -> AsyncIterator[serve.Service]:
    """Serve a store in this process."""
    async with serve.running("keyvaluestore", Config(port=0, data=str(tmp_path / "served")), build) as running:
        yield running


@pytest.fixture
def max_entries() -> int:
    """Return the limit of entries of `store`; a test may give another one by its parameters."""
    return Config().max_entries


@pytest.fixture(params=["sqlite", "served", "etcd", "etcd served"])
async def store(request, tmp_path, max_entries) -> AsyncIterator[KeyValueStore]:
    """Yield every backend, and the client of a served one; all keep the contract."""
    async with AsyncExitStack() as stack:
        match request.param:
            case "sqlite":
                yield await stack.enter_async_context(
                    SqliteStore.open(tmp_path / "store.sqlite", max_entries=max_entries)
                )
            case "etcd":
                with request.getfixturevalue("etcd").prefix() as prefix:
                    url = request.getfixturevalue("etcd").url
                    gateway = await stack.enter_async_context(Gateway.open(url, Access()))
                    opened = EtcdStore.open(gateway, prefix=prefix, max_entries=max_entries)
                    yield await stack.enter_async_context(opened)
            case _:
                url = None
                if request.param == "etcd served":
                    etcd = request.getfixturevalue("etcd")
                    url = etcd.url + stack.enter_context(etcd.prefix())
                config = Config(port=0, data=str(tmp_path / "data"), store=url, max_entries=max_entries)
                running = await stack.enter_async_context(serve.running("keyvaluestore", config, build))
                client = await stack.enter_async_context(KeyValueStoreClient.connect(running.url))
                client._connection.retry_for = 0.0  # a full store stays full
                yield client


@pytest.fixture(scope="session")
def etcd(tmp_path_factory) -> Iterator[Cluster]:
    """Run an etcd cluster of one member."""
    with cluster(tmp_path_factory.mktemp("etcd"), members=1) as running:
        yield running
