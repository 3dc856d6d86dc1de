"""The endpoint with which a person confirms the clocks after one has jumped."""

from __future__ import annotations

from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import Code
from safelight.master.access.audit import Audit
from safelight.master.access.tenant import check_operator
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import ClockConfirmed


class Clock:
    """The handler."""

    def __init__(self, db: DbClient, audit: Audit) -> None:
        self._db = db
        self._audit = audit

    async def confirm(self, request: web.Request) -> web.Response:
        """`POST /clock/confirm`: for operators, since it lets data of every tenant be deleted."""
        check_operator(request, "confirm the clocks")
        async with self._audit.record(request, "clock.confirm"):
            return http.json_response(await self._db.confirm_clock())

    def endpoints(self) -> list[Endpoint]:
        """Return the route."""
        return [
            Endpoint(
                method="POST", path="/clock/confirm", handler=self.confirm, access=Access.ADMINISTER, tag="access",
                summary="Confirm the clocks",
                description=(
                    "After a clock has jumped, db and storage delete nothing for a day. This request confirms that "
                    "the clocks of their machines are right, so that db deletes old data at once and storage at "
                    "its next collection. Another jump needs another confirmation. For administrators of the "
                    "tenant `default`."
                ),
                answer={JSON: ClockConfirmed}, errors=(Code.FORBIDDEN, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip
