"""An OpenID Connect provider that makes one error, for tests of sign-in."""

from __future__ import annotations

import base64
import hashlib
import time

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey
from yarl import URL

CLIENT = "safelight"


class FaultyProvider:
    """Run a provider that signs in every user, with the error that a test has set; it checks the requests."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "1"})
        self.issuer = ""
        self.claims: dict = {}
        self.sign = lambda claims: jwt.encode({"alg": "ES256", "kid": "1"}, claims, self.key)
        self.token_answer: web.Response | None = None
        self.metadata: dict = {}
        self.fetched = {"keys": 0}
        self.key_set = lambda: [self.key.as_dict(private=False)]
        self.asked: URL | None = None

    async def discovery(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize?kept=1",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                **self.metadata,
            }
        )

    async def keys(self, _request: web.Request) -> web.Response:
        self.fetched["keys"] += 1
        return web.json_response({"keys": self.key_set()})

    async def token(self, request: web.Request) -> web.Response:
        if self.token_answer is not None:
            return self.token_answer
        form = await request.post()
        assert self.asked is not None
        asked = self.asked.query
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        assert (challenge.decode(), asked["code_challenge_method"]) == (asked["code_challenge"], "S256")
        assert form["redirect_uri"] == asked["redirect_uri"]
        # Both name and secret are form-encoded first (RFC 6749, 2.3.1).
        assert request.headers["Authorization"] == f"Basic {base64.b64encode(b'safelight:s%26cret').decode()}"
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": CLIENT, "sub": "1", "exp": now + 60, "iat": now, "nonce": asked["nonce"],
            "email": "ann@example.org", "email_verified": True, **self.claims,
        }  # fmt: skip
        kept = {name: value for name, value in claims.items() if value is not None}
        return web.json_response({"access_token": "x", "token_type": "Bearer", "id_token": self.sign(kept)})
