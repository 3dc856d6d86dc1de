"""What storage holds, and how much still fits."""

from __future__ import annotations

from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import DEFAULT_TENANT, StorageInfo


class StorageUse:
    """The handler of storage's figures."""

    def __init__(self, storage: StorageClient) -> None:
        self._storage = storage

    async def get(self, request: web.Request) -> web.Response:
        """`GET /storage`."""
        if tenant_of(request) != DEFAULT_TENANT:
            raise Error(
                Code.FORBIDDEN, f"Storage is shared by every tenant; only people of {DEFAULT_TENANT} see its size."
            )
        return http.json_response(await self._storage.info())

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/storage", handler=self.get, access=Access.READ, tag="tasks",
                summary="Get how much is stored and how much still fits",
                description=(
                    "`size` counts the same bytes once, whichever tenants stored them. `free` and `total` describe the "
                    "disk and are null where photos are kept in a bucket."
                ),
                answer={JSON: StorageInfo}, errors=(Code.FORBIDDEN, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip
