"""Workers that use HTTP and Pillow, and send some outcomes late, twice or not at all."""

from __future__ import annotations

import asyncio
import io
import itertools
from contextlib import suppress

from PIL import Image, ImageChops

from safelight.client.master import Client
from safelight.client.storage import StorageClient
from safelight.errors import Error
from safelight.wire import Finished, Lease, LeaseRequest, Output, Returned, WorkerInfo

ENGINE = "Pillow"
_KINDS = ("good", "late", "twice", "good", "returned")
LATE = 0.3
"""Seconds by which an outcome is late, after which another worker has the task."""


def inverted(photo: bytes) -> bytes:
    """Return the inverse of a photo, as PNG."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as image:
        ImageChops.invert(image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


class OddWorker:
    """A worker with some odd outcomes, like a worker that is slow, stops or repeats itself."""

    def __init__(self, client: Client, storage: StorageClient, number: int) -> None:
        self._client = client
        self._storage = storage
        self._info = WorkerInfo(id=f"odd-{number}", engine=ENGINE)
        self._kinds = itertools.cycle(_KINDS[number % len(_KINDS) :] + _KINDS[: number % len(_KINDS)])
        self._holding: set[str] = set()
        self._late: set[asyncio.Task[None]] = set()

    async def work(self) -> None:
        """Take and end leases until cancelled."""
        try:
            while True:
                try:
                    leases = await self._take()
                except Error:
                    await asyncio.sleep(0.1)
                    continue
                for lease in leases:
                    with suppress(Error):
                        await self._end(lease)
                    self._holding.discard(lease.id)  # if it is not settled, db gives the task to others
        finally:
            for task in self._late:
                task.cancel()
            await asyncio.gather(*self._late, return_exceptions=True)

    async def _take(self) -> list[Lease]:
        asked = LeaseRequest(worker=self._info, n=2, wait=1.0, holding=list(self._holding))
        leases = await self._client.lease(asked)
        self._holding |= {lease.id for lease in leases}
        return leases

    async def _end(self, lease: Lease) -> None:
        assert lease.input is not None
        made = inverted(await self._storage.read(lease.input.digest))
        blob = await self._storage.put(made)
        output = Output(name="image", digest=blob.digest, size=blob.size, media_type="image/png", width=1, height=1)
        finished = Finished(lease=lease.id, outputs=[output], engine=ENGINE)
        match next(self._kinds):
            case "twice":
                await asyncio.gather(self._client.settle([finished]), self._client.settle([finished]))
            case "late":
                # The next request does not name this lease, so db may give the task to others.
                task = asyncio.create_task(self._settle_late(finished))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            case "returned":
                await self._client.settle([Returned(lease=lease.id)])
            case _:
                await self._client.settle([finished])

    async def _settle_late(self, finished: Finished) -> None:
        await asyncio.sleep(LATE)
        with suppress(Error):
            await self._client.settle([finished])
