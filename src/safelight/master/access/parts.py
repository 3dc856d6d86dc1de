"""The parts of access control, put together: what authenticates requests, and what has endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from msgspec import Meta

from safelight import serve, settings
from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.master.access.audit import Audit
from safelight.master.access.keys import Keys
from safelight.master.access.links import Links
from safelight.master.access.quotas import Quotas
from safelight.master.access.sessions import Sessions
from safelight.master.access.tenants import Tenants
from safelight.master.api.endpoint import HasEndpoints


class AccessConfig(serve.PublicConfig, frozen=True, kw_only=True):
    """The settings of who gets in at the master."""

    session_lifetime: Annotated[
        settings.Period, Meta(description="How long somebody who signed in on the page stays signed in.")
    ] = 12 * 3600.0


class MasterAccess:
    """Keys, sessions, links, tenants and the audit log of one master."""

    def __init__(self, config: AccessConfig, service: serve.Service, db: DbClient) -> None:
        """Add what authenticates requests to the service's gate."""
        accounts = AccountClient(service.needs("db"))
        self.quotas = Quotas(accounts)
        audit = Audit(accounts)
        self.audited = audit.audited
        self._keys = Keys(accounts, self.quotas, audit)
        links = Links(db, accounts, audit)
        sessions = Sessions(accounts, self._keys, self.quotas, audit, lifetime=config.session_lifetime)
        # A link comes before a session: whoever is signed in may open one of another tenant.
        service.gate.authenticators += [self._keys.authenticate, links.authenticate, sessions.authenticate]
        self.parts: tuple[HasEndpoints, ...] = (
            self._keys,
            sessions,
            links,
            Tenants(accounts, self.quotas, audit),
            audit,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Note in db when keys were used, while the context lasts."""
        async with self._keys.noting():
            yield
