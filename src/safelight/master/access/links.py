"""Signed links: each shows one result or original without a key, until it expires or is revoked.

`link` in the query is `EXPIRES.TENANT.KEY.SIGNATURE`: Unix seconds, the tenant, the id of its signing key, and the
HMAC-SHA256 (base64url) over the path, the output and the parts before the signature. A rotation of the tenant's signing
key revokes all earlier links.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Annotated
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access, Caller
from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.master.access.audit import Audit
from safelight.master.access.fresh import Fresh
from safelight.master.access.quotas import Quotas
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire.accounts import Link, SigningKey

_DAY = 86400


class NewLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The output (without one, the first by name) or original that a link shows, and for how many seconds."""

    output: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    original: bool = False
    expires_in: Annotated[float, Meta(gt=0, le=366 * _DAY)] = 7 * _DAY


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For how many seconds the replaced key stays valid."""

    overlap: Annotated[float, Meta(ge=0, le=366 * _DAY)] = 0.0


class Links:
    """The handlers and the authenticator of signed links."""

    def __init__(self, db: DbClient, accounts: AccountClient, quotas: Quotas, audit: Audit) -> None:
        self._db = db
        self._accounts = accounts
        self._quotas = quotas
        self._audit = audit
        self._keys: Fresh[list[SigningKey]] = Fresh(accounts.signing_keys)

    async def create(self, request: web.Request) -> web.Response:
        """`POST /task/{id}/links`."""
        asked = await http.read_json(request, NewLink)
        if asked.original and asked.output is not None:
            sentence = "A link shows one file: give either output or original."
            raise Error(Code.INVALID_REQUEST, sentence, position="$.original")
        tenant = tenant_of(request)
        task = await self._db.get(request.match_info["id"], tenant=tenant)
        if asked.output is not None and all(output.name != asked.output for output in task.outputs):
            raise Error(Code.NOT_FOUND, f"This task has no output {asked.output!r}.", position="$.output")
        path = f"/task/{quote(task.id, safe='')}/{'original' if asked.original else 'result'}"
        expires = int(time.time() + asked.expires_in)
        output = asked.output or ""
        (key, *_) = await self._keys.get(tenant)
        query = {"output": output} if output else {}
        query["link"] = _link(key, tenant, path, output, expires)
        made = Link(url=http.absolute(request, f"{path}?{urlencode(query)}"), expires=expires)
        async with self._audit.record(
            request, "links.create", task.id, output=output, original=asked.original, expires=expires
        ):
            return http.json_response(made)

    async def rotate(self, request: web.Request) -> web.Response:
        """`POST /links/rotate`."""
        asked, tenant = await http.read_json(request, Rotation), tenant_of(request)
        async with self._audit.record(request, "links.rotate", tenant, overlap=asked.overlap):
            await self._accounts.rotate_signing_key(tenant, overlap=asked.overlap)
        self._keys.forget(tenant)
        return web.Response(status=204)

    async def authenticate(self, request: web.Request) -> Caller | None:
        """Return the caller for a signed link.

        Raises UNAUTHENTICATED for an invalid one, FORBIDDEN for one of a disabled tenant.
        """
        given = request.query.get("link")
        if given is None:
            return None
        expires, _, rest = given.partition(".")
        tenant, _, rest = rest.partition(".")
        id, _, _ = rest.partition(".")  # noqa: A001 - a key's id is called id
        path = request.path.removeprefix(http.location(request, ""))
        output = request.query.get("output", "")
        holds = False
        if expires.isascii() and expires.isdigit() and len(expires) < 16 and time.time() < int(expires):
            key = next((key for key in await self._signing(tenant) if key.id == id), None)
            if key is not None:
                holds = hmac.compare_digest(
                    _link(key, tenant, path, output, int(expires)).encode(), given.encode(errors="replace")
                )
        if not holds:
            raise Error(Code.UNAUTHENTICATED, "This link has expired or was revoked. Ask its sender for a new one.")
        # A disabled tenant shows nothing. Others follow its links, so that does not use up its requests.
        await self._quotas.request(tenant, counted=True)
        return Caller(name="a signed link", tenant=tenant, scopes=Access.LINK, via="link")

    async def _signing(self, tenant: str) -> list[SigningKey]:
        try:
            return await self._keys.get(tenant)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return []

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="POST", path="/task/{id}/links", handler=self.create, access=Access.READ, tag="access",
                summary="Make a signed link to a result or an original", body={JSON: NewLink}, answer={JSON: Link},
                errors=(Code.INVALID_REQUEST, Code.NOT_FOUND, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="POST", path="/links/rotate", handler=self.rotate, access=Access.ADMINISTER, tag="access",
                summary="Replace the key that signs links; earlier links end", body={JSON: Rotation}, status=204,
                errors=(Code.INVALID_REQUEST, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip


def _link(key: SigningKey, tenant: str, path: str, output: str, expires: int) -> str:
    head = f"{expires}.{tenant}.{key.id}"
    signed = hmac.new(key.secret.encode(), f"{path}\n{output}\n{head}".encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(signed).decode().rstrip('=')}"
