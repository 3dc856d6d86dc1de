"""Notice a service that accepts requests but does not answer: it is suspended, cut off by the network, or blocked.

If a request is not answered within two seconds, the service is asked for its health. As long as it answers that, the
request may take its time. Once it does not, all requests that wait there fail, and further ones are refused at once
until it answers again (a circuit breaker).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial

import aiohttp

from safelight import background
from safelight.errors import Code, Error

log = logging.getLogger(__name__)

while_waiting: ContextVar[Callable[[Error, float], None] | None] = ContextVar("while_waiting", default=None)
"""Called with a failure and the seconds that are left, when a call waits for its service for longer than about 2 s.

The command tells people with it what they wait for; services set none.
"""

_CHECK_AFTER = 2.0
"""Seconds without any answer of an instance after which it is asked for its health."""
_HEALTH = 8.0
"""Seconds for the answer to the health check; a machine that is emulated on a busy host has taken more than four."""
_TOLD_AFTER = 0.5
"""Seconds of the health check after which people are told."""
_EVERY = 0.5
"""The fewest seconds between two checks of the waiting requests."""
_FORGOTTEN = 30.0
"""Seconds without a request after which an instance is no longer checked."""
_RETRY_AFTER = 2
_CUT_OFF = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.EHOSTDOWN})


class UnresponsiveError(Error):
    """A request was refused at once, because its service does not answer. `retrying` does not repeat it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(Code.UNAVAILABLE, f"{sentence} Try again soon.", retry_after=_RETRY_AFTER)

    @classmethod
    def of(cls, base: str) -> UnresponsiveError:
        """Return the error of an instance that is down."""
        return cls(f"{base} accepts requests but does not answer; it may be suspended or cut off.")


class _Instance:
    """The state of one instance. Times are of the monotonic clock."""

    def __init__(self) -> None:
        self.waiting: dict[asyncio.Timeout, float] = {}
        """The requests that wait for an answer, and since when."""
        self.heard = -math.inf
        self.asked = time.monotonic()
        self.down = False
        self.follower: asyncio.Task[None] | None = None


class Liveness:
    """Tracks which instances answer. A program has one, which lasts as long as its session."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._instances: dict[str, _Instance] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, http: aiohttp.ClientSession) -> AsyncIterator[Liveness]:
        """Check instances until the context ends."""
        liveness = cls(http)
        try:
            yield liveness
        finally:
            followers = [one.follower for one in liveness._instances.values() if one.follower is not None]
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)

    def is_down(self, base: str) -> bool:
        """Return whether an instance is known not to answer."""
        one = self._instances.get(base)
        if one is None or not one.down:
            return False
        one.asked = time.monotonic()
        return True

    def begin(self, base: str, request: asyncio.Timeout) -> None:
        """Record a request that is about to be sent. It times out as soon as the instance is found to be down."""
        one = self._instances.get(base)
        if one is None:
            one = self._instances[base] = _Instance()
            name = f"liveness of {base}"
            one.follower = asyncio.create_task(background.again(partial(self._follow, base, one), name), name=name)
        one.asked = one.waiting[request] = time.monotonic()

    def end(self, base: str, request: asyncio.Timeout, *, answered: bool) -> None:
        """Record that a request has been answered, or has failed."""
        if (one := self._instances.get(base)) is not None:
            one.waiting.pop(request, None)
            if answered:
                one.heard = time.monotonic()

    async def _follow(self, base: str, one: _Instance) -> None:
        while one.waiting or time.monotonic() - one.asked < _FORGOTTEN:
            # A request that is sent while this sleeps is not due before the sleep ends.
            due = max(min(one.waiting.values(), default=math.inf), one.heard) + _CHECK_AFTER
            pause = _EVERY if one.down else min(max(_EVERY, due - time.monotonic()), _CHECK_AFTER)
            await asyncio.sleep(pause)
            oldest = min(one.waiting.values(), default=math.inf)
            if not one.down and time.monotonic() - max(oldest, one.heard) < _CHECK_AFTER:
                continue
            with nullcontext() if one.down else _told(base):
                alive = await self._is_alive(base)
            if alive:
                if one.down:
                    log.info("%s answers again", base)
                one.down, one.heard = False, time.monotonic()
                continue
            if not one.down:
                log.warning("%s does not answer; requests to it are refused until it does", base)
            one.down = True
            for request in list(one.waiting):
                request.reschedule(asyncio.get_running_loop().time())
        del self._instances[base]

    async def _is_alive(self, base: str) -> bool:
        """Ask for health. An instance that refuses connections counts as alive: its requests fail by themselves."""
        began = time.monotonic()
        try:
            # The status is enough. The server there may be any program, so redirects are not followed and the body is
            # not read.
            async with asyncio.timeout(_HEALTH), self._http.get(f"{base}/healthz", allow_redirects=False) as answer:
                answer.close()
        except TimeoutError:
            # If much more time has passed, this program itself was suspended.
            return time.monotonic() - began > _HEALTH + 1.0
        except aiohttp.ClientConnectorError as error:
            return error.os_error.errno not in _CUT_OFF
        except (aiohttp.ClientError, OSError):
            return True
        return True


@contextmanager
def _told(base: str) -> Iterator[None]:
    """Tell people that an instance does not answer, if its health is still unknown after a while."""
    if (tell := while_waiting.get()) is None:
        yield
        return
    silent = Error(Code.UNAVAILABLE, f"{base} does not answer yet.")
    telling = asyncio.get_running_loop().call_later(_TOLD_AFTER, tell, silent, _HEALTH - _TOLD_AFTER)
    try:
        yield
    finally:
        telling.cancel()
