"""Check that this is the store of blobs that db knows, and not, for example, the empty directory of an unmounted disk.

A store has an id, which is stored beside its blobs (`identity`). db remembers the first id that it gets. Until db has
confirmed that it knows this store, or none yet, requests are refused as by a storage that does not work, so that no
photo is blamed.

The id of the database is stored there too (`db`), once it knows the store. So a database that was created anew because
the disk of the old one is not mounted is not taken for the old one. Both ids are checked periodically.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from safelight import background, http
from safelight.errors import Code, Error
from safelight.storage.files import guarded
from safelight.wire import StoreClaim

log = logging.getLogger(__name__)

MARK = "identity"
"""The name of the file or object with the id of a store, beside its blobs."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds before db is asked again: soon at the start, when db may be starting too."""
_AGAIN = 5.0
"""Seconds between two checks of an accepted store: its disk, or that of db, may have been unmounted."""
_WAIT = 2.0
"""Seconds that a request waits for db's answer."""
_ID = re.compile("[0-9a-f]{32}")
_UNKNOWN_REQUEST = frozenset({Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED, Code.INVALID_REQUEST})
"""The errors with which a db answers a request that it does not know: by 404, 405, 501 or 400."""
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics", "/shutdown"})
"""Paths that are answered whichever store this is."""


class Mark(Protocol):
    """A file, or object of a bucket, with an id, beside the blobs. Its methods block."""

    def read(self) -> str:
        """Return the text, or "" if there is none."""
        ...

    def create(self, data: str) -> None:
        """Write the text durably, unless another instance has written one."""
        ...


class Marks(NamedTuple):
    """The ids beside the blobs: that of their store, and that of the database that refers to them."""

    store: Mark
    db: Mark


class Identity:
    """Asks db whether it knows this store. Until it does, requests wait for a while and are then refused."""

    def __init__(
        self, marks: Marks, claim: Callable[[StoreClaim], Awaitable[StoreClaim]], restart: Callable[[], None]
    ) -> None:
        """Take `claim`, which sends an id to db, and `restart`, for when the right store replaces a wrong one."""
        self._marks = marks
        self._claim = claim
        self._restart = restart
        self._wrong: str | None = None
        """The id of the store that was refused last."""
        self._refusal = "Storage is waiting for db to confirm that this is the store of its photos."
        self._accepted = asyncio.Event()

    @property
    def is_accepted(self) -> bool:
        """Whether db has confirmed this store."""
        return self._accepted.is_set()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask db whether it knows this store, periodically until the context ends."""
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
        made = self.is_accepted or self._wrong is not None
        found = await asyncio.to_thread(guarded, _read, self._marks, not made)
        try:
            known = await self._claim(found)
        except Error as error:
            if error.code not in _UNKNOWN_REQUEST:
                raise
            known = StoreClaim()  # older dbs, and those of the classic protocol, do not know this request
        if known.id not in ("", found.id):
            self._refuse(found.id, _other_store(found.id, known.id))
        elif not known.id and known.db and found.db not in ("", known.db):
            self._refuse(found.id, _other_database(found.id))
        elif self._wrong not in (None, found.id):
            log.info("The store that db knows is now present; storage restarts with it")
            self._restart()
        else:
            if known.db and not found.db:
                await asyncio.to_thread(_keep, self._marks.db, known.db)
            self._wrong = None
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
        while True:
            told = False
            try:
                await self.look()
                told = True
            except Error as error:
                log.debug("Cannot find out whether db knows this store: %s", error.detail)
            if told and self.is_accepted:
                await asyncio.sleep(_AGAIN)
                pause = _FIRST_PAUSE  # db may stop from now on, and another one may start
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _refuse(self, own: str, refusal: str) -> None:
        if self._refusal != refusal:
            log.error("%s Every request is refused until then.", refusal)
        self._refusal, self._wrong = refusal, own
        self._accepted.clear()


def _other_store(own: str, known: str) -> str:
    return (
        f"This is not the store of photos that db knows: its id is {own or 'missing'}, not {known}. Mount its "
        "disk, or correct --store. If the photos in the old store are gone for good, run safelight accept-storage "
        f"{own or 'ID'}."
    )


def _other_database(own: str) -> str:
    return (
        "The database is not the one that knows this store of photos: it is new. Mount the disk of db, or correct its "
        f"--data or --store. If the old database is gone for good, run safelight accept-storage {own or 'ID'}."
    )


def read_id(mark: Mark) -> str:
    """Return the id of a store, or "" if it has none or a damaged one."""
    own = mark.read()
    return own if _ID.fullmatch(own) else ""


def _read(marks: Marks, make: bool) -> StoreClaim:  # noqa: FBT001 - called in a thread
    """Return the ids beside the blobs. With `make`, a store without an id gets one, if it can be written."""
    if make and not marks.store.read():
        _keep(marks.store, secrets.token_hex(16))
    return StoreClaim(id=read_id(marks.store), db=marks.db.read())


def _keep(mark: Mark, id: str) -> None:
    try:
        mark.create(f"{id}\n")
    except (OSError, Error) as error:  # a full or read-only disk can still be read
        log.warning("%s cannot be written: %s", mark, error)
