"""Test that the time limit of a photo counts only time in which the worker runs."""

import asyncio
import time

import pytest

from safelight.worker.decoder import awake


async def test_a_time_limit_is_enforced() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with awake.timeout(0.3):
            await asyncio.Event().wait()
    assert 0.3 <= time.monotonic() - began < 20


@pytest.mark.slow
async def test_time_in_which_the_process_is_suspended_hardly_counts() -> None:
    async with awake.timeout(2.5):
        time.sleep(3.0)  # noqa: ASYNC251 - the event loop is held up, as it is in a suspended process
        await asyncio.sleep(0.1)
