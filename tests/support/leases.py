"""Act as a worker at the master, without processing images."""

import hashlib

from safelight.client.master import Client
from safelight.client.storage import StorageClient
from safelight.wire import Failed, Failure, Finished, Lease, LeaseRequest, Output, WorkerInfo

WORKER = WorkerInfo(id="worker-of-a-test", engine="test")


async def take(client: Client, *, n: int = 1, wait: float = 5.0, worker: WorkerInfo = WORKER) -> list[Lease]:
    """Take up to n tasks."""
    return await client.lease(LeaseRequest(worker=worker, n=n, wait=wait))


async def finish(client: Client, storage: StorageClient, lease: Lease, results: dict[str, bytes]) -> None:
    """Store results and end the attempt."""
    outputs = []
    for name, data in results.items():
        blob = await storage.put(data)
        outputs.append(Output(name=name, digest=blob.digest, size=blob.size, media_type="image/png", width=1, height=1))
    (settled,) = await client.settle([Finished(lease=lease.id, outputs=outputs, engine=WORKER.engine)])
    assert settled.problem is None, settled.problem


async def fail(client: Client, lease: Lease, failure: Failure) -> None:
    """End the attempt with a permanent failure."""
    (settled,) = await client.settle([Failed(lease=lease.id, failure=failure, permanent=True)])
    assert settled.problem is None, settled.problem


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
