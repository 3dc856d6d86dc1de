"""Signatures of webhook calls, as Standard Webhooks says (standardwebhooks.com)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from standardwebhooks import Webhook

_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}")


class Signer:
    """Signs calls with a secret: `whsec_` and 24 to 64 random bytes in base64."""

    def __init__(self, secret: str) -> None:
        """Take the secret. Raises ValueError with what is wrong."""
        if _SECRET.fullmatch(secret) is None:
            raise ValueError('write "whsec_" and 24 to 64 random bytes in base64 (openssl rand -base64 32)')
        self._webhook = Webhook(secret)

    def headers(self, id: str, moment: float, body: bytes) -> dict[str, str]:
        """Return the headers that sign a body sent at a moment (Unix seconds) under an id."""
        sent = datetime.fromtimestamp(int(moment), UTC)
        return {
            "webhook-timestamp": str(int(moment)),
            "webhook-signature": self._webhook.sign(id, sent, body.decode()),
        }
