"""Test the distinction between a photo that alone cannot be read and an outage of storage."""

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from safelight import serve
from safelight.client.availability.instances import Several
from safelight.client.base import Connection, session
from safelight.client.shared import SharedBlobs
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.storage.__main__ import Config, build
from safelight.wire import Blob, Lease
from safelight.worker import inputs
from safelight.worker.inputs import Inputs
from safelight.worker.outage import OutageError
from safelight.worker.workdir import Workdir

BYTES = b"a photo"
DIGEST = hashlib.sha256(BYTES).hexdigest()


@asynccontextmanager
async def impatient(url: str) -> AsyncIterator[StorageClient]:
    """Yield a client that never retries."""
    async with session() as http:
        yield StorageClient(Connection(http, Several(url), retry_for=0.0))


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Return a function that reads a photo through a worker's inputs with a short time limit."""
    monkeypatch.setattr(inputs, "_RETRY_FOR", 0.0)
    with Workdir.open(tmp_path, "worker", 1) as workdir:

        async def read(storage: StorageClient) -> bytes:
            lease = Lease(
                id="lease", task="task", attempt=1, expires=time.time() + 60, recipe="invert", spec=msgspec.Raw(b"{}"),
                input=Blob(digest=DIGEST, size=len(BYTES)),
            )  # fmt: skip
            async with Inputs(storage, SharedBlobs(storage), workdir).opened(lease) as source:
                return source

        yield read


@pytest.fixture
async def storage(tmp_path):
    async with serve.running("storage", Config(port=0, data=str(tmp_path / "storage")), build) as running:
        yield running


async def test_unavailable_storage_is_an_outage(storage, opened):
    async with impatient(storage.url) as client:
        await client.put(BYTES)
        assert await opened(client) == BYTES
    async with impatient("http://127.0.0.1:9") as client:
        with pytest.raises(OutageError) as caught:
            await opened(client)
    assert caught.value.transient


async def test_a_single_unreadable_blob_is_not_an_outage(storage, opened, tmp_path):
    """Other blobs can be read, so the attempt is charged, and one bad blob does not stop the worker."""
    path = tmp_path / "storage" / "blobs" / DIGEST[:2] / DIGEST
    path.mkdir()
    async with impatient(storage.url) as client:
        with pytest.raises(Error) as caught:
            await opened(client)
    assert not isinstance(caught.value, OutageError)
    assert caught.value.transient


async def test_a_blob_that_is_gone_ends_the_task(storage, opened):
    async with impatient(storage.url) as client:
        await client.put(b"another photo")
        with pytest.raises(Error) as caught:
            await opened(client)
    assert (caught.value.code, isinstance(caught.value, OutageError)) == (Code.NOT_FOUND, False)
