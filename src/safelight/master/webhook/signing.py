"""Sign webhook calls according to Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from safelight.client.accounts import AccountClient
from safelight.master.access.fresh import Fresh
from safelight.wire import DEFAULT_TENANT
from safelight.wire.accounts import Purpose, SigningKey

_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}")


class Signer:
    """Signs calls with the secrets of their tenants, so that no tenant can forge a call to another.

    A tenant's secret is created when it is first needed. The operator may set that of the tenant `default`.
    """

    def __init__(self, accounts: AccountClient, secret: str | None = None) -> None:
        """Take the secret of the tenant `default`: `whsec_` and 24 to 64 random bytes in base64.

        Raises ValueError with what is wrong.
        """
        if secret is not None and _SECRET.fullmatch(secret) is None:
            raise ValueError('write "whsec_" and 24 to 64 random bytes in base64 (openssl rand -base64 32)')
        self._secret = secret
        self._keys: Fresh[list[SigningKey]] = Fresh(lambda tenant: accounts.signing_keys(tenant, Purpose.WEBHOOKS))

    def given(self, tenant: str) -> str | None:
        """Return the secret that the operator set for a tenant, if any."""
        return self._secret if tenant == DEFAULT_TENANT else None

    async def keys(self, tenant: str) -> list[SigningKey]:
        """Return a tenant's keys, newest first. Raises NOT_FOUND, UNAVAILABLE."""
        return await self._keys.get(tenant)

    def changed(self, tenant: str) -> None:
        """Drop a tenant's keys from the cache."""
        self._keys.forget(tenant)

    async def headers(self, tenant: str, id: str, moment: float, body: bytes) -> dict[str, str]:
        """Return the headers that sign a call of a tenant: its id, time (Unix seconds) and body.

        During a rotation there is a signature for each secret. Raises NOT_FOUND, UNAVAILABLE.
        """
        given = self.given(tenant)
        secrets: Sequence[str] = [given] if given is not None else list(map(shown, await self.keys(tenant)))
        sent = datetime.fromtimestamp(int(moment), UTC)
        return {
            "webhook-timestamp": str(int(moment)),
            "webhook-signature": " ".join(Webhook(secret).sign(id, sent, body.decode()) for secret in secrets),
        }


def shown(key: SigningKey) -> str:
    """Return a key's secret in the form for receivers: `whsec_` and its 32 bytes in base64."""
    padded = key.secret.upper() + "=" * (-len(key.secret) % 8)
    return "whsec_" + base64.b64encode(base64.b32decode(padded)).decode()
