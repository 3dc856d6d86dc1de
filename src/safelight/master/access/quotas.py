"""What each tenant may use: uploads at once, waiting tasks, bytes kept, requests a second."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from safelight.accounts import Tenant, TenantUse
from safelight.client.accounts import AccountClient
from safelight.errors import Code, Error
from safelight.master.access.fresh import Fresh

_BURST = 2.0
"""Seconds' worth of requests that may come at once."""


class Quotas:
    """Keeps the limits of tenants. Those on tasks and bytes are db's to keep; here uploads are refused early."""

    def __init__(self, accounts: AccountClient) -> None:
        self._tenants: Fresh[Tenant] = Fresh(accounts.tenant)
        self._use: Fresh[dict[str, TenantUse]] = Fresh(self._read_use)
        self._accounts = accounts
        self._uploads: Counter[str] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}
        """By tenant: requests that may still come, and when that was so."""

    async def _read_use(self, _name: str) -> dict[str, TenantUse]:
        return {use.tenant: use for use in await self._accounts.use()}

    async def tenant(self, id: str) -> Tenant:
        """Return a tenant as it was a moment ago. Raises NOT_FOUND."""
        return await self._tenants.get(id)

    def changed(self, id: str) -> None:
        """Look at a tenant anew."""
        self._tenants.forget(id)

    async def request(self, id: str) -> Tenant:
        """Count a request of a tenant. Raises TOO_MANY_REQUESTS with the time to wait; FORBIDDEN for a disabled one."""
        try:
            tenant = await self._tenants.get(id)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            raise Error(Code.UNAUTHENTICATED, f"The tenant {id} was deleted.") from None
        if tenant.disabled:
            raise Error(Code.FORBIDDEN, f"The tenant {id} is disabled; ask an administrator of this system.")
        if (rate := tenant.limits.requests) is not None:
            self._take(id, rate)
        return tenant

    def _take(self, tenant: str, rate: float) -> None:
        now = time.monotonic()
        most = max(1.0, rate * _BURST)
        left, at = self._buckets.get(tenant, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1:
            self._buckets[tenant] = left, now
            detail = f"More than {rate:g} requests a second came from the tenant {tenant}. Wait before the next."
            raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=(1 - left) / rate, limit=rate)
        self._buckets[tenant] = left - 1, now

    @asynccontextmanager
    async def upload(self, id: str) -> AsyncIterator[None]:
        """Take one of a tenant's places for uploads. Raises TOO_MANY_REQUESTS where it has none or no room left."""
        limits = (await self._tenants.get(id)).limits
        if limits.waiting is not None or limits.bytes is not None:
            use = (await self._use.get("all")).get(id)
            if use is not None:
                _check("tasks wait", use.tasks.get("waiting", 0), limits.waiting, retry_after=5)
                _check("bytes are kept", use.bytes, limits.bytes, retry_after=60)
        _check("uploads are under way", self._uploads[id], limits.uploads, retry_after=1)
        self._uploads[id] += 1
        try:
            yield
        finally:
            self._uploads[id] -= 1
            if not self._uploads[id]:
                del self._uploads[id]


def _check(what: str, used: int, limit: int | None, *, retry_after: int) -> None:
    if limit is not None and used >= limit:
        detail = f"{used} {what}, and this tenant's limit is {limit}. Try again later."
        raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=retry_after, limit=limit)
