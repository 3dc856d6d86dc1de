"""Limit the number of concurrent uploads, share the places among clients, and take them from very slow ones.

When all places are taken, a new upload gets the place of the slowest upload, if that is unreasonably slow, or else a
place of the client with the most uploads, if the new upload's client has fewer. Otherwise it is refused. Only time in
which we wait for the client counts, since a slow storage is not its fault.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from safelight.errors import Code, Error, plural

_GRACE = 2.0
"""Seconds of waiting for an upload's bytes before its pace is checked."""
_SLOW = 16 * 1024
"""Bytes per second below which an upload may lose its place to another one."""
_WINDOW = 5.0
"""The least number of seconds of waiting over which a pace is measured; at most twice as many."""


class Place:
    """One upload's place."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.lost = False
        self._task = asyncio.current_task()
        self._bytes = 0
        self._waited = 0.0
        self._waiting_since: float | None = None
        self._marks = ((0.0, 0), (0.0, 0))
        """Two earlier moments, as seconds waited and bytes received; the pace is measured from the first."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time until the client has sent something."""
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - self._waiting_since
            self._waiting_since = None

    def came(self, size: int) -> None:
        """Count bytes that the client has sent."""
        self._bytes += size
        if self._waited - self._marks[1][0] > _WINDOW:
            self._marks = (self._marks[1], (self._waited, self._bytes))

    async def counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass on what a client sends, and count it."""
        while True:
            with self.waiting():
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            self.came(len(chunk))
            yield chunk

    def pace(self, now: float) -> float | None:
        """Return the bytes per second that the client sends, or None if we have not waited for it long enough."""
        if self._waiting_since is None:
            return None
        waited = self._waited + now - self._waiting_since
        if waited < _GRACE:
            return None
        since, size = self._marks[0]
        return (self._bytes - size) / (waited - since)

    def lose(self) -> None:
        """Give the place to another upload."""
        self.lost = True
        if self._task is not None:
            self._task.cancel()

    def given_up(self) -> Error:
        """Return the error for the client, instead of the cancellation by `lose`."""
        if self._task is not None:
            self._task.uncancel()
        sentence = "The upload came too slowly while others waited, and gave up its place. Send it again later."
        return Error(Code.TOO_MANY_REQUESTS, sentence, retry_after=5)


class Places:
    """The places for uploads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: set[Place] = set()

    def __len__(self) -> int:
        """Return how many places are taken."""
        return len(self._taken)

    @contextmanager
    def take(self, client: str) -> Iterator[Place]:
        """Hold a place for a client, an address or a tenant. Raises TOO_MANY_REQUESTS, also later when it is lost."""
        if len(self._taken) >= self._most:
            self._make_room(client)
        place = Place(client)
        self._taken.add(place)
        try:
            yield place
        except asyncio.CancelledError:
            if place.lost:
                raise place.given_up() from None
            raise
        finally:
            self._taken.discard(place)

    def _make_room(self, client: str) -> None:
        now = time.monotonic()
        paces = {place: pace for place in self._taken if (pace := place.pace(now)) is not None}
        slow = [place for place, pace in paces.items() if pace < _SLOW]
        held = Counter(place.client for place in self._taken)
        most = max(held.values())
        if not slow and most > held[client] + 1:
            slow = [place for place in paces if held[place.client] == most]
        if not slow:
            places = len(self._taken)
            sentence = f"The limit of {places} {plural(places, 'upload')} at once is reached. Try again soon."
            raise Error(Code.TOO_MANY_REQUESTS, sentence, retry_after=1)
        loser = min(slow, key=lambda place: paces[place])
        self._taken.discard(loser)
        loser.lose()
