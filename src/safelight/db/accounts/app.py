"""The routes of db for access control, which `client.accounts` calls."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight.access import route
from safelight.access.caller import Access
from safelight.access.route import Route
from safelight.db.accounts.store import AccountStore
from safelight.errors import Code, Error
from safelight.http import json_response, query, read_json
from safelight.wire import Digest, TenantId
from safelight.wire.accounts import ApiKey, AuditEntry, Purpose, Session, Tenant, Ticket, Wanted

Overlap = Annotated[float, Meta(ge=0, le=366 * 86400)]


class _Of(msgspec.Struct, frozen=True, kw_only=True):
    tenant: TenantId | None = None


class _For(msgspec.Struct, frozen=True, kw_only=True):
    purpose: Purpose = Purpose.LINKS


class _Rotation(_For, frozen=True, kw_only=True):
    overlap: Overlap


class _KeyRotation(msgspec.Struct, frozen=True, kw_only=True):
    overlap: Overlap
    digest: Digest


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    kind: str


class _Audit(_Of, frozen=True, kw_only=True):
    after: Annotated[int, Meta(ge=0, le=2**62)] = 0
    limit: Annotated[int, Meta(ge=1, le=10000)] = 1000


class Accounts:
    """The handlers; each is one call of the store."""

    def __init__(self, store: AccountStore) -> None:
        self._store = store

    def routes(self) -> list[list[Route]]:
        """Return the routes."""
        return [
            route.get("/tenants", self.tenants, Access.CLUSTER),
            route.post("/tenants", self.create_tenant, Access.CLUSTER),
            route.get("/tenants/{id}", self.tenant, Access.CLUSTER),
            route.put("/tenants/{id}", self.change_tenant, Access.CLUSTER),
            route.delete("/tenants/{id}", self.delete_tenant, Access.CLUSTER),
            route.post("/tenants/{id}/pause", self.pause, Access.CLUSTER),
            route.post("/tenants/{id}/recipes/{name}/pause", self.pause_recipe, Access.CLUSTER),
            route.post("/tenants/{id}/recipes/{name}/resume", self.resume_recipe, Access.CLUSTER),
            route.post("/tenants/{id}/resume", self.resume, Access.CLUSTER),
            route.post("/tenants/{id}/grant", self.grant, Access.CLUSTER),
            route.get("/tenants/{id}/signing-keys", self.signing_keys, Access.CLUSTER),
            route.post("/tenants/{id}/signing-keys", self.rotate_signing_key, Access.CLUSTER),
            route.get("/use", self.use, Access.CLUSTER),
            route.get("/keys", self.keys, Access.CLUSTER),
            route.post("/keys", self.create_key, Access.CLUSTER),
            route.post("/keys/used", self.used_keys, Access.CLUSTER),
            route.get("/keys/{id}", self.key, Access.CLUSTER),
            route.post("/keys/{id}/rotate", self.rotate_key, Access.CLUSTER),
            route.post("/keys/{id}/revoke", self.revoke_key, Access.CLUSTER),
            route.post("/sessions", self.create_session, Access.CLUSTER),
            route.get("/sessions/{id}", self.session, Access.CLUSTER),
            route.delete("/sessions/{id}", self.end_session, Access.CLUSTER),
            route.post("/tickets", self.create_ticket, Access.CLUSTER),
            route.post("/tickets/{id}/redeem", self.redeem, Access.CLUSTER),
            route.get("/audit", self.audit, Access.CLUSTER),
            route.post("/audit", self.append_audit, Access.CLUSTER),
        ]

    async def tenants(self, _request: web.Request) -> web.Response:
        """List tenants."""
        return json_response(await self._store.tenants())

    async def create_tenant(self, request: web.Request) -> web.Response:
        """Create one."""
        return json_response(await self._store.create_tenant(await read_json(request, Tenant)))

    async def tenant(self, request: web.Request) -> web.Response:
        """Return one tenant."""
        return json_response(await self._store.tenant(request.match_info["id"]))

    async def change_tenant(self, request: web.Request) -> web.Response:
        """Change one tenant."""
        tenant = await read_json(request, Tenant)
        if tenant.id != request.match_info["id"]:
            raise Error(Code.INVALID_REQUEST, "The id in the body is not the one in the address.", position="$.id")
        return json_response(await self._store.change_tenant(tenant))

    async def pause_recipe(self, request: web.Request) -> web.Response:
        """`POST /tenants/{id}/recipes/{name}/pause`."""
        given = request.match_info
        return json_response(await self._store.pause_recipe(given["id"], given["name"], paused=True))

    async def resume_recipe(self, request: web.Request) -> web.Response:
        """`POST /tenants/{id}/recipes/{name}/resume`."""
        given = request.match_info
        return json_response(await self._store.pause_recipe(given["id"], given["name"], paused=False))

    async def pause(self, request: web.Request) -> web.Response:
        """Pause a tenant's queue."""
        return json_response(await self._store.pause(request.match_info["id"], paused=True))

    async def resume(self, request: web.Request) -> web.Response:
        """Resume a tenant's queue."""
        return json_response(await self._store.pause(request.match_info["id"], paused=False))

    async def grant(self, request: web.Request) -> web.Response:
        """Grant a master a part of a tenant's limits."""
        wanted = await read_json(request, Wanted)
        return json_response(await self._store.grant(request.match_info["id"], wanted))

    async def delete_tenant(self, request: web.Request) -> web.Response:
        """Delete one."""
        await self._store.delete_tenant(request.match_info["id"])
        return web.Response(status=204)

    async def use(self, _request: web.Request) -> web.Response:
        """Return what each tenant uses."""
        return json_response(await self._store.use())

    async def signing_keys(self, request: web.Request) -> web.Response:
        """Return a tenant's signing keys."""
        purpose = query(request, _For).purpose
        return json_response(await self._store.signing_keys(request.match_info["id"], purpose))

    async def rotate_signing_key(self, request: web.Request) -> web.Response:
        """Make a new signing key."""
        asked, tenant = await read_json(request, _Rotation), request.match_info["id"]
        return json_response(await self._store.rotate_signing_key(tenant, asked.purpose, overlap=asked.overlap))

    async def keys(self, request: web.Request) -> web.Response:
        """List API keys."""
        return json_response(await self._store.keys(tenant=query(request, _Of).tenant))

    async def create_key(self, request: web.Request) -> web.Response:
        """Store a new key."""
        return json_response(await self._store.create_key(await read_json(request, ApiKey)))

    async def used_keys(self, request: web.Request) -> web.Response:
        """Record when keys were last used."""
        await self._store.used_keys(await read_json(request, dict[str, float]))
        return web.Response(status=204)

    async def key(self, request: web.Request) -> web.Response:
        """Return a key."""
        return json_response(await self._store.key(request.match_info["id"]))

    async def rotate_key(self, request: web.Request) -> web.Response:
        """Give a key a new secret."""
        given = await read_json(request, _KeyRotation)
        return json_response(
            await self._store.rotate_key(request.match_info["id"], given.digest, overlap=given.overlap)
        )

    async def revoke_key(self, request: web.Request) -> web.Response:
        """Revoke a key."""
        return json_response(await self._store.revoke_key(request.match_info["id"]))

    async def create_session(self, request: web.Request) -> web.Response:
        """Store a new session."""
        return json_response(await self._store.create_session(await read_json(request, Session)))

    async def session(self, request: web.Request) -> web.Response:
        """Return a session."""
        return json_response(await self._store.session(request.match_info["id"]))

    async def end_session(self, request: web.Request) -> web.Response:
        """End a session."""
        await self._store.end_session(request.match_info["id"])
        return web.Response(status=204)

    async def create_ticket(self, request: web.Request) -> web.Response:
        """Store a ticket."""
        await self._store.create_ticket(await read_json(request, Ticket))
        return web.Response(status=204)

    async def redeem(self, request: web.Request) -> web.Response:
        """Redeem a ticket."""
        kind = (await read_json(request, _Kind)).kind
        return json_response(await self._store.redeem(request.match_info["id"], kind))

    async def audit(self, request: web.Request) -> web.Response:
        """Read the audit log."""
        wanted = query(request, _Audit)
        return json_response(await self._store.audit(wanted.after, limit=wanted.limit, tenant=wanted.tenant))

    async def append_audit(self, request: web.Request) -> web.Response:
        """Append to the audit log."""
        await self._store.append_audit(await read_json(request, list[AuditEntry]))
        return web.Response(status=204)
