"""Whether this is the store of blobs that db knows: an empty directory in place of a disk is not.

A store has an id, which lies beside its blobs (`identity`). db keeps the id that it was told first. Until db has said
that it knows this store, or none, requests are refused, as with a storage that does not work: no photo is to blame.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from safelight import background, http
from safelight.errors import Code, Error
from safelight.storage.files import guarded
from safelight.wire import KnownStore

log = logging.getLogger(__name__)

MARK = "identity"
"""The name of what holds the id of a store, beside its blobs."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds after which db is asked again: soon at the start, when db starts as well."""
_WAIT = 2.0
"""Seconds that a request waits for db's answer."""
_ID = re.compile("[0-9a-f]{32}")
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics", "/shutdown"})
"""What is answered whichever store this is."""


class Mark(Protocol):
    """Where the id of a store is kept: a file, or an object of a bucket. Its methods block."""

    def read(self) -> str:
        """Return the text, "" where there is none."""
        ...

    def create(self, data: str) -> None:
        """Write the text durably, unless somebody else has written one."""
        ...


class Identity:
    """Asks db whether it knows this store, and keeps requests waiting, and then refuses them, until it does."""

    def __init__(
        self, mark: Mark, claim: Callable[[KnownStore], Awaitable[KnownStore]], restart: Callable[[], None]
    ) -> None:
        """Take `claim`, which tells db an id, and `restart`, called when the right store replaces another."""
        self._mark = mark
        self._claim = claim
        self._restart = restart
        self._wrong: str | None = None
        """The id of a store that db does not know."""
        self._refusal = "Storage waits for db, which knows whether this is the store of its photos."
        self._accepted = asyncio.Event()

    @property
    def is_accepted(self) -> bool:
        """Whether db knows this store, or none yet."""
        return self._accepted.is_set()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask db until it knows this store, for as long as the context lasts."""
        async with background.running(self._ask, "identity"):
            yield

    async def accepted(self) -> None:
        """Wait until db knows this store."""
        await self._accepted.wait()

    async def check(self) -> None:
        """Raise UNAVAILABLE unless db knows this store."""
        if not self.is_accepted:
            raise Error(Code.UNAVAILABLE, self._refusal)

    async def look(self) -> None:
        """Tell db which store this is. Raises what db raises, and UNAVAILABLE where the mark cannot be read."""
        own = await asyncio.to_thread(guarded, _read_or_make, self._mark)
        try:
            known = (await self._claim(KnownStore(id=own))).id
        except Error as error:
            if error.code not in (Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED):
                raise
            known = ""  # an older db, and one of the classic protocol, knows of no stores
        if known not in ("", own):
            self._refuse(own, known)
        elif self._wrong not in (None, own):
            log.info("The store that db knows is here now; storage starts again with it")
            self._restart()
        else:
            self._accepted.set()

    def refusing(self) -> Middleware:
        """Return what refuses requests to a store that is not accepted."""

        @web.middleware
        async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self.is_accepted and request.path not in _ALWAYS:
                try:
                    async with asyncio.timeout(0.0 if self._wrong is not None else _WAIT):
                        await self.accepted()
                except TimeoutError:
                    return http.problem_response(Error(Code.UNAVAILABLE, self._refusal))
            return await handler(request)

        return handle

    async def _ask(self) -> None:
        pause = _FIRST_PAUSE
        while not self.is_accepted:
            try:
                await self.look()
            except Error as error:
                log.debug("Whether db knows this store is not known: %s", error.detail)
            if not self.is_accepted:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _refuse(self, own: str, known: str) -> None:
        self._refusal = (
            f"This is not the store of photos that db knows: its id is {own or 'missing'}, not {known}. Mount its "
            "disk, or correct --store. If the photos in the old store are gone for good, run safelight accept-storage "
            f"{own or 'ID'}."
        )
        if self._wrong != own:
            log.error("%s Every request is refused until then.", self._refusal)
        self._wrong = own


def _read_or_make(mark: Mark) -> str:
    """Return the id of a store, which gets one unless it has one; "" where none can be written or it is damaged."""
    if not mark.read():
        try:
            mark.create(f"{secrets.token_hex(16)}\n")
        except (OSError, Error) as error:  # a disk that is full or read-only can still be read from
            log.warning("The id of the store cannot be written to %s: %s", mark, error)
    own = mark.read()
    return own if _ID.fullmatch(own) else ""
