"""Test that nothing is acknowledged behind a hole in a write-ahead log, which a flush that failed has left."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from safelight.db.sqlite import SqliteStore
from safelight.errors import Error
from simulation.disk import Disk, FlushFailedError
from simulation.loop import PROCESS
from simulation.sqlitevfs import SimulatedVfs
from support.tasks import new_task, request

_TESTS = Path(__file__).parent.parent
SEEDS = 5


@pytest.mark.slow
@pytest.mark.parametrize("when", ["the next commit", "the checkpoint too"])
def test_a_failed_flush_that_lost_a_lease_loses_no_upload_that_is_acknowledged_later(tmp_path: Path, when: str) -> None:
    # The disk of the simulation belongs to a whole process.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(_TESTS)])}
    failures = "1" if when == "the next commit" else "2"
    done = subprocess.run(
        [sys.executable, __file__, tmp_path, failures], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def _lost(root: Path, seed: int, failures: int) -> set[str]:
    """Return the ids of acknowledged tasks that a power cut has undone."""
    data, left = root / f"data-{seed}", [0]
    data.mkdir()

    def flush() -> None:
        if left[0]:
            left[0] -= 1
            raise FlushFailedError(errno.EIO, "Input/output error")

    disk = Disk(data, random.Random(seed), flush)
    token = PROCESS.set(SimpleNamespace(alive=True, disk=disk))
    async with SqliteStore.open(data / "tasks.sqlite") as store:
        PROCESS.reset(token)
        made = await store.create([new_task()])
        await store.lease(request())
        left[0] = failures
        while left[0]:
            try:
                made += await store.create([new_task()])
            except Error:
                continue
            raise AssertionError("a commit was acknowledged although its flush failed")
        for _ in range(3):
            made += await store.create([new_task()])
        disk.copy(root / f"cut-{seed}", power_cut=True)
    async with SqliteStore.open(root / f"cut-{seed}" / "tasks.sqlite") as store:
        kept = {event.task for event in (await store.events(0)).events}
        return {task.id for task in made} - kept


def _main(root: Path, failures: int) -> int:
    vfs = SimulatedVfs()
    lost = [asyncio.run(_lost(root, seed, failures)) for seed in range(SEEDS)]
    del vfs
    print(f"lost: {lost}")
    return 1 if any(lost) else 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), int(sys.argv[2])))
