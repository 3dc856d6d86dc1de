"""Test when a backend counts as away: readiness neither asks it nor changes at one slow answer."""

from __future__ import annotations

import asyncio

import pytest

from safelight.client.availability import reachability
from safelight.client.availability.reachability import Reachability
from safelight.errors import Code, Error


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(reachability, "time", made)
    return made


async def test_one_failure_is_a_slow_answer_and_lasting_ones_mean_that_the_backend_is_away(clock):
    bucket = Reachability("bucket")
    bucket.failed("No answer for 3 seconds.")
    clock.now += 60
    await bucket.check()
    bucket.answered()
    bucket.failed("The bucket refuses connections.")
    bucket.failed("The bucket refuses connections.")
    clock.now += 2
    await bucket.check()
    clock.now += 1
    with pytest.raises(Error, match=r"The bucket refuses connections\. This has lasted since 20\d\d-") as away:
        await bucket.check()
    assert away.value.code is Code.UNAVAILABLE
    bucket.answered()
    await bucket.check()


async def test_since_is_when_the_first_failure_was_found(clock):
    etcd = Reachability("etcd")
    etcd.failed("No member answers.")
    clock.now += 10
    etcd.failed("No member answers.")
    with pytest.raises(Error) as first:
        await etcd.check()
    clock.now += 600
    etcd.failed("Another reason.")
    with pytest.raises(Error, match="Another reason") as later:
        await etcd.check()
    assert later.value.extra["since"] == first.value.extra["since"] != ""


async def test_however_often_readiness_is_asked_the_backend_is_not(monkeypatch):
    asked = 0
    again = asyncio.Event()

    async def ask() -> None:
        nonlocal asked
        asked += 1
        again.set()
        raise Error(Code.UNAVAILABLE, "It is away.")

    monkeypatch.setattr(reachability, "EVERY", 0.0)
    monkeypatch.setattr(reachability, "AGAIN", 3600.0)
    backend = Reachability("etcd")
    async with backend.asked(ask), asyncio.timeout(30):
        await again.wait()
        for _ in range(1000):
            await backend.check()
    assert asked == 1
    assert backend.is_failing


async def test_an_answer_to_the_services_own_work_replaces_a_question(monkeypatch):
    async def ask() -> None:
        raise AssertionError("it was asked")

    monkeypatch.setattr(reachability, "AGAIN", 0.0)
    backend = Reachability("postgresql")
    async with backend.asked(ask):
        for _ in range(100):
            backend.answered()
            await asyncio.sleep(0)
    await backend.check()


async def test_a_backend_that_gives_no_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(reachability, "EVERY", 0.0)
    monkeypatch.setattr(reachability, "AGAIN", 0.0)
    monkeypatch.setattr(reachability, "LIMIT", 0.01)
    monkeypatch.setattr(reachability, "_LASTING", 0.0)
    backend = Reachability("bucket")
    async with backend.asked(asyncio.Event().wait), asyncio.timeout(30):
        while backend.is_reachable:  # noqa: ASYNC110 - nothing wakes those who wait
            await asyncio.sleep(0)
    with pytest.raises(Error, match=r"The backend bucket gives no answer within 0\.01 seconds"):
        await backend.check()
