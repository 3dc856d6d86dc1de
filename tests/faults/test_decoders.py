"""Test a worker whose decoders cannot be started: it says why and hands back its photos, none of which is charged."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from safelight.client.master import Client
from safelight.wire import State
from support.photos import photo
from support.programs.pids import children
from support.programs.system import system

pytestmark = pytest.mark.slow

SETTINGS = {"worker": ["--slots", "1"], "db": ["--max-errors", "1", "--max-deaths", "1"]}
"""Settings with which a single error or death ends a task."""


async def test_a_worker_without_decoders_charges_no_photo(tmp_path: Path) -> None:
    async with system(tmp_path, workers=1, settings=SETTINGS) as whole, Client.connect(whole.master) as client:
        worker = whole.running["worker-0"]
        await worker.log("decoders are ready")
        (directory,) = (tmp_path / "worker-0").rglob("decoders-*")
        away = directory.rename(directory.with_name("away"))
        for decoder in children(worker.process.pid):
            os.kill(decoder, signal.SIGKILL)
        tasks = [await client.upload(photo(number)) for number in range(3)]
        reason = f"No decoder can be started: No such file or directory: {directory}. Its leases are handed back"
        await worker.log(reason)
        await worker.log("failed starts in a row: 2")
        assert sum(reason in line["message"] for line in worker.lines) == 1, "the outage lasts until a decoder starts"
        away.rename(directory)
        for task in tasks:
            done = await client.wait(task.id, timeout=60)
            assert (done.state, done.errors, done.deaths) == (State.FINISHED, 0, 0), done
