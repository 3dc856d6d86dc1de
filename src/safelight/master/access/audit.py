"""The audit log: who did what to keys, tenants, recipes, links, workers and the tasks of other tenants.

An entry is durable in db before the action begins, so no action lacks one; an action that fails has a second entry with
the code of its error. Failed sign-ins have one entry each, up to a limit.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.access.forwarded import client_address
from safelight.client.accounts import AccountClient
from safelight.errors import Code, Error
from safelight.master.access.refusals import Refusals
from safelight.master.access.tenant import is_operator, named, tenant_of
from safelight.master.api.endpoint import Endpoint
from safelight.wire import encode
from safelight.wire.accounts import AuditEntry

log = logging.getLogger(__name__)

_VERBS = {"PUT": "save", "DELETE": "delete"}
_LINES = "application/x-ndjson"


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The position from which to read."""

    after: Annotated[int, Meta(ge=0, le=2**62, description="the number of the last known entry")] = 0
    limit: Annotated[int, Meta(ge=1, le=10000)] = 1000


class Audit:
    """Writes and returns entries."""

    def __init__(self, accounts: AccountClient) -> None:
        self._accounts = accounts
        self._refusals = Refusals()

    @asynccontextmanager
    async def record(
        self, request: web.Request, action: str, subject: str = "", *, tenant: str | None = None, **detail: Any
    ) -> AsyncIterator[None]:
        """Record the action of the context on `subject`. Raises UNAVAILABLE, before the action, if db is away."""
        caller = http.caller(request)
        entry = AuditEntry(
            tenant=tenant or tenant_of(request),
            who=f"{caller.tenant}/{caller.name}",
            via=caller.via,
            remote=client_address(request, request.app[http.SERVICE].gate.policy.proxies),
            action=action,
            subject=subject[:200],
            outcome="begun",
            detail=detail,
        )
        await self._accounts.append_audit([entry])
        try:
            yield
        except Error as error:
            await self._accounts.append_audit([entry.evolve(outcome=error.code.value)])
            raise

    @asynccontextmanager
    async def record_on_others(
        self, request: web.Request, action: str, subject: str = "", **detail: Any
    ) -> AsyncIterator[None]:
        """Record the action of the context if it concerns the tasks of another tenant."""
        if tenant_of(request) == http.caller(request).tenant:
            yield
            return
        async with self.record(request, action, subject, **detail):
            yield

    async def refused(self, request: web.Request, error: Error, *, via: str, subject: str = "") -> None:
        """Record a failed sign-in, unless there are too many. The sign-in is refused even if this fails."""
        remote = client_address(request, request.app[http.SERVICE].gate.policy.proxies)
        left_out = self._refusals.admit(remote)
        if left_out is None:
            return
        entry = AuditEntry(
            who="nobody",
            via=via,
            remote=remote,
            action="sessions.start",
            subject=subject[:200],
            outcome=error.code.value,
            detail={"left_out": left_out} if left_out else {},
        )
        try:
            await self._accounts.append_audit([entry])
        except Error as failure:
            log.warning("A failed sign-in from %s is not in the audit log: %s", remote, failure.detail)

    def audited(self, endpoint: Endpoint) -> Endpoint:
        """Record each call of an endpoint that changes recipes or workers, or the tasks of another tenant.

        Those whose handlers record what they do themselves stay as they are.
        """
        if endpoint.records or not endpoint.access & Access.OPERATE or endpoint.tag not in ("tasks", "recipes"):
            return endpoint
        subjects = "workers" if endpoint.path.startswith("/workers/") else endpoint.tag
        verb = _VERBS.get(endpoint.method) or endpoint.path.rpartition("/")[2]

        async def handle(request: web.Request) -> web.StreamResponse:
            subject = request.match_info.get("name") or request.match_info.get("id", "")
            record = self.record_on_others if subjects == "tasks" else self.record
            async with record(request, f"{subjects}.{verb}", subject):
                return await endpoint.handler(request)

        return msgspec.structs.replace(endpoint, handler=handle)

    async def get(self, request: web.Request) -> web.Response:
        """`GET /audit`: one JSON object a line."""
        query = http.query(request, AuditQuery)
        everything = is_operator(http.caller(request)) and named(request) is None
        tenant = None if everything else tenant_of(request)
        page = await self._accounts.audit(query.after, limit=query.limit, tenant=tenant)
        body = b"".join(encode(entry) + b"\n" for entry in page.entries)
        return web.Response(body=body, content_type=_LINES, headers={"Cache-Control": "no-store"})

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/audit", handler=self.get, access=Access.ADMINISTER, tag="access",
                summary="Read the audit log", query=AuditQuery, answer={_LINES: {"type": "string"}},
                errors=(Code.INVALID_REQUEST, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip
