"""The tenant that a request is about."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps

import msgspec
from aiohttp import web

from safelight import http
from safelight.access.caller import Access, Caller
from safelight.errors import Code, Error
from safelight.master.api.endpoint import Endpoint
from safelight.wire import DEFAULT_TENANT

log = logging.getLogger(__name__)

HEADER = "Safelight-Tenant"
"""With this header, or the parameter `tenant`, an administrator of the system acts for another tenant."""

_OF_DELETED = frozenset({"/statistics", "/last-hour"})
"""What remains of a deleted tenant for operators, besides its events and its entries in the audit log."""

_ASK_AGAIN = 5.0
"""Seconds between two questions to a db that does not answer yet."""

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def is_operator(caller: Caller) -> bool:
    """Return whether a caller administers the whole system, including all tenants."""
    return caller.tenant == DEFAULT_TENANT and bool(caller.scopes & Access.ADMINISTER)


def check_operator(request: web.Request, do: str) -> None:
    """Raise FORBIDDEN unless the caller administers the whole system; `do` names the action."""
    if not is_operator(http.caller(request)):
        raise Error(Code.FORBIDDEN, f"Only administrators of the tenant {DEFAULT_TENANT} {do}.")


def named(request: web.Request) -> str | None:
    """Return the tenant that a request names in the header, or in the query if it cannot send headers."""
    return request.headers.get(HEADER, request.query.get(http.TENANT))


def tenant_of(request: web.Request) -> str:
    """Return the caller's tenant, or the one that an operator names.

    Raises FORBIDDEN if anybody else names one, and INVALID_REQUEST for what no tenant can be called.
    """
    caller = http.caller(request)
    tenant = named(request)
    if tenant is None or tenant == caller.tenant:
        return caller.tenant
    if not is_operator(caller):
        raise Error(Code.FORBIDDEN, f"Only administrators of the tenant {DEFAULT_TENANT} may act for another tenant.")
    if _TENANT.fullmatch(tenant) is None:
        raise Error(
            Code.INVALID_REQUEST,
            "A tenant's id has 1 to 32 of a-z, 0-9 and -, and does not begin with -.",
            position=HEADER,
        )
    return tenant


async def warn_of_missing(settings: Mapping[str, str], find: Callable[[str], Awaitable[object]]) -> None:
    """Warn of tenants that do not exist, each with the setting that names it; otherwise only its users would notice.

    `find` raises NOT_FOUND. A tenant may be created later, so this is no error.
    """
    left = dict(settings)
    while left:
        for tenant, setting in list(left.items()):
            try:
                await find(tenant)
            except Error as error:
                if error.code is not Code.NOT_FOUND:
                    continue
                sentence = "%s names the tenant %s, which does not exist, so its users cannot sign in. Create it."
                log.warning(sentence, setting, tenant)
            del left[tenant]
        if left:
            await asyncio.sleep(_ASK_AGAIN)


def of_existing(endpoint: Endpoint, find: Callable[[str], Awaitable[object]]) -> Endpoint:
    """Let an endpoint refuse a tenant that does not exist, so that a misspelt one does not look like an empty one.

    `find` raises NOT_FOUND. Endpoints of uploads and of what remains of a deleted tenant stay as they are.
    """
    lists = endpoint.tag in ("tasks", "results", "recipes") or endpoint.path == "/keys"
    if not lists or endpoint.path in _OF_DELETED:
        return endpoint

    @wraps(endpoint.handler)
    async def handle(request: web.Request) -> web.StreamResponse:
        if (tenant := tenant_of(request)) != http.caller(request).tenant:
            await find(tenant)
        return await endpoint.handler(request)

    return msgspec.structs.replace(endpoint, handler=handle)
