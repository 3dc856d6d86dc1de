"""Test how long a client retries."""

import pytest

from client.availability.clock import Clock
from safelight.cli import printing
from safelight.cli.connection import Where, master
from safelight.client.availability import retrying as module
from safelight.client.availability.retrying import Breaker, retrying
from safelight.errors import Code, Error
from support.programs.ports import free_port


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()

    async def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    return clock


def failing(clock, *, takes, times):
    """Return an attempt that takes `takes` seconds, and fails `times` times before it succeeds."""
    left = [times]

    async def attempt():
        clock.now += takes
        if left[0]:
            left[0] -= 1
            raise Error(Code.UNAVAILABLE, "No answer.")
        return "done"

    return attempt


async def test_a_long_transfer_that_breaks_is_retried(clock):
    assert await retrying(failing(clock, takes=600.0, times=1), retry_for=15.0) == "done"


async def test_retries_end(clock):
    began = clock.now
    with pytest.raises(Error):
        await retrying(failing(clock, takes=0.1, times=10_000), retry_for=15.0)
    assert 10 < clock.now - began < 16


async def test_without_time_to_retry_nothing_is_retried(clock):
    with pytest.raises(Error):
        await retrying(failing(clock, takes=0.1, times=1), retry_for=0.0)


async def test_a_long_poll_that_fails_at_once_is_not_retried_for_longer(clock):
    began = clock.now
    with pytest.raises(Error):
        await retrying(failing(clock, takes=0.1, times=1), retry_for=0.0, deadline=began + 30.0)
    assert clock.now - began < 1


async def test_nothing_is_retried_after_the_deadline(clock):
    with pytest.raises(Error):
        await retrying(failing(clock, takes=16.0, times=1), retry_for=15.0, deadline=clock.now + 15.0)


async def test_a_service_that_has_failed_for_long_is_not_waited_for(clock):
    breaker = Breaker()
    down = failing(clock, takes=0.1, times=10_000)
    for waited in (True, False, False):
        began = clock.now
        with pytest.raises(Error):
            await retrying(down, retry_for=15.0, breaker=breaker)
        assert (clock.now - began > 10.0) is waited
    assert await retrying(failing(clock, takes=0.1, times=0), retry_for=15.0, breaker=breaker) == "done"
    assert await retrying(failing(clock, takes=0.1, times=3), retry_for=15.0, breaker=breaker) == "done"


async def test_a_service_that_failed_a_while_ago_is_waited_for_again(clock):
    breaker = Breaker()
    with pytest.raises(Error):
        await retrying(failing(clock, takes=0.1, times=10_000), retry_for=15.0, breaker=breaker)
    clock.now += 31.0
    assert await retrying(failing(clock, takes=0.1, times=3), retry_for=15.0, breaker=breaker) == "done"


async def test_people_who_wait_are_told_after_a_moment_what_for(clock, monkeypatch, tmp_path, capsys):
    """A mistyped address would otherwise look like a long upload for half a minute."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(printing, "err", printing._console(stderr=True))
    began, refusing = clock.now, f"127.0.0.1:{free_port()}"
    async with master(Where(master=refusing), retry_for=30.0) as client:
        for _ in range(3):  # several photos at once
            with pytest.raises(Error):
                await client.recipes()
    assert clock.now - began > 60
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"No answer from http://{refusing}: connection refused. Is the service running? Trying ")
    assert 1 <= len(told) <= 3
    async with master(Where(master=refusing), retry_for=2.0) as client:
        with pytest.raises(Error):
            await client.recipes()
    assert not capsys.readouterr().err, "the error itself tells in time"
