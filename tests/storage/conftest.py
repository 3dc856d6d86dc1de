from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from safelight import serve
from safelight.client import base
from safelight.client.storage import StorageClient
from safelight.storage.__main__ import Config, build
from safelight.storage.bucket import BucketStore
from safelight.storage.directory import DirectoryStore
from safelight.storage.store import BlobStore
from support.servers import ALL_SLOW, BUCKETS


@pytest.fixture(params=["directory", *ALL_SLOW])
async def store(request, tmp_path) -> AsyncIterator[BlobStore]:
    """Yield every backend, with every provider of buckets; all keep the contract."""
    if request.param == "directory":
        async with DirectoryStore.at(tmp_path / "store") as opened:
            yield opened
    else:
        async with BucketStore.at(request.getfixturevalue(BUCKETS[request.param])) as opened:
            yield opened


@pytest.fixture(params=["directory", pytest.param("bucket", marks=pytest.mark.slow)])
async def service(request, tmp_path) -> AsyncIterator[serve.Service]:
    """Serve storage with every backend in this process, with small limits, so that tests can reach them."""
    url = request.getfixturevalue("bucket_url") if request.param == "bucket" else None
    config = Config(port=0, data=str(tmp_path / "served"), store=url, max_blob=8 << 20, idle_timeout=0.5)
    async with serve.running("storage", config, build) as running:
        yield running


@pytest.fixture
async def http():
    async with base.session() as session:
        yield session


@pytest.fixture
async def client(service) -> AsyncIterator[StorageClient]:
    async with StorageClient.connect(service.url) as connected:
        yield connected
