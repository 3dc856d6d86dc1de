"""Endpoints that list the webhook calls of a tenant with their answers, and resend them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import Code
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import WebhookCall, WebhookCallPage


class _Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    outcome: Literal["delivered", "failed", "given_up"] | None = None
    before: Annotated[str, Meta(max_length=32)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class WebhookCalls:
    """The handlers."""

    def __init__(self, db: DbClient) -> None:
        self._db = db

    async def all(self, request: web.Request) -> web.Response:
        """`GET /webhooks/calls`."""
        wanted = http.query(request, _Wanted)
        page = await self._db.webhook_calls(
            before=wanted.before, limit=wanted.limit, outcome=wanted.outcome, tenant=tenant_of(request)
        )
        return http.json_response(page)

    async def resend(self, request: web.Request) -> web.Response:
        """`POST /webhooks/calls/{id}/resend`."""
        return http.json_response(await self._db.resend(request.match_info["id"], tenant=tenant_of(request)))

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/webhooks/calls", handler=self.all, access=Access.READ, tag="tasks",
                summary="List webhook calls with their answers, newest first", query=_Wanted,
                answer={JSON: WebhookCallPage}, errors=(Code.INVALID_REQUEST, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="POST", path="/webhooks/calls/{id}/resend", handler=self.resend, access=Access.OPERATE,
                tag="tasks", summary="Make a webhook call again",
                description=(
                    "A call that waits for its next attempt is made at once. A call that was delivered or given up "
                    "is made again, with the task as it was when it ended."
                ),
                answer={JSON: WebhookCall}, errors=(Code.NOT_FOUND, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip
