"""Check that this is the store of blobs that db knows, and not, for example, the empty directory of an unmounted disk.

A store has an id, which is stored beside its blobs (`identity`). db remembers the first id that it gets. Until db has
confirmed that it knows this store, or none yet, requests are refused as by a storage that does not work, so that no
photo is blamed.
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
"""The name of the file or object with the id of a store, beside its blobs."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds before db is asked again: soon at the start, when db may be starting too."""
_WAIT = 2.0
"""Seconds that a request waits for db's answer."""
_ID = re.compile("[0-9a-f]{32}")
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics", "/shutdown"})
"""Paths that are answered whichever store this is."""


class Mark(Protocol):
    """The file, or object of a bucket, with the id of a store. Its methods block."""

    def read(self) -> str:
        """Return the text, or "" if there is none."""
        ...

    def create(self, data: str) -> None:
        """Write the text durably, unless another instance has written one."""
        ...


class Identity:
    """Asks db whether it knows this store. Until it does, requests wait for a while and are then refused."""

    def __init__(
        self, mark: Mark, claim: Callable[[KnownStore], Awaitable[KnownStore]], restart: Callable[[], None]
    ) -> None:
        """Take `claim`, which sends an id to db, and `restart`, which is called when the right store replaces a wrong
        one.
        """
        self._mark = mark
        self._claim = claim
        self._restart = restart
        self._wrong: str | None = None
        """The id of a store that db does not know."""
        self._refusal = "Storage is waiting for db to confirm that this is the store of its photos."
        self._accepted = asyncio.Event()

    @property
    def is_accepted(self) -> bool:
        """Whether db has confirmed this store."""
        return self._accepted.is_set()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask db until it knows this store, until the context ends."""
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
        """Send the id of this store to db. Raises what db raises, and UNAVAILABLE if the mark cannot be read."""
        own = await asyncio.to_thread(guarded, _read_or_make, self._mark)
        try:
            known = (await self._claim(KnownStore(id=own))).id
        except Error as error:
            if error.code not in (Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED):
                raise
            known = ""  # older dbs, and those of the classic protocol, do not know this request
        if known not in ("", own):
            self._refuse(own, known)
        elif self._wrong not in (None, own):
            log.info("The store that db knows is now present; storage restarts with it")
            self._restart()
        else:
            self._accepted.set()

    def refusing(self) -> Middleware:
        """Return the middleware that refuses requests while the store is not accepted."""

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
                log.debug("Cannot find out whether db knows this store: %s", error.detail)
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
    """Return the id of a store, creating it if there is none; "" if it cannot be written or is damaged."""
    if not mark.read():
        try:
            mark.create(f"{secrets.token_hex(16)}\n")
        except (OSError, Error) as error:  # a full or read-only disk can still be read
            log.warning("The id of the store cannot be written to %s: %s", mark, error)
    own = mark.read()
    return own if _ID.fullmatch(own) else ""
