"""List, create, rotate, revoke and authenticate API keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.authenticate import bearer
from safelight.access.caller import SCOPES, Access, Caller, is_admitted
from safelight.client.accounts import AccountClient
from safelight.errors import Code, Error
from safelight.master.access.audit import Audit
from safelight.master.access.fresh import Fresh
from safelight.master.access.quotas import Quotas
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import accounts
from safelight.wire.accounts import ApiKey, CreatedKey, KeyInfo, Name, Scope, Scopes

_DAY = 86400
_NOTED_EVERY = 30.0
"""Seconds between two updates of when keys were used."""
KEY = web.RequestKey("key", str)
"""The id of the API key behind a request, its own or that of its session."""
SECRET = web.RequestKey("secret", str)
"""The digest of that key's secret with which the request's session was started."""


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to create. Without `expires_in`, in seconds, it does not expire."""

    name: Name = ""
    scopes: Scopes = msgspec.field(default_factory=lambda: [Scope.UPLOAD, Scope.READ])
    expires_in: Annotated[float, Meta(gt=0, le=3660 * _DAY)] | None = None


class KeyRotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many seconds the previous secret stays valid."""

    overlap: Annotated[float, Meta(ge=0, le=366 * _DAY)] = float(_DAY)


class Keys:
    """The handlers of keys."""

    def __init__(self, client: AccountClient, quotas: Quotas, audit: Audit) -> None:
        self._accounts = client
        self._quotas = quotas
        self._audit = audit
        self._keys: Fresh[ApiKey | None] = Fresh(self._read)
        self._used: dict[str, float] = {}

    async def _read(self, id: str) -> ApiKey | None:
        try:
            return await self._accounts.key(id)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return None

    async def valid(self, id: str) -> ApiKey | None:
        """Return a valid key, from the cache."""
        key = await self._keys.get(id)
        return key if key is not None and key.valid(time.time()) else None

    async def of_token(self, token: str, *, counted: bool = False) -> ApiKey | None:
        """Return the key of a token, or None for a wrong one. Count a request of its tenant unless it was `counted`."""
        parsed = accounts.parse_token(token)
        key = await self.valid(parsed[0]) if parsed is not None else None
        if parsed is None or key is None or not key.matches(parsed[1], time.time()):
            return None
        self._used[key.id] = time.time()
        await self._quotas.request(key.tenant, counted=counted)
        return key

    async def authenticate(self, request: web.Request) -> Caller | None:
        """Return the caller for the token in `Authorization: Bearer`."""
        token = bearer(request)
        key = await self.of_token(token, counted=is_admitted(request)) if token is not None else None
        if key is None:
            return None  # the gate refuses a token that no authenticator knows
        request[KEY] = key.id
        return Caller(name=key.name or key.id, tenant=key.tenant, scopes=flags(key.scopes), via="key")

    @asynccontextmanager
    async def noting(self) -> AsyncIterator[None]:
        """Record in db when keys were used, until the context ends."""
        task = asyncio.create_task(self._note(), name="key use")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _note(self) -> None:
        while True:
            await asyncio.sleep(_NOTED_EVERY)
            used, self._used = self._used, {}
            if used:
                with suppress(Error):  # the next use is recorded
                    await self._accounts.used_keys(used)

    async def all(self, request: web.Request) -> web.Response:
        """`GET /keys`."""
        found = await self._accounts.keys(tenant=tenant_of(request))
        return http.json_response([key.info() for key in found])

    async def create(self, request: web.Request) -> web.Response:
        """`POST /keys`."""
        asked, caller, tenant = await http.read_json(request, NewKey), http.caller(request), tenant_of(request)
        secret = accounts.new_secret()
        key = ApiKey(
            id=accounts.new_id(),
            tenant=tenant,
            name=asked.name,
            scopes=sorted(set(asked.scopes)),
            created_by=f"{caller.tenant}/{caller.name}",
            expires=None if asked.expires_in is None else time.time() + asked.expires_in,
            digest=accounts.digest(secret),
        )
        async with self._audit.record(request, "keys.create", key.id, name=key.name, scopes=key.scopes):
            made = await self._accounts.create_key(key)
        return _shown(made, secret)

    async def rotate(self, request: web.Request) -> web.Response:
        """`POST /keys/{id}/rotate`: administrators may rotate any key of the tenant, others only their own."""
        asked = await http.read_json(request, KeyRotation)
        id = await self._own(request)  # noqa: A001 - a key's id is called id
        secret = accounts.new_secret()
        async with self._audit.record(request, "keys.rotate", id, overlap=asked.overlap):
            made = await self._accounts.rotate_key(id, accounts.digest(secret), overlap=asked.overlap)
        self._keys.forget(id)
        return _shown(made, secret)

    async def revoke(self, request: web.Request) -> web.Response:
        """`DELETE /keys/{id}`: sessions that were started with it end as well."""
        id = await self._own(request)  # noqa: A001 - as above
        async with self._audit.record(request, "keys.revoke", id):
            await self._accounts.revoke_key(id)
        self._keys.forget(id)
        return web.Response(status=204)

    async def _own(self, request: web.Request) -> str:
        """Return the id of a key that the caller may change. Raises NOT_FOUND, FORBIDDEN."""
        key = await self._accounts.key(request.match_info["id"])
        if key.tenant != tenant_of(request):
            raise Error(Code.NOT_FOUND, "There is no API key of this id.")
        if not http.caller(request).scopes & Access.ADMINISTER and request.get(KEY) != key.id:
            raise Error(Code.FORBIDDEN, "Only administrators may change another's key.")
        if request.get(KEY) == key.id and _secret(request) in key.replaced:
            # Otherwise the holder of a replaced secret could take over the key before the secret expires.
            raise Error(Code.CONFLICT, "This secret of the key was replaced; use the new one to change the key.")
        return key.id

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        errors = (Code.INVALID_REQUEST, Code.NOT_FOUND, Code.CONFLICT, Code.UNAVAILABLE)
        return [
            Endpoint(
                method="GET", path="/keys", handler=self.all, access=Access.ADMINISTER, tag="access",
                summary="List the API keys of the tenant", answer={JSON: list[KeyInfo]}, errors=(Code.UNAVAILABLE,),
            ),
            Endpoint(
                method="POST", path="/keys", handler=self.create, access=Access.ADMINISTER, tag="access",
                summary="Create an API key; its token is shown this once", body={JSON: NewKey},
                answer={JSON: CreatedKey}, errors=errors,
            ),
            Endpoint(
                method="POST", path="/keys/{id}/rotate", handler=self.rotate, access=SCOPES, tag="access",
                summary="Give an API key a new secret; the old one stays valid for a while",
                body={JSON: KeyRotation}, answer={JSON: CreatedKey}, errors=errors,
            ),
            Endpoint(
                method="DELETE", path="/keys/{id}", handler=self.revoke, access=SCOPES, tag="access",
                summary="Revoke an API key", status=204, errors=errors,
            ),
        ]  # fmt: skip


def _secret(request: web.Request) -> str:
    """Return the digest of the secret in a request, or of the one that its session was started with."""
    parsed = accounts.parse_token(bearer(request) or "")
    return request.get(SECRET, "") if parsed is None else accounts.digest(parsed[1])


def flags(scopes: list[Scope]) -> Access:
    """Return scopes as the gate compares them; an administrator has all."""
    if Scope.ADMINISTER in scopes:
        return SCOPES
    held = Access(0)
    for scope in scopes:
        held |= Access[scope.name]
    return held


def scopes_of(access: Access) -> list[Scope]:
    """Return the access of a caller as scopes."""
    return [scope for scope in Scope if Access[scope.name] & access]


def _shown(key: ApiKey, secret: str) -> web.Response:
    made = CreatedKey(key=key.info(), token=accounts.token(key.id, secret))
    return http.json_response(made, headers={"Cache-Control": "no-store"})
