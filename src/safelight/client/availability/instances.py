"""Use several instances of a service in turn, and avoid those that are down.

An instance that fails is avoided for a while, which doubles with each failure. Then a single request tries it, while
other requests use the other instances until that one has been answered (a circuit breaker for each instance).
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Collection, Sequence

from safelight.errors import Code, Error

_LAST_PORT = 65_535
_FIRST = 1.0
_LONGEST = 30.0
"""Seconds for which to avoid an instance after its first failure, and at most."""


class _Breaker:
    """The state of an instance that has failed."""

    def __init__(self) -> None:
        self.failures = 0
        self.alone_until = 0.0


class Instances:
    """The addresses of one service's instances."""

    def __init__(self) -> None:
        self._breakers: dict[str, _Breaker] = {}
        self._turn = itertools.count(random.randrange(1 << 16))  # noqa: S311 - clients that start together spread

    def choose(self, known: Sequence[str]) -> str:
        """Return the instances in turn, avoiding those that are down unless all are."""
        now = time.monotonic()
        well = [value for value in known if value not in self._breakers]
        due = [value for value in known if value in self._breakers and self._breakers[value].alone_until <= now]
        if due and well:
            self._breakers[due[0]].alone_until = now + _pause(self._breakers[due[0]].failures)
            return due[0]
        usable = well or list(known)
        return usable[next(self._turn) % len(usable)]

    def failed(self, value: str) -> None:
        """Avoid an instance for a while."""
        breaker = self._breakers.setdefault(value, _Breaker())
        breaker.failures += 1
        breaker.alone_until = time.monotonic() + _pause(breaker.failures)

    def answered(self, value: str) -> None:
        """Use an instance again."""
        self._breakers.pop(value, None)

    def keep(self, known: Sequence[str]) -> None:
        """Forget the instances that are no longer known."""
        for value in self._breakers.keys() - set(known):
            del self._breakers[value]


class Several:
    """An `Address` of several instances, given as `HOST:PORT,HOST:PORT` or as URLs: one is used until it fails."""

    def __init__(self, addresses: str) -> None:
        self._urls = [_url(one) for one in addresses.split(",") if one.strip()]
        if not self._urls:
            raise Error(Code.INVALID_REQUEST, f"{addresses!r} names no address. Write HOST:PORT.")
        self._instances = Instances()
        self._current: str | None = None

    async def resolve(self, apart: Collection[str] = ()) -> str:
        """Return the URL in use, or another one if that is in `apart`. Raises UNAVAILABLE if there is none."""
        if apart:
            return self._instances.choose(others(self._urls, apart))
        if self._current is None:
            self._current = self._instances.choose(self._urls)
        return self._current

    def failed(self, url: str) -> None:
        """Use another one from now on."""
        self._instances.failed(url)
        self._current = None

    def answered(self, url: str) -> None:
        """Record that an instance answers."""
        self._instances.answered(url)


def others(known: Sequence[str], apart: Collection[str]) -> list[str]:
    """Return the instances that are not in `apart`. Raises UNAVAILABLE if there are none."""
    left = [value for value in known if value not in apart]
    if not left:
        raise Error(Code.UNAVAILABLE, "There is no other instance of this service.")
    return left


def first_of(addresses: str) -> str:
    """Return the first of several addresses, for callers that need only one."""
    return addresses.partition(",")[0].strip()


def _url(address: str) -> str:
    """Return the URL of an address.

    Raises INVALID_REQUEST for what is none, also without a port, which would be that of a web server.
    """
    address = address.strip()
    if "://" in address:
        if not address.startswith(("http://", "https://")):
            raise Error(Code.INVALID_REQUEST, f"{address[:100]!r} is no URL of HTTP. Write HOST:PORT.")
        return address.rstrip("/")
    address = address.rstrip("/")
    found = re.fullmatch(r"(?:\[[^]/]+\]|[^/:[\]]+):([0-9]{1,5})", address)
    if found is None:
        example = ", and an IPv6 address in brackets" if address.count(":") > 1 else ""
        raise Error(Code.INVALID_REQUEST, f"{address[:100]!r} has no port. Write HOST:PORT{example}.")
    if int(found[1]) > _LAST_PORT:
        raise Error(Code.INVALID_REQUEST, f"{address[:100]!r}: the last port is {_LAST_PORT}.")
    return f"http://{address}"


def _pause(failures: int) -> float:
    pause = min(_LONGEST, _FIRST * (1 << min(failures, 10) - 1))
    return pause * random.uniform(0.75, 1.25)  # noqa: S311 - so that not every client comes back at once
