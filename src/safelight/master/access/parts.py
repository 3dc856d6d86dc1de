"""Assemble the parts of access control: authenticators and endpoints."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from safelight import background, serve, settings
from safelight.access.networks import Networks
from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.master.access.audit import Audit
from safelight.master.access.keys import Keys, flags
from safelight.master.access.links import Links
from safelight.master.access.proxy_user import ProxyUsers
from safelight.master.access.quotas import Quotas
from safelight.master.access.sessions import Sessions
from safelight.master.access.tenant import of_existing, warn_of_missing
from safelight.master.access.tenants import Tenants
from safelight.master.api.endpoint import Endpoint, HasEndpoints
from safelight.wire import DEFAULT_TENANT
from safelight.wire.accounts import Scope

if TYPE_CHECKING:
    from safelight.master.access.oidc.sign_in import OidcSignIn


class AccessConfig(serve.PublicConfig, frozen=True, kw_only=True):
    """The access settings of the master."""

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
    oidc_issuer: Annotated[
        str,
        Meta(
            description="The OpenID Connect provider at which people may sign in: https://accounts.example.org.",
            extra={"metavar": "URL"},
        ),
    ] = ""
    oidc_client_id: Annotated[
        str, Meta(description="The id under which the provider knows this system.", extra={"metavar": "ID"})
    ] = ""
    oidc_client_secret_file: Annotated[
        str | None,
        Meta(description="The file with the secret that the provider gave this system.", extra={"metavar": "FILE"}),
    ] = None
    oidc_users: Annotated[
        str | None,
        Meta(
            description="A TOML file that says which users of the provider may sign in, and what they may do.",
            extra={"metavar": "FILE"},
        ),
    ] = None


class MasterAccess:
    """Keys, sessions, links, tenants and the audit log of one master."""

    def __init__(self, config: AccessConfig, service: serve.Service, db: DbClient) -> None:
        """Add the authenticators to the service's gate."""
        self.accounts = accounts = service.uses(AccountClient, "db", breaks=True)
        self.quotas = Quotas(accounts)
        self.audit = audit = Audit(accounts)
        self._keys = Keys(accounts, self.quotas, audit)
        links = Links(db, accounts, self.quotas, audit)
        sessions = Sessions(accounts, self._keys, self.quotas, audit, lifetime=config.session_lifetime)
        self._oidc = _oidc(config, sessions, self.quotas) if config.oidc_issuer else None
        self.routes = self._oidc.routes() if self._oidc is not None else []
        # Links are tried before sessions, so that signed-in users can open links of other tenants.
        service.gate.authenticators += [self._keys.authenticate, links.authenticate, sessions.authenticate]
        self._tenants = dict.fromkeys(self._oidc.tenants if self._oidc is not None else (), "--oidc-users")
        """The tenants that settings name, each with its setting."""
        if config.user_header:
            self._tenants[config.user_tenant] = "--user-tenant"
            proxies = service.gate.policy.proxies
            service.gate.authenticators.append(_proxy_users(config, self.quotas, proxies).authenticate)
        self.parts: tuple[HasEndpoints, ...] = (
            self._keys,
            sessions,
            links,
            Tenants(accounts, self.quotas, audit),
            audit,
        )

    def checked(self, endpoint: Endpoint) -> Endpoint:
        """Let an endpoint refuse tenants that do not exist, and record in the audit log what it does."""
        return of_existing(self.audit.audited(endpoint), self.quotas.tenant)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Record in db when keys were used, and keep a session to the identity provider, until the context ends.

        Tenants that the settings name and that do not exist are looked for meanwhile.
        """
        async with AsyncExitStack() as stack:
            if self._oidc is not None:
                await stack.enter_async_context(self._oidc.provider.connected())
            await stack.enter_async_context(self._keys.noting())
            look = partial(warn_of_missing, self._tenants, self.accounts.tenant)
            await stack.enter_async_context(background.running(look, "tenants of settings"))
            yield


def _oidc(config: AccessConfig, sessions: Sessions, quotas: Quotas) -> "OidcSignIn":
    """Make the sign-in by an identity provider; an invalid setting ends the program with a message."""
    if not config.public_url:
        settings.fail("--oidc-issuer: say where the provider sends people back to (--public-url).")
    if not config.oidc_client_id or config.oidc_users is None:
        settings.fail("--oidc-issuer: give --oidc-client-id, and --oidc-users with those who may sign in.")
    try:
        from safelight.master.access.oidc.sign_in import configured  # noqa: PLC0415 - small images lack the library
    except ModuleNotFoundError:
        settings.fail("--oidc-issuer needs the extra oidc: pip install 'safelight[oidc]'.")
    try:
        return configured(
            config.oidc_issuer,
            config.oidc_client_id,
            sessions,
            quotas,
            secret=Path(config.oidc_client_secret_file) if config.oidc_client_secret_file else None,
            users=Path(config.oidc_users),
        )
    except ValueError as error:
        settings.fail(f"{error}.")


def _proxy_users(config: AccessConfig, quotas: Quotas, proxies: Networks) -> ProxyUsers:
    """Make the authenticator of users whom proxies sign in; an invalid setting ends the program with a message."""
    if not proxies:
        settings.fail("--user-header: name the proxies that may send it (--trusted-proxies).")
    try:
        scopes = [Scope(name.strip()) for name in config.user_scopes.split(",")]
    except ValueError as error:
        settings.fail(f"--user-scopes: {error}; there are {', '.join(Scope)}.")
    return ProxyUsers(quotas, proxies, header=config.user_header, tenant=config.user_tenant, scopes=flags(scopes))
