"""Make many tasks in a running system without a worker."""

from __future__ import annotations

import msgspec

from safelight import recipe
from safelight.client.db import DbClient
from safelight.client.storage import StorageClient
from safelight.wire import Failed, Failure, Finished, LeaseRequest, NewTask, Output, WorkerInfo
from support.photos import photo
from support.programs.system import System

_PAGE = 500


async def make_many(
    whole: System, finished: int = 0, *, waiting: int = 0, failed: int = 0, batch: str = "", apart: bool = False
) -> None:
    """Make tasks, in this order of creation: finished, failed and waiting ones, `photo-0.png` and so on.

    With `apart`, each gets a batch of its own: `{batch}-0` and so on. No worker may run meanwhile; their results are
    their originals.
    """
    async with (
        StorageClient.connect(f"127.0.0.1:{whole.ports['storage']}") as storage,
        DbClient.connect(f"127.0.0.1:{whole.ports['db']}") as db,
    ):
        blob = await storage.put(photo(0))
        spec = recipe.BUILTIN["invert"]
        new = NewTask(
            input=blob,
            media_type="image/png",
            recipe="invert",
            recipe_digest=recipe.digest(spec, batch),
            spec=msgspec.Raw(recipe.encode_work(spec)),
            batch=batch,
        )
        output = Output(name="image", digest=blob.digest, size=blob.size, media_type="image/png", width=300, height=200)
        total = finished + failed + waiting
        for start in range(0, total, _PAGE):
            numbers = range(start, min(start + _PAGE, total))
            await db.create(
                [
                    new.evolve(
                        filename=f"photo-{n}.png",
                        idempotency_key=f"{batch}-{n}",
                        batch=f"{batch}-{n}" if apart else batch,
                    )
                    for n in numbers
                ]
            )
        await _end(db, output, finished, finished + failed)


async def _end(db: DbClient, output: Output, finished: int, left: int) -> None:
    """End the first `left` tasks: the first `finished` with a result, the others without."""
    failure = Failure(code="damaged_image", detail="The PNG file is damaged.")
    while left:
        leases = await db.lease(LeaseRequest(worker=WorkerInfo(id="many"), n=min(left, _PAGE)))
        done = [
            Finished(lease=lease.id, outputs=[output], engine="test", seconds=0.1)
            if int(lease.filename.removeprefix("photo-").removesuffix(".png")) < finished
            else Failed(lease=lease.id, failure=failure, permanent=True)
            for lease in leases
        ]
        await db.settle(done)
        left -= len(leases)
