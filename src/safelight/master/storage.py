"""The endpoints that report storage's use and accept another store of blobs."""

from __future__ import annotations

import asyncio

from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.master.access.audit import Audit
from safelight.master.access.tenant import check_operator, tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import DEFAULT_TENANT, KnownStore, StorageInfo, StoreClaim

_WITHIN = 3.0
"""Seconds within which a working storage answers."""


class Storage:
    """The handlers."""

    def __init__(self, storage: StorageClient, db: DbClient, audit: Audit) -> None:
        self._storage = storage
        self._db = db
        self._audit = audit

    async def get(self, request: web.Request) -> web.Response:
        """`GET /storage`."""
        if tenant_of(request) != DEFAULT_TENANT:
            raise Error(
                Code.FORBIDDEN,
                f"All tenants share storage; only users of the tenant {DEFAULT_TENANT} may see its size.",
            )
        return http.json_response(await self._storage.info())

    async def accept(self, request: web.Request) -> web.Response:
        """`POST /storage/accept`: for operators, since photos of every tenant that only the old store had are lost."""
        check_operator(request, "accept another store of photos")
        store = await http.read_json(request, KnownStore)
        if not store.id:
            raise Error(Code.INVALID_REQUEST, "Give the id of the store, which storage has logged.", position="$.id")
        async with self._audit.record(request, "storage.accept", store.id):
            if (await self._db.claim_store(StoreClaim())).id != store.id and await self._works():
                raise Error(Code.CONFLICT, "Storage works with the store that db knows. There is no other to accept.")
            return http.json_response(await self._db.accept_store(store))

    async def _works(self) -> bool:
        """Return whether storage answers: it would refuse if its store were not the known one."""
        try:
            async with asyncio.timeout(_WITHIN):
                await self._storage.info()
        except (Error, TimeoutError):
            return False
        return True

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/storage", handler=self.get, access=Access.READ, tag="tasks",
                summary="Get how much is stored and how much still fits",
                description=(
                    "`size` counts equal bytes once, whichever tenants stored them. `free` and `total` describe "
                    "the disk; they are null if photos are kept in a bucket."
                ),
                answer={JSON: StorageInfo}, errors=(Code.FORBIDDEN, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="POST", path="/storage/accept", handler=self.accept, access=Access.ADMINISTER, tag="access",
                summary="Accept another store of photos",
                description=(
                    "Storage refuses every request if it was started on another store than the one that db knows, "
                    "such as the empty directory of an unmounted disk, or if the database is new. This request says "
                    "that the old one is gone for good: tasks whose photos were only in an old store fail. While "
                    "storage works, another store is refused with 409. For administrators of the tenant `default`."
                ),
                body={JSON: KnownStore}, answer={JSON: KnownStore},
                errors=(Code.FORBIDDEN, Code.CONFLICT, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip
