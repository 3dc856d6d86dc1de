"""Limit the number of event streams, and share the places among tenants."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from safelight.errors import Code, Error


class Readers:
    """The places for streams.

    If all are taken, a tenant with fewer streams takes the place of the newest stream of the tenant with the most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[object, tuple[str, asyncio.Transport | None]] = {}

    def __len__(self) -> int:
        """Return how many streams are open."""
        return len(self._open)

    @contextmanager
    def take(self, tenant: str, transport: asyncio.Transport | None) -> Iterator[None]:
        """Hold a place for a stream; its connection is closed when the place is lost. Raises TOO_MANY_REQUESTS."""
        if len(self._open) >= self._most:
            self._make_room(tenant)
        place = object()
        self._open[place] = tenant, transport
        try:
            yield
        finally:
            self._open.pop(place, None)

    def _make_room(self, tenant: str) -> None:
        held = Counter(holder for holder, _ in self._open.values())
        largest, most = next(iter(held.most_common(1)), (tenant, 0))
        if most <= held[tenant] + 1:
            sentence = f"{len(self._open)} event streams are open, which is the limit. Try again later."
            raise Error(Code.TOO_MANY_REQUESTS, sentence, retry_after=5)
        loser = next(place for place, (holder, _) in reversed(self._open.items()) if holder == largest)
        _, transport = self._open.pop(loser)
        if transport is not None:
            transport.abort()
