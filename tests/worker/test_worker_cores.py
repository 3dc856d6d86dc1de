"""Test how many cores a worker uses, and how its photos share them."""

import asyncio
import contextlib
import os

import pytest

from safelight.worker.cores import usable
from safelight.worker.prefetch import Prefetch


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Return a function that makes control groups from files, and returns the usable cores of 8."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    def made(membership, **files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return usable(tmp_path / "groups", tmp_path / "membership")

    return made


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000\n", 8), ("200000 100000\n", 2), ("150000 100000", 2), ("1000 100000", 1), ("9900000 100000", 8)],
)
def test_a_containers_limit_counts(group, limit, cores):
    assert group("0::/\n", **{"cpu.max": limit}) == cores


def test_the_narrowest_of_the_groups_counts(group):
    files = {"cpu.max": "max 100000", "pods/cpu.max": "300000 100000", "pods/one/cpu.max": "400000 100000"}
    assert group("0::/pods/one\n", **files) == 3


def test_a_limit_of_version_1_counts(group):
    files = {"cpu,cpuacct/box/cpu.cfs_quota_us": "250000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000"}
    membership = "5:memory:/box\n3:cpu,cpuacct:/box\n0::/\n"
    assert group(membership, **files) == 3
    assert group(membership, **{**files, "cpu,cpuacct/box/cpu.cfs_quota_us": "-1"}) == 8


def test_without_control_groups_the_affinity_counts(tmp_path):
    assert usable(tmp_path, tmp_path / "missing") == len(os.sched_getaffinity(0))


async def test_photos_count_for_the_shares_of_others_while_they_are_processed():
    prefetch = Prefetch(4, 1 << 20)
    leave = asyncio.Event()
    shares = []

    async def attempt():
        async with contextlib.AsyncExitStack() as stack:
            async with prefetch.room(1):  # only until a slot is free, as in `Attempts`
                await stack.enter_async_context(prefetch.slot())
            shares.append(prefetch.share(8))
            await leave.wait()

    attempts = []
    for _ in range(6):
        attempts.append(asyncio.create_task(attempt()))
        await asyncio.sleep(0)
    assert shares == [8, 4, 2, 2]
    leave.set()
    await asyncio.gather(*attempts)
    shares.clear()
    await attempt()
    assert shares == [8]


async def test_a_photo_gets_all_threads_alone_and_one_on_a_busy_worker():
    prefetch = Prefetch(4, 1 << 20)
    leave = asyncio.Event()

    async def held():
        async with prefetch.room(1):
            await leave.wait()

    shares, holding = [], []
    for _ in range(6):
        holding.append(asyncio.create_task(held()))
        await asyncio.sleep(0)
        shares.append(prefetch.share(8))
    assert shares == [8, 4, 2, 2, 2, 2]  # photos that wait beyond the slots take none
    assert prefetch.share(1) == 1
    leave.set()
    await asyncio.gather(*holding)
    assert prefetch.share(8) == 8
