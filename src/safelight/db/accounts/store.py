"""The contract of db's store for access control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

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


class AccountStore(Protocol):
    """Tenants, API keys, sessions, tickets, signing keys and the audit log.

    Every call is one transaction, durable when it returns. The tenant `default` always exists. The store gets only
    digests of secrets, except for signing keys, which it needs in full.
    """

    async def tenants(self) -> list[Tenant]:
        """Return all tenants by id."""
        ...

    async def tenant(self, id: str) -> Tenant:
        """Return a tenant. Raises NOT_FOUND."""
        ...

    async def create_tenant(self, tenant: Tenant) -> Tenant:
        """Create a tenant, which reads no events and audit entries from before. Raises CONFLICT if its id is taken."""
        ...

    async def change_tenant(self, tenant: Tenant) -> Tenant:
        """Replace a tenant's name, weight, limits and whether it is disabled. Raises NOT_FOUND."""
        ...

    async def pause_recipe(self, id: str, recipe: str, *, paused: bool) -> Tenant:
        """Pause or resume a recipe of a tenant. While it is paused, none of its tasks is leased.

        Leases in force continue. Calling it again changes nothing. Raises NOT_FOUND, TOO_MANY_REQUESTS.
        """
        ...

    async def pause(self, id: str, *, paused: bool) -> Tenant:
        """Pause or resume a tenant's queue. While it is paused, none of its tasks is leased. Raises NOT_FOUND.

        Leases in force continue. Calling it again changes nothing.
        """
        ...

    async def delete_tenant(self, id: str) -> None:
        """Delete a tenant with its keys, sessions, recipes, statistics and webhook calls, also those that are due.

        Raises NOT_FOUND; CONFLICT while it has tasks.
        """
        ...

    async def use(self) -> list[TenantUse]:
        """Return what each tenant uses, without scanning the tasks."""
        ...

    async def grant(self, id: str, wanted: Wanted) -> Granted:
        """Grant a master a part of a tenant's limits, as far as the other masters have left some.

        Its uploads count until its next report, for half a minute at most. Raises NOT_FOUND.
        """
        ...

    async def keys(self, *, tenant: str | None = None) -> list[ApiKey]:
        """Return the keys of a tenant, or of all, oldest first."""
        ...

    async def key(self, id: str) -> ApiKey:
        """Return a key. Raises NOT_FOUND."""
        ...

    async def create_key(self, key: ApiKey) -> ApiKey:
        """Store a new key. Raises NOT_FOUND if there is no such tenant, CONFLICT for an id that is taken."""
        ...

    async def rotate_key(self, id: str, digest: str, *, overlap: float) -> ApiKey:
        """Give a key a new secret; the old one stays valid for `overlap` seconds.

        Those that it replaced stay valid as long as they were to, but no longer than that. Raises NOT_FOUND, CONFLICT.
        """
        ...

    async def revoke_key(self, id: str) -> ApiKey:
        """Revoke a key; repeating this changes nothing. Raises NOT_FOUND."""
        ...

    async def used_keys(self, used: Mapping[str, float]) -> None:
        """Record when keys were last used; ignore unknown keys."""
        ...

    async def create_session(self, session: Session) -> Session:
        """Store a new session. Raises NOT_FOUND if there is no such tenant."""
        ...

    async def session(self, id: str) -> Session:
        """Return a session that has not expired. Raises NOT_FOUND."""
        ...

    async def end_session(self, id: str) -> None:
        """End a session. Do nothing if it has already ended."""
        ...

    async def create_ticket(self, ticket: Ticket) -> None:
        """Store a ticket until it expires."""
        ...

    async def redeem(self, id: str, kind: str) -> Ticket:
        """Take a ticket, which only one caller can. Raises NOT_FOUND if it does not exist, was taken or has expired."""
        ...

    async def signing_keys(self, tenant: str, purpose: Purpose = Purpose.LINKS) -> list[SigningKey]:
        """Return a tenant's keys that have not expired, newest first; create one if there is none.

        Raises NOT_FOUND if there is no such tenant.
        """
        ...

    async def rotate_signing_key(
        self, tenant: str, purpose: Purpose = Purpose.LINKS, *, overlap: float
    ) -> list[SigningKey]:
        """Make a new key, and return all as `signing_keys` does; older ones stay valid for `overlap` seconds."""
        ...

    async def append_audit(self, entries: Sequence[AuditEntry]) -> None:
        """Append entries with new numbers and times. Remove entries that are older than the policy keeps."""
        ...

    async def audit(self, after: int = 0, *, limit: int = 1000, tenant: str | None = None) -> AuditPage:
        """Return the entries after a number, of a tenant or of all, oldest first.

        Those about an earlier tenant of its id are left out.
        """
        ...
