"""List the registered services and whether each is ready."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.availability.instances import Several
from safelight.client.discovery import REGISTRATION_KEYS
from safelight.errors import Code, Error
from safelight.master.access.tenant import check_operator
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.service import Service

_WAIT = 3.0


class ServiceSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An instance of a service. `ready` says whether it can work, and `detail` why it cannot."""

    name: str
    address: str
    ready: bool
    detail: str = ""


class Services:
    """The handler of the list of services."""

    def __init__(self, service: Service) -> None:
        assert service.discovery is not None
        self._service = service
        self._discovery = service.discovery

    async def get(self, request: web.Request) -> web.Response:
        """`GET /services`."""
        check_operator(request, "see where the services are")
        stores = [("keyvaluestore", address.strip()) for address in self._discovery.keyvaluestore.split(",")]
        # Use the addresses that discovery already knows, so that a key-value store that does not answer causes no
        # delay.
        known = [(name, address) for name in sorted(REGISTRATION_KEYS) for address in self._discovery.known(name)]
        found = await asyncio.gather(*(self._look(*each) for each in [*stores, *known]))
        return http.json_response([*found, *self._absent()])

    def _absent(self) -> list[ServiceSeen]:
        """Return the services without a known instance, except the master, which may not be registered yet."""
        return [
            ServiceSeen(name=name, address="", ready=False, detail=self._discovery.absence(name).detail)
            for name in REGISTRATION_KEYS
            if name != "master" and not self._discovery.known(name)
        ]

    async def _look(self, name: str, address: str) -> ServiceSeen:
        connection = self._service.connection(Several(address))
        try:
            async with asyncio.timeout(_WAIT):
                await connection.call("GET", "/readyz", bytes, retry=False)
        except Error as error:
            return ServiceSeen(name=name, address=address, ready=False, detail=error.detail)
        except TimeoutError:
            return ServiceSeen(name=name, address=address, ready=False, detail="It did not answer in time.")
        return ServiceSeen(name=name, address=address, ready=True)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/services", handler=self.get, access=Access.ADMINISTER, tag="tasks",
                summary="List the services and whether each is ready",
                description="For administrators of the tenant `default`.",
                answer={JSON: list[ServiceSeen]}, errors=(Code.FORBIDDEN, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip
