"""Endpoints with which operators list, create, change and delete tenants."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.accounts import AccountClient
from safelight.errors import Code
from safelight.master.access.audit import Audit
from safelight.master.access.quotas import Quotas
from safelight.master.access.tenant import check_operator, is_operator
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import TenantId
from safelight.wire.accounts import Limits, Name, Tenant, TenantSeen, TenantUse


class GivenLimits(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits that an operator gives. A misspelt one is refused, since its tenant would have no limit."""

    def plain(self) -> Limits:
        """Return them as they are stored."""
        return Limits(**msgspec.structs.asdict(self))


class TenantFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a tenant that can be changed."""

    name: Name = ""
    weight: Annotated[float, Meta(ge=0.01, le=1000)] = 1.0
    limits: GivenLimits = GivenLimits()
    disabled: bool = False


class NewTenant(TenantFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant to create."""

    id: TenantId


class Tenants:
    """The handlers of tenants."""

    def __init__(self, accounts: AccountClient, quotas: Quotas, audit: Audit) -> None:
        self._accounts = accounts
        self._quotas = quotas
        self._audit = audit

    async def all(self, request: web.Request) -> web.Response:
        """`GET /tenants`: operators see all, administrators of other tenants only their own."""
        caller = http.caller(request)
        use = {use.tenant: use for use in await self._accounts.use()}
        if is_operator(caller):
            tenants = await self._accounts.tenants()
        else:
            tenants = [await self._accounts.tenant(caller.tenant)]
        seen = [
            TenantSeen(tenant=each, use=use.get(each.id) or TenantUse(tenant=each.id, tasks={})) for each in tenants
        ]
        return http.json_response(seen)

    async def create(self, request: web.Request) -> web.Response:
        """`POST /tenants`."""
        check_operator(request, "manage tenants")
        asked = await http.read_json(request, NewTenant)
        async with self._audit.record(request, "tenants.create", asked.id, tenant=asked.id):
            fields = msgspec.structs.asdict(asked)
            made = await self._accounts.create_tenant(Tenant(**{**fields, "limits": asked.limits.plain()}))
        self._quotas.changed(made.id)
        return http.json_response(made)

    async def change(self, request: web.Request) -> web.Response:
        """`PUT /tenants/{id}`."""
        check_operator(request, "manage tenants")
        id = request.match_info["id"]  # noqa: A001 - a tenant's id is called id
        asked = await http.read_json(request, TenantFields)
        tenant = (await self._accounts.tenant(id)).evolve(
            name=asked.name, weight=asked.weight, limits=asked.limits.plain(), disabled=asked.disabled
        )
        detail = {"weight": asked.weight, "disabled": asked.disabled, "limits": msgspec.to_builtins(asked.limits)}
        async with self._audit.record(request, "tenants.change", id, tenant=id, **detail):
            changed = await self._accounts.change_tenant(tenant)
        self._quotas.changed(id)
        return http.json_response(changed)

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /tenants/{id}`."""
        check_operator(request, "manage tenants")
        id = request.match_info["id"]  # noqa: A001 - as above
        await self._accounts.tenant(id)
        async with self._audit.record(request, "tenants.delete", id, tenant=id):
            await self._accounts.delete_tenant(id)
        self._quotas.changed(id)
        return web.Response(status=204)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        errors = (Code.INVALID_REQUEST, Code.FORBIDDEN, Code.NOT_FOUND, Code.CONFLICT, Code.UNAVAILABLE)
        return [
            Endpoint(
                method="GET", path="/tenants", handler=self.all, access=Access.ADMINISTER, tag="access",
                summary="List tenants, their limits and what they use", answer={JSON: list[TenantSeen]},
                errors=(Code.UNAVAILABLE,),
            ),
            Endpoint(
                method="POST", path="/tenants", handler=self.create, access=Access.ADMINISTER, tag="access",
                summary="Create a tenant", body={JSON: NewTenant}, answer={JSON: Tenant}, errors=errors,
            ),
            Endpoint(
                method="PUT", path="/tenants/{id}", handler=self.change, access=Access.ADMINISTER, tag="access",
                summary="Change a tenant's name, weight and limits, or disable it", body={JSON: TenantFields},
                answer={JSON: Tenant}, errors=errors,
            ),
            Endpoint(
                method="DELETE", path="/tenants/{id}", handler=self.delete, access=Access.ADMINISTER, tag="access",
                summary="Delete a tenant that has no tasks, with its keys, sessions, recipes and webhook calls",
                status=204, errors=errors,
            ),
        ]  # fmt: skip
