"""Know whether a service's backend (PostgreSQL, a bucket, etcd) can be reached, for readiness and metrics.

The backend is asked at intervals, however often readiness is. Answers to the service's own work count as well. One
failure may be a slow answer, so only failures that last make the service not ready; the first success ends that.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from safelight import background
from safelight.errors import Code, Error

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds without an answer after which the backend is asked."""
AGAIN = 0.5
"""Seconds before it is asked again after a failure."""
LIMIT = 3.0
"""Seconds that it has for an answer."""
_FAILURES, _LASTING = 2, 3.0
"""How many failures in a row, and over how many seconds, mean that it cannot be reached."""


class Reachability:
    """What is known about one backend. `name` is its name in readiness and metrics."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._heard = -math.inf
        self._failures = 0
        self._failing = math.inf
        """When the first of the failures was found, in seconds of the monotonic clock."""
        self._since = ""
        self._reason = ""
        self._told = False
        self._waiting: set[asyncio.Timeout] = set()

    @property
    def is_reachable(self) -> bool:
        """Whether the backend answers, as far as is known."""
        return self._failures < _FAILURES or time.monotonic() - self._failing < _LASTING

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to reach the backend failed."""
        return self._failures > 0

    def answered(self) -> None:
        """Record an answer."""
        self._heard = time.monotonic()
        self._failures = 0
        if self._told:
            self._told = False
            log.info("%s can be used again", self.name)

    def failed(self, reason: str) -> None:
        """Record a failure, with the reason as a sentence."""
        if not self._failures:
            self._failing = time.monotonic()
            self._since = datetime.now(UTC).isoformat(" ", "seconds")
        self._failures += 1
        self._reason = reason
        if not self._told and not self.is_reachable:
            self._told = True
            log.error("%s cannot be used, so this service is not ready: %s", self.name, reason)
        if not self.is_reachable:
            for request in self._waiting:
                request.reschedule(asyncio.get_running_loop().time())

    async def check(self) -> None:
        """Raise UNAVAILABLE, with the reason and since when, unless the backend can be reached. Sends nothing."""
        if not self.is_reachable:
            raise Error(
                Code.UNAVAILABLE,
                f"{self._reason} This has lasted since {self._since}.",
                since=self._since,
                retry_after=1,
            )

    @asynccontextmanager
    async def required(self) -> AsyncIterator[None]:
        """Raise UNAVAILABLE at once while the backend cannot be reached, and as soon as it is found to be so.

        A request to a server that accepts it and never answers would otherwise last as long as its own time limits.
        """
        await self.check()
        request = asyncio.timeout(None)
        try:
            async with request:
                self._waiting.add(request)
                try:
                    yield
                finally:
                    self._waiting.discard(request)
        except TimeoutError:
            if not request.expired():
                raise
            await self.check()
            raise Error(Code.UNAVAILABLE, f"{self._reason} It can be used again.") from None

    @asynccontextmanager
    async def asked(self, ask: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """Call `ask`, which raises `Error` if the backend does not answer, periodically until the context ends."""

        async def follow() -> None:
            while True:
                if time.monotonic() - self._heard >= EVERY:
                    await self._ask(ask)
                await asyncio.sleep(AGAIN if self.is_failing else EVERY)

        self.answered()  # whoever opened it has reached it
        async with background.running(follow, f"{self.name} asked"):
            yield

    async def _ask(self, ask: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(LIMIT):
                await ask()
        except Error as error:
            self.failed(error.detail)
        except TimeoutError:
            self.failed(f"The backend {self.name} gives no answer within {LIMIT:g} seconds.")
        else:
            self.answered()
