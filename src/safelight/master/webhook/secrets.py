"""Endpoints that show and replace the secret that signs a tenant's webhook calls."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.accounts import AccountClient
from safelight.errors import Code, Error
from safelight.master.access.audit import Audit
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.master.webhook.signing import Signer, shown
from safelight.wire.accounts import Purpose, SigningKey, WebhookSecret

_DAY = 86400


class SecretRotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For how many seconds calls are also signed with the previous secret."""

    overlap: Annotated[float, Meta(ge=0, le=366 * _DAY)] = float(_DAY)


class WebhookSecrets:
    """The handlers."""

    def __init__(self, accounts: AccountClient, signer: Signer, audit: Audit) -> None:
        self._accounts = accounts
        self._signer = signer
        self._audit = audit

    async def get(self, request: web.Request) -> web.Response:
        """`GET /webhooks/secret`."""
        tenant = tenant_of(request)
        async with self._audit.record(request, "webhook_secrets.show", tenant):
            if (given := self._signer.given(tenant)) is not None:
                return _private(WebhookSecret(secret=given, created=0.0))
            return _private(_secret(await self._accounts.signing_keys(tenant, Purpose.WEBHOOKS)))

    async def rotate(self, request: web.Request) -> web.Response:
        """`POST /webhooks/secret/rotate`."""
        asked, tenant = await http.read_json(request, SecretRotation), tenant_of(request)
        if self._signer.given(tenant) is not None:
            sentence = f"The secret of the tenant {tenant} is a setting of the master: change --webhook-secret."
            raise Error(Code.CONFLICT, sentence)
        async with self._audit.record(request, "webhook_secrets.rotate", tenant, overlap=asked.overlap):
            keys = await self._accounts.rotate_signing_key(tenant, Purpose.WEBHOOKS, overlap=asked.overlap)
        self._signer.changed(tenant)
        return _private(_secret(keys))

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/webhooks/secret", handler=self.get, access=Access.ADMINISTER, tag="access",
                summary="Show the secret with which receivers verify the tenant's webhook calls",
                answer={JSON: WebhookSecret}, errors=(Code.NOT_FOUND, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="POST", path="/webhooks/secret/rotate", handler=self.rotate, access=Access.ADMINISTER,
                tag="access", summary="Replace that secret; calls are signed with both for a while",
                body={JSON: SecretRotation}, answer={JSON: WebhookSecret},
                errors=(Code.INVALID_REQUEST, Code.NOT_FOUND, Code.CONFLICT, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip


def _secret(keys: list[SigningKey]) -> WebhookSecret:
    newest, *others = keys
    expires = max((key.expires or 0.0 for key in others), default=None)
    return WebhookSecret(secret=shown(newest), created=newest.created, previous_expires=expires)


def _private(secret: WebhookSecret) -> web.Response:
    return http.json_response(secret, headers={"Cache-Control": "no-store"})
