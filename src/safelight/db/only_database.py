"""Register this db only while no other database is registered at the key-value store.

Services use all registered instances of db in turn. Instances of one PostgreSQL database have the same tasks; of two
databases, each would know half of them, and the other would answer that they do not exist.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from safelight.client.availability.instances import Several
from safelight.client.base import Connection
from safelight.client.db import DbClient
from safelight.client.discovery import REGISTRATION_KEYS
from safelight.errors import Code, Error
from safelight.wire import StoreClaim

if TYPE_CHECKING:
    from safelight.db.store import TaskStore
    from safelight.service import Service

log = logging.getLogger(__name__)

_LIMIT = 2.0
"""Seconds that another instance has to say which database it is."""


def require(service: Service, store: TaskStore) -> None:
    """Let a service that registers ask first whether another database is registered."""
    if service.discovery is not None:
        only = OnlyDatabase(service, store)
        service.may_register = only.may_register
        service.checks["registration"] = only.check


class OnlyDatabase:
    """Decides whether this db may be registered. If two databases meet, the one that knows a store of photos stays."""

    def __init__(self, service: Service, store: TaskStore) -> None:
        self._service = service
        self._store = store
        self._refusal = ""

    async def may_register(self, registered: bool) -> None:  # noqa: FBT001 - the only argument
        """Raise CONFLICT if another database has precedence; `registered` says whether this one is registered now."""
        refusal = await self._other(registered=registered)
        if refusal and refusal != self._refusal:
            log.error("%s", refusal)
        self._refusal = refusal
        await self.check()

    async def check(self) -> None:
        """Raise CONFLICT if this db is not registered because of another database."""
        if self._refusal:
            raise Error(Code.CONFLICT, self._refusal)

    async def _other(self, *, registered: bool) -> str:
        """Return what to tell about another database that has precedence, or an empty string."""
        addresses = await self._addresses()
        if not addresses:
            return ""
        own = await self._store.claim_store(StoreClaim())
        for address, other in zip(addresses, await asyncio.gather(*map(self._ask, addresses)), strict=True):
            if other is not None and other.db != own.db and _yields(own, other, registered=registered):
                return (
                    f"Another database is registered at the key-value store, by the db at {address}. No service uses "
                    "this one until that one has ended. Instances of db that run side by side share one PostgreSQL "
                    "database (--store postgresql://...)."
                )
        return ""

    async def _addresses(self) -> list[str]:
        """Return the addresses of the other registered instances."""
        assert self._service.discovery is not None
        try:
            page = await self._service.discovery.store.entries()
        except Error:
            return []  # it is away, or speaks only the classic protocol and holds one address
        own, key = self._service.registered, REGISTRATION_KEYS["db"]
        return [entry.value for entry in page.entries if entry.key == key and entry.instance and entry.value != own]

    async def _ask(self, address: str) -> StoreClaim | None:
        """Return the ids of another database and of its store; None if nothing answers, as after a kill."""
        connection = Connection(
            self._service.session, Several(address), credentials=self._service.credentials, retry_for=0.0
        )
        try:
            async with asyncio.timeout(_LIMIT):
                return await DbClient(connection).claim_store(StoreClaim())
        except (Error, TimeoutError):
            return None


def _yields(own: StoreClaim, other: StoreClaim, *, registered: bool) -> bool:
    """Return whether the other database has precedence. Of two that were registered at once, it is the lower id."""
    if bool(own.id) != bool(other.id):
        return bool(other.id)
    return not registered or other.db < own.db
