"""Read an OpenID Connect provider's metadata and keys, and exchange codes for ID tokens.

Every fetch has limits of time and size, follows no redirects, and uses TLS unless the provider is on this machine.
Sources: OpenID Connect Core 1.0 (3.1.3), OpenID Connect Discovery 1.0 (4), RFC 7636 (PKCE), RFC 9207.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote_plus

import aiohttp
import msgspec
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import Key, KeySet
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry
from yarl import URL

from safelight.access.networks import is_loopback
from safelight.client.availability.failures import reason_of
from safelight.errors import MALFORMED, Code, Error
from safelight.master.access.fresh import Fresh
from safelight.untrusted.text import printable

T = TypeVar("T")

_FETCH_TIME = aiohttp.ClientTimeout(total=10, sock_connect=5)
_LARGEST = 256 * 1024
"""The largest document to fetch, in bytes."""
_LONGEST_TOKEN = 32 * 1024
_LASTS = 3600.0
"""Seconds for which the provider's metadata and keys are cached."""
_KEYS_AGAIN = 30.0
"""Seconds between two searches for an unknown key."""
_CLOCKS_DIFFER = 60
"""Seconds by which the provider's clock may differ from this machine's."""
_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
"""Algorithms that sign with a private key. Excludes `none` and HMAC, with which a client could forge a signature."""


class _Headers(JWSRegistry):
    """Ignore what we do not know in a token's header (RFC 7515, 4), which may also hold certificates."""

    max_header_length = _LONGEST_TOKEN

    def __init__(self) -> None:
        super().__init__(algorithms=_ALGORITHMS, strict_check_header=False)


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The used part of the provider's discovery document."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of the token endpoint."""

    id_token: str | None = None
    error: str | None = None
    error_description: str | None = None


