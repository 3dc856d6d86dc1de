"""Keys, tenants, signed links and the audit log at the master."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

from safelight.client.answers import decoded
from safelight.client.base import ServiceClient
from safelight.client.requests.repeating import deleted
from safelight.wire.accounts import (
    AuditEntry,
    CreatedKey,
    KeyInfo,
    Limits,
    Link,
    Scope,
    SignedIn,
    Tenant,
    TenantSeen,
    WebhookSecret,
)

_PAGE = 1000


class AccessClient(ServiceClient):
    """The requests of administrators, and of everybody for their own key."""

    async def whoami(self) -> SignedIn:
        """Return who the caller is."""
        return await self._connection.call("GET", "/session", SignedIn)

    async def sign_in_link(self) -> Link:
        """Make a link that signs an administrator in once; this takes the cluster key."""
        return await self._connection.call("POST", "/sign-in-links", Link, json={}, retry=False)

    async def keys(self) -> list[KeyInfo]:
        """Return the keys of the tenant, oldest first."""
        return await self._connection.call("GET", "/keys", list[KeyInfo])

    async def create_key(self, name: str, scopes: Sequence[Scope], *, expires_in: float | None = None) -> CreatedKey:
        """Create a key; its token is not shown again."""
        body = {"name": name, "scopes": list(scopes), "expires_in": expires_in}
        return await self._connection.call("POST", "/keys", CreatedKey, json=body, retry=False)

    async def rotate_key(self, id: str, *, overlap: float) -> CreatedKey:
        """Give a key a new secret; the old one stays valid for `overlap` seconds."""
        path = f"/keys/{quote(id, safe='')}/rotate"
        return await self._connection.call("POST", path, CreatedKey, json={"overlap": overlap}, retry=False)

    async def revoke_key(self, id: str) -> None:
        """Revoke a key. Raises NOT_FOUND."""
        await deleted(self._connection, f"/keys/{quote(id, safe='')}")

    async def tenants(self) -> list[TenantSeen]:
        """Return all tenants and what they use; administrators of tenants other than `default` get only their own."""
        return await self._connection.call("GET", "/tenants", list[TenantSeen])

    async def create_tenant(self, id: str, **fields: Any) -> Tenant:
        """Create a tenant. Raises CONFLICT."""
        return await self._connection.call("POST", "/tenants", Tenant, json={"id": id, **fields}, retry=False)

    async def change_tenant(
        self, id: str, *, name: str, weight: float, limits: Limits, disabled: bool = False
    ) -> Tenant:
        """Replace the fields of a tenant that can be changed. Raises NOT_FOUND."""
        body = {"name": name, "weight": weight, "limits": limits, "disabled": disabled}
        return await self._connection.call("PUT", f"/tenants/{quote(id, safe='')}", Tenant, json=body)

    async def delete_tenant(self, id: str) -> None:
        """Delete a tenant that has no tasks. Raises NOT_FOUND, CONFLICT."""
        await deleted(self._connection, f"/tenants/{quote(id, safe='')}")

    async def link(
        self, task: str, *, output: str | None = None, original: bool = False, expires_in: float = 7 * 86400.0
    ) -> Link:
        """Make a signed link to a result or an original. Raises NOT_FOUND."""
        body = {"output": output, "original": original, "expires_in": expires_in}
        path = f"/task/{quote(task, safe='')}/links"
        return await self._connection.call("POST", path, Link, json=body, retry=False)

    async def revoke_links(self, *, overlap: float = 0.0) -> None:
        """End every link that was made so far, after `overlap` seconds."""
        await self._connection.call("POST", "/links/rotate", bytes, json={"overlap": overlap}, retry=False)

    async def webhook_secret(self) -> WebhookSecret:
        """Return the secret that signs the tenant's webhook calls."""
        return await self._connection.call("GET", "/webhooks/secret", WebhookSecret)

    async def rotate_webhook_secret(self, *, overlap: float) -> WebhookSecret:
        """Make a new secret; calls are also signed with the old one for `overlap` seconds. Raises CONFLICT."""
        body = {"overlap": overlap}
        return await self._connection.call("POST", "/webhooks/secret/rotate", WebhookSecret, json=body, retry=False)

    async def audit(self, after: int = 0) -> AsyncIterator[AuditEntry]:
        """Go through the audit log, oldest entries first."""
        while True:
            params = {"after": after, "limit": _PAGE}
            lines = await self._connection.call("GET", "/audit", bytes, params=params)
            entries = [decoded(line, AuditEntry, "GET /audit") for line in lines.splitlines()]
            for entry in entries:
                yield entry
            if len(entries) < _PAGE:
                return
            after = entries[-1].seq
