"""The parts of access control, put together: what authenticates requests, and what has endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from msgspec import Meta

from safelight import serve, settings
from safelight.access.networks import Networks
from safelight.accounts import Scope
from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.master.access.audit import Audit
from safelight.master.access.keys import Keys, flags
from safelight.master.access.links import Links
from safelight.master.access.proxy_user import ProxyUsers
from safelight.master.access.quotas import Quotas
from safelight.master.access.sessions import Sessions
from safelight.master.access.tenants import Tenants
from safelight.master.api.endpoint import HasEndpoints
from safelight.wire import DEFAULT_TENANT


class AccessConfig(serve.PublicConfig, frozen=True, kw_only=True):
    """The settings of who gets in at the master."""

    session_lifetime: Annotated[
        settings.Period, Meta(description="How long somebody who signed in on the page stays signed in.")
    ] = 12 * 3600.0
    user_header: Annotated[
        str,
        Meta(
            description="The header in which trusted proxies pass on the name of a user whom they signed in.",
            extra={"metavar": "HEADER"},
        ),
    ] = ""
    user_tenant: Annotated[
        str, Meta(description="The tenant of users whom proxies sign in.", extra={"metavar": "TENANT"})
    ] = DEFAULT_TENANT
    user_scopes: Annotated[
        str,
        Meta(description="What users whom proxies sign in may do, separated by commas.", extra={"metavar": "SCOPES"}),
    ] = "upload,read,operate"


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
        if config.user_header:
            proxies = service.gate.policy.proxies
            service.gate.authenticators.append(_proxy_users(config, self.quotas, proxies).authenticate)
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


def _proxy_users(config: AccessConfig, quotas: Quotas, proxies: Networks) -> ProxyUsers:
    """Make the authenticator of users whom proxies sign in; a mistake ends the program with a sentence."""
    if not proxies:
        settings.fail("--user-header: name the proxies that may send it (--trusted-proxies).")
    try:
        scopes = [Scope(name.strip()) for name in config.user_scopes.split(",")]
    except ValueError as error:
        settings.fail(f"--user-scopes: {error}; there are {', '.join(Scope)}.")
    return ProxyUsers(quotas, proxies, header=config.user_header, tenant=config.user_tenant, scopes=flags(scopes))
