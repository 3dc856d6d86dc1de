"""The route that `safelight backup` calls: a copy of the database, made while the service works."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from aiohttp import web

from safelight.access import route
from safelight.access.caller import Access
from safelight.db.store import Snapshots
from safelight.errors import Code, Error
from safelight.files.opening import opened

_CHUNK = 1 << 20


class Backup:
    """Makes copies in a directory, one at a time, and sends them. They are deleted when they are sent."""

    def __init__(self, store: object, directory: Path) -> None:
        """Delete copies that a killed service has left."""
        self._store = store
        self._directory = directory
        self._lock = asyncio.Lock()
        for left in directory.glob("copy-*.sqlite*"):
            left.unlink()

    def routes(self) -> list[route.Route]:
        """Return the route."""
        return route.post("/backup", self._send, Access.CLUSTER)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        """Answer with a SQLite file. Raises CONFLICT if the backend has no file."""
        if not isinstance(self._store, Snapshots):
            detail = (
                "This database is a server's, which has backups of its own: for PostgreSQL, run pg_dump. "
                "If the photos need a copy too, run safelight migrate --to after that."
            )
            raise Error(Code.CONFLICT, detail)
        copy = self._directory / f"copy-{secrets.token_hex(8)}.sqlite"
        async with self._lock:
            try:
                await self._store.snapshot(copy)
                return await _stream(request, copy)
            finally:
                await asyncio.to_thread(copy.unlink, missing_ok=True)


async def _stream(request: web.Request, copy: Path) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/vnd.sqlite3"})
    async with opened(lambda: copy.open("rb")) as file:
        response.content_length = (await asyncio.to_thread(copy.stat)).st_size
        await response.prepare(request)
        while block := await asyncio.to_thread(file.read, _CHUNK):
            await response.write(block)
    await response.write_eof()
    return response
