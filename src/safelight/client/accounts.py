"""db's data for access control over HTTP, with the methods of `db.accounts.store.AccountStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from safelight.client.base import ServiceClient
from safelight.client.requests.repeating import deleted
from safelight.wire.accounts import (
    ApiKey,
    AuditEntry,
    AuditPage,
    Granted,
    Purpose,
    Session,
    SigningKey,
    Tenant,
    TenantUse,
    Ticket,
    Wanted,
)


def _path(kind: str, id: str, action: str = "") -> str:
    return f"/{kind}/{quote(id, safe='')}{action}"


class AccountClient(ServiceClient):
    """Tenants, API keys, sessions, tickets, signing keys and the audit log."""

    async def tenants(self) -> list[Tenant]:
        """Return all tenants by id."""
        return await self._connection.call("GET", "/tenants", list[Tenant])

    async def tenant(self, id: str) -> Tenant:
        """Return a tenant. Raises NOT_FOUND."""
        return await self._connection.call("GET", _path("tenants", id), Tenant)

    async def create_tenant(self, tenant: Tenant) -> Tenant:
        """Create a tenant. Raises CONFLICT. Not retried, since a second attempt would conflict with the first."""
        return await self._connection.call("POST", "/tenants", Tenant, json=tenant, retry=False)

    async def change_tenant(self, tenant: Tenant) -> Tenant:
        """Replace a tenant's name, weight, limits and whether it is disabled. Raises NOT_FOUND."""
        return await self._connection.call("PUT", _path("tenants", tenant.id), Tenant, json=tenant)

    async def pause(self, id: str, *, paused: bool) -> Tenant:
        """Pause a tenant's queue, or resume it. Raises NOT_FOUND."""
        return await self._connection.call("POST", _path("tenants", id) + ("/pause" if paused else "/resume"), Tenant)

    async def pause_recipe(self, id: str, recipe: str, *, paused: bool) -> Tenant:
        """Pause a recipe of a tenant, or resume it. Raises NOT_FOUND, TOO_MANY_REQUESTS."""
        path = _path("tenants", id, f"/recipes/{quote(recipe, safe='')}") + ("/pause" if paused else "/resume")
        return await self._connection.call("POST", path, Tenant)

    async def delete_tenant(self, id: str) -> None:
        """Delete a tenant with its keys, sessions, recipes and webhook calls. Raises NOT_FOUND, CONFLICT."""
        await deleted(self._connection, _path("tenants", id))

    async def use(self) -> list[TenantUse]:
        """Return what each tenant uses."""
        return await self._connection.call("GET", "/use", list[TenantUse])

    async def grant(self, id: str, wanted: Wanted) -> Granted:
        """Grant a master a part of a tenant's limits. Raises NOT_FOUND.

        A retry takes requests twice, but only a fraction of a second's worth.
        """
        return await self._connection.call("POST", _path("tenants", id, "/grant"), Granted, json=wanted)

    async def keys(self, *, tenant: str | None = None) -> list[ApiKey]:
        """Return the keys of a tenant, or of all, oldest first."""
        return await self._connection.call("GET", "/keys", list[ApiKey], params={"tenant": tenant})

    async def key(self, id: str) -> ApiKey:
        """Return a key. Raises NOT_FOUND."""
        return await self._connection.call("GET", _path("keys", id), ApiKey)

    async def create_key(self, key: ApiKey) -> ApiKey:
        """Store a new key. Raises NOT_FOUND, CONFLICT."""
        return await self._connection.call("POST", "/keys", ApiKey, json=key, retry=False)

    async def rotate_key(self, id: str, digest: str, *, overlap: float) -> ApiKey:
        """Give a key a new secret. Not retried, since each call ends the overlap of the previous one."""
        body = {"digest": digest, "overlap": overlap}
        return await self._connection.call("POST", _path("keys", id, "/rotate"), ApiKey, json=body, retry=False)

    async def revoke_key(self, id: str) -> ApiKey:
        """Revoke a key. Raises NOT_FOUND."""
        return await self._connection.call("POST", _path("keys", id, "/revoke"), ApiKey)

    async def used_keys(self, used: Mapping[str, float]) -> None:
        """Record when keys were last used."""
        await self._connection.call("POST", "/keys/used", bytes, json=dict(used))

    async def create_session(self, session: Session) -> Session:
        """Store a new session. Raises NOT_FOUND."""
        return await self._connection.call("POST", "/sessions", Session, json=session, retry=False)

    async def session(self, id: str) -> Session:
        """Return a session that has not expired. Raises NOT_FOUND."""
        return await self._connection.call("GET", _path("sessions", id), Session)

    async def end_session(self, id: str) -> None:
        """End a session."""
        await self._connection.call("DELETE", _path("sessions", id), bytes)

    async def create_ticket(self, ticket: Ticket) -> None:
        """Store a ticket until it expires."""
        await self._connection.call("POST", "/tickets", bytes, json=ticket, retry=False)

    async def redeem(self, id: str, kind: str) -> Ticket:
        """Redeem a ticket, once. Raises NOT_FOUND. Not retried, since it may have been redeemed."""
        body = {"kind": kind}
        return await self._connection.call("POST", _path("tickets", id, "/redeem"), Ticket, json=body, retry=False)

    async def signing_keys(self, tenant: str, purpose: Purpose = Purpose.LINKS) -> list[SigningKey]:
        """Return a tenant's keys that have not expired, newest first. Raises NOT_FOUND."""
        path = _path("tenants", tenant, "/signing-keys")
        return await self._connection.call("GET", path, list[SigningKey], params={"purpose": purpose.value})

    async def rotate_signing_key(
        self, tenant: str, purpose: Purpose = Purpose.LINKS, *, overlap: float
    ) -> list[SigningKey]:
        """Make a new key; the previous ones stay valid for `overlap` more seconds."""
        return await self._connection.call(
            "POST",
            _path("tenants", tenant, "/signing-keys"),
            list[SigningKey],
            json={"overlap": overlap, "purpose": purpose},
            retry=False,
        )

    async def append_audit(self, entries: Sequence[AuditEntry]) -> None:
        """Append entries to the audit log."""
        await self._connection.call("POST", "/audit", bytes, json=list(entries), retry=False)

    async def audit(self, after: int = 0, *, limit: int = 1000, tenant: str | None = None) -> AuditPage:
        """Return the entries after a number, of a tenant or of all, oldest first."""
        params = {"after": after, "limit": limit, "tenant": tenant}
        return await self._connection.call("GET", "/audit", AuditPage, params=params)