class _Keys(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's key set. Those that are not supported are ignored (RFC 7517, 5)."""

    keys: list[dict[str, Any]]


class Provider:
    """The provider at which this master is the client `client_id`."""

    def __init__(self, issuer: str, client_id: str, secret: str | None) -> None:
        """Take the issuer's URL. Raises ValueError for a URL that cannot be trusted."""
        _check_url(issuer)
        self.issuer = issuer
        self.client_id = client_id
        self.name = URL(issuer).authority
        """The name that people see, which is also used in paths."""
        self._secret = secret
        self._metadata: Fresh[Metadata] = Fresh(self._read_metadata, seconds=_LASTS)
        self._keys: Fresh[KeySet] = Fresh(self._read_keys, seconds=_LASTS)
        self._looked = -_KEYS_AGAIN
        self._http: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Keep an HTTP session open until the context ends."""
        async with aiohttp.ClientSession(
            timeout=_FETCH_TIME,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
        ) as self._http:
            yield

    async def address(self, *, redirect: str, state: str, nonce: str, verifier: str) -> URL:
        """Return the URL to send a browser to; the provider sends it back to `redirect`. Raises UNAVAILABLE."""
        metadata = await self._metadata.get(self.issuer)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        return URL(metadata.authorization_endpoint).update_query(
            response_type="code",
            client_id=self.client_id,
            redirect_uri=redirect,
            scope="openid email profile",
            state=state,
            nonce=nonce,
            code_challenge=challenge,
            code_challenge_method="S256",
        )

    async def claims(self, code: str, *, redirect: str, nonce: str, verifier: str) -> dict[str, Any]:
        """Exchange a code for an ID token, check it and return its claims. Raises UNAUTHENTICATED, UNAVAILABLE."""
        metadata = await self._metadata.get(self.issuer)
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
        headers = self._authenticate(metadata, form)
        answer = await self._fetch("POST", metadata.token_endpoint, _Answer, data=form, headers=headers)
        if answer.error is not None or answer.id_token is None:
            raise Error(Code.UNAUTHENTICATED, self.refusal(answer.error or "no ID token", answer.error_description))
        return await self._checked(answer.id_token, nonce)

    def refusal(self, error: str, description: str | None) -> str:
        """Return the message for an error that the provider reports."""
        reason = printable(f"{error}: {description}" if description else error, 200)
        return f"{self.name} did not sign you in ({reason})."

    def _authenticate(self, metadata: Metadata, form: dict[str, str]) -> Mapping[str, str]:
        """Identify the client, in the form or in the returned headers (RFC 6749, 2.3.1)."""
        if self._secret is None:
            form["client_id"] = self.client_id
            return {}
        methods = metadata.token_endpoint_auth_methods_supported
        if "client_secret_basic" not in methods and "client_secret_post" in methods:
            form |= {"client_id": self.client_id, "client_secret": self._secret}
            return {}
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self._secret)}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    async def _checked(self, token: str, nonce: str) -> dict[str, Any]:
        """Check an ID token as in OpenID Connect Core 3.1.3.7, and return its claims."""
        try:
            claims = (await self._verified(token)).claims
            JWTClaimsRegistry(
                leeway=_CLOCKS_DIFFER,
                iss={"essential": True, "value": self.issuer},
                aud={"essential": True, "value": self.client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
            ).validate(claims)
            _check_party(claims, self.client_id)
            _check_nonce(claims, nonce)
        except (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            reason = printable(_said(error), 200).rstrip(".: ")
            raise Error(
                Code.UNAUTHENTICATED, f"The ID token from {self.name} is not valid: {reason}. Sign in again."
            ) from None
        return claims

    async def _verified(self, token: str) -> jwt.Token:
        if len(token) > _LONGEST_TOKEN:
            raise ValueError("it is too long")
        try:
            return jwt.decode(token, await self._keys.get(self.issuer), registry=_Headers())
        except (InvalidKeyIdError, BadSignatureError):
            # Providers change their keys from time to time, some without a new id for the new key. But forged tokens
            # must not make us ask constantly.
            if time.monotonic() - self._looked < _KEYS_AGAIN:
                raise
            self._looked = time.monotonic()
            self._keys.forget(self.issuer)
            return jwt.decode(token, await self._keys.get(self.issuer), registry=_Headers())

    async def _read_metadata(self, issuer: str) -> Metadata:
        metadata = await self._fetch("GET", issuer.rstrip("/") + "/.well-known/openid-configuration", Metadata)
        if metadata.issuer != issuer:
            sentence = f"says that it is the issuer {printable(metadata.issuer, 200)}, not {issuer} (--oidc-issuer)"
            raise self._unusable(sentence)
        try:
            for url in (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri):
                _check_url(url)
        except ValueError as error:
            raise self._unusable(f"names an endpoint that cannot be used: {error}") from None
        return metadata

    async def _read_keys(self, issuer: str) -> KeySet:
        metadata = await self._metadata.get(issuer)
        document = await self._fetch("GET", metadata.jwks_uri, _Keys)
        found: list[Key] = []
        reason = "there are none"
        for each in document.keys:
            try:
                found += KeySet.import_key_set({"keys": [each]})
            except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
                reason = _said(error)  # one that we cannot use, such as on a rarer curve, must not bar the others
        if not found:
            raise self._unusable(f"has keys that cannot be used: {printable(reason, 200)}")
        return KeySet(found)

    async def _fetch(self, method: str, url: str, kind: type[T], **options: Any) -> T:
        """Fetch a JSON document. For a POST, the document may also be an error with a status below 500."""
        assert self._http is not None
        try:
            async with self._http.request(method, url, allow_redirects=False, **options) as answer:
                if answer.status != 200 and not (method == "POST" and 400 <= answer.status < 500):
                    raise self._unusable(f"answered {answer.status} to {method} {URL(url).path}")
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise self._unusable(f"answered more than {_LARGEST} bytes to {method} {URL(url).path}")
            return msgspec.json.decode(bytes(body), type=kind)
        except TimeoutError:
            raise self._unusable(f"did not answer within {_FETCH_TIME.total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._unusable(f"cannot be reached: {printable(reason_of(error), 200)}") from None
        except MALFORMED:
            raise self._unusable(f"answered {method} {URL(url).path} without the expected JSON") from None

    def _unusable(self, what: str) -> Error:
        return Error(Code.UNAVAILABLE, f"The identity provider {self.name} {what}. Try again later.")


def _check_party(claims: Mapping[str, Any], client_id: str) -> None:
    """Refuse a token that was made for another client, even if this one is among its audiences."""
    party = claims.get("azp")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if party != client_id and (several or party is not None):
        raise ValueError("it was made for another client")


def _check_nonce(claims: Mapping[str, Any], nonce: str) -> None:
    """Refuse a token that was not made for this sign-in."""
    if not hmac.compare_digest(str(claims.get("nonce")).encode(errors="replace"), nonce.encode()):
        raise ValueError("it belongs to another sign-in")


def _said(error: Exception) -> str:
    """Return the message of an exception, without the library's error code."""
    return (error.description if isinstance(error, JoseError) else "") or str(error) or type(error).__name__


def _check_url(text: str) -> None:
    """Raise ValueError with a message for an address that must not be fetched."""
    url = URL(text)
    if not url.host or url.user is not None or url.fragment:
        raise ValueError(f"{printable(text, 200)} is not an address; write https://HOST or https://HOST/PATH")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host)):
        raise ValueError(f"{printable(text, 200)} is not https")
