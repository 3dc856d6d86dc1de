"""Enforce the limits of tenants: uploads at once, waiting tasks, stored bytes, requests per second."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from safelight import background
from safelight.client.accounts import AccountClient
from safelight.errors import Code, Error, plural
from safelight.master.access.earlier import Earlier
from safelight.master.access.fresh import Fresh
from safelight.wire import DEFAULT_TENANT
from safelight.wire.accounts import Granted, Limits, Tenant, TenantUse, Wanted

log = logging.getLogger(__name__)

_TAKEN_FOR = 0.1
"""Seconds' worth of requests to take from db at once; a larger share would starve the other masters."""
_RENEWED = 10.0
"""Seconds between two reports of how many uploads are in progress."""


class _Requests:
    """The requests of one tenant that this master may let through, taken from db in small amounts."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.left = 0
        self.until = 0.0
        """When the remaining ones are given back, by the monotonic clock."""
        self.none_before = 0.0

    def take(self, now: float) -> bool:
        """Take one request, if any is left."""
        if not self.left or now >= self.until:
            return False
        self.left -= 1
        return True


class Quotas:
    """Enforces the limits of tenants, which apply to all masters together: db counts for them.

    db enforces the limits on tasks and bytes; here uploads are only refused early, and previews are refused.
    """

    def __init__(self, accounts: AccountClient) -> None:
        self._tenants: Fresh[Tenant] = Fresh(accounts.tenant)
        self._use: Fresh[dict[str, TenantUse]] = Fresh(self._read_use)
        self._accounts = accounts
        self._master = secrets.token_hex(8)
        self._requests: dict[str, _Requests] = {}
        self._uploads: Counter[str] = Counter()
        self._counting: dict[str, asyncio.Lock] = {}
        """By tenant: one report at a time says how many uploads are in progress, so that the last one to arrive is
        right.
        """

    async def _read_use(self, _name: str) -> dict[str, TenantUse]:
        return {use.tenant: use for use in await self._accounts.use()}

    async def tenant(self, id: str) -> Tenant:
        """Return a tenant, from the cache. Raises NOT_FOUND."""
        return await self._tenants.get(id)

    async def after_event(self, id: str) -> int:
        """Return the number of the last event before a tenant was created; those up to it are about an earlier one.

        It is 0 for the default tenant, which was always there, and for a deleted one, about which operators may ask.
        """
        try:
            return 0 if id == DEFAULT_TENANT else (await self._tenants.get(id)).after_event
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return 0

    async def life(self, id: str, *, cached: bool = False) -> str:
        """Return what tells a tenant from earlier ones of its id; "" for the default one, which was always there.

        A cached value is up to a few seconds old. Raises NOT_FOUND.
        """
        if id == DEFAULT_TENANT:
            return ""
        if not cached:
            self._tenants.forget(id)
        found = await self._tenants.get(id)
        return f"{found.created!r} {found.after_event} {found.after_audit}"

    def changed(self, id: str) -> None:
        """Drop a tenant from the cache."""
        self._tenants.forget(id)
        self._requests.pop(id, None)

    async def request(self, id: str, *, counted: bool = False) -> Tenant:
        """Count a request of a tenant, unless it was `counted` before.

        Raises TOO_MANY_REQUESTS with the time to wait; FORBIDDEN for a disabled tenant, UNAUTHENTICATED for a deleted
        one, or one that only the settings of a proxy's or a provider's users name.
        """
        try:
            tenant = await self._tenants.get(id)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            raise Error(Code.UNAUTHENTICATED, f"There is no tenant {id}, or not any more.") from None
        if tenant.disabled:
            raise Error(Code.FORBIDDEN, f"The tenant {id} is disabled; ask an administrator of this system.")
        if (rate := tenant.limits.requests) is not None and not counted:
            await self._take(id, rate)
        return tenant

    async def _take(self, tenant: str, rate: float) -> None:
        known = self._requests.setdefault(tenant, _Requests())
        if known.take(time.monotonic()):
            return
        async with known.lock:
            now = time.monotonic()
            if known.take(now):
                return
            if now < known.none_before:
                raise _too_many(tenant, rate, known.none_before - now)
            wanted = Wanted(master=self._master, requests=max(1, math.ceil(rate * _TAKEN_FOR)))
            granted = await self._accounts.grant(tenant, wanted.evolve(uploads=self._uploads[tenant]))
            now = time.monotonic()
            known.none_before = now + granted.retry_after
            if not granted.requests:
                raise _too_many(tenant, rate, granted.retry_after)
            known.left, known.until = granted.requests - 1, now + 10 * _TAKEN_FOR

    async def check(self, id: str) -> Limits:
        """Raise TOO_MANY_REQUESTS if as many tasks of a tenant wait or as many bytes are kept as may be.

        The numbers are a few seconds old. Return the tenant's limits.
        """
        limits = (await self._tenants.get(id)).limits
        if limits.waiting is not None or limits.bytes is not None:
            use = (await self._use.get("all")).get(id)
            if use is not None:
                _check("task", "waiting", use.tasks.get("waiting", 0), limits.waiting, retry_after=5)
                _check("byte", "kept", use.bytes, limits.bytes, retry_after=60)
        return limits

    @asynccontextmanager
    async def upload(self, id: str, earlier: Earlier | None = None) -> AsyncIterator[None]:
        """Take one of a tenant's places for uploads. Raises TOO_MANY_REQUESTS if no place or no room is left.

        If there are `earlier` tasks of the same upload, db decides about the room.
        """
        try:
            limits = await self.check(id)
        except Error as error:
            if error.code is not Code.TOO_MANY_REQUESTS or earlier is None or await earlier.bytes() is None:
                raise
            limits = (await self._tenants.get(id)).limits
        if limits.uploads is None:
            yield
            return
        await self._begin(id, limits.uploads)
        try:
            async with background.running(lambda: self._renew(id), "uploads in progress"):
                yield
        finally:
            await asyncio.shield(self._end(id))

    async def room(self, id: str) -> int | None:
        """Return how many more bytes a tenant may keep, by cached numbers, or None if there is no limit."""
        most = (await self._tenants.get(id)).limits.bytes
        if most is None:
            return None
        use = (await self._use.get("all")).get(id)
        return max(0, most - (0 if use is None else use.bytes))

    async def _begin(self, tenant: str, limit: int) -> None:
        async with self._counting.setdefault(tenant, asyncio.Lock()):
            granted = await self._tell(tenant, self._uploads[tenant] + 1, new=1)
            if granted.uploads <= self._uploads[tenant]:
                _check("upload", "in progress", max(limit, granted.in_progress), limit, retry_after=1)
            self._uploads[tenant] += 1

    async def _end(self, tenant: str) -> None:
        async with self._counting[tenant]:
            self._uploads[tenant] -= 1
            try:
                await self._tell(tenant, self._uploads[tenant])
            except Error as error:
                log.warning("An upload of the tenant %s counts for half a minute more: %s", tenant, error.detail)
            if not self._uploads[tenant]:
                del self._uploads[tenant]

    async def _renew(self, tenant: str) -> None:
        while True:
            await asyncio.sleep(_RENEWED)
            async with self._counting[tenant]:
                try:
                    await self._tell(tenant, self._uploads[tenant])
                except Error as error:
                    log.warning("The uploads of the tenant %s could not be counted: %s", tenant, error.detail)

    async def _tell(self, tenant: str, uploads: int, *, new: int = 0) -> Granted:
        return await self._accounts.grant(tenant, Wanted(master=self._master, uploads=uploads, new=new))


def _too_many(tenant: str, rate: float, retry_after: float) -> Error:
    detail = (
        f"The tenant {tenant} sent more than {rate:g} {plural(rate, 'request')} per second. Wait before the next one."
    )
    return Error(Code.TOO_MANY_REQUESTS, detail, retry_after=retry_after, limit=rate)


def _check(noun: str, how: str, used: int, limit: int | None, *, retry_after: int) -> None:
    if limit is not None and used >= limit:
        detail = f"This tenant has {used} {plural(used, noun)} {how}, and its limit is {limit}. Try again later."
        raise Error(Code.TOO_MANY_REQUESTS, detail, retry_after=retry_after, limit=limit)
