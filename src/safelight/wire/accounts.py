"""Tenants, their API keys, sessions and signing keys, and the audit log: the records that travel between services.

Secrets are random and long, so one SHA-256 is enough to store them: db holds only digests of API keys, session cookies
and tickets. Times are Unix seconds.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from safelight.wire import DEFAULT_TENANT, Digest, Record, TenantId

_SECRET_BYTES = 32
_ID_BYTES = 10
_PREFIX = "sl"


class Scope(StrEnum):
    """What an API key or a session may do."""

    UPLOAD = "upload"
    """Upload photos, and preview recipes."""
    READ = "read"
    """Look at tasks, recipes, events and results."""
    OPERATE = "operate"
    """Change tasks and recipes, pause the queue, and repeat calls of webhooks."""
    ADMINISTER = "administer"
    """All of that, and manage the tenant's keys. In the tenant `default`: manage tenants as well."""


Scopes = Annotated[list[Scope], Meta(min_length=1, max_length=len(Scope))]
Name = Annotated[str, Meta(max_length=100)]
_Count = Annotated[int, Meta(ge=0, le=2**62)]


class Limits(Record, frozen=True, kw_only=True):
    """The limits of a tenant. Null means no limit besides those of the whole system."""

    uploads: Annotated[_Count | None, Meta(description="uploads in progress at once")] = None
    waiting: Annotated[_Count | None, Meta(description="tasks waiting")] = None
    bytes: Annotated[_Count | None, Meta(description="bytes of originals and results")] = None
    requests: Annotated[Annotated[float, Meta(gt=0, le=1e6)] | None, Meta(description="requests per second")] = None


class RecipePause(Record, frozen=True, kw_only=True):
    """A paused recipe: since `at` (Unix seconds), workers begin none of its tasks.

    `number` identifies the pause in the whole database. A pause that has `ended` is kept until its tasks wait again.
    """

    recipe: str
    number: int
    since: float
    ended: bool = False


class Tenant(Record, frozen=True, kw_only=True):
    """The owner of tasks, recipes, keys and limits.

    Leases are shared between the tenants with waiting tasks in proportion to their weights. The keys, sessions and
    signed links of a disabled tenant are refused, but its tasks continue. `paused` says since when (Unix seconds) the
    tenant's queue is paused, so that workers begin none of its tasks; 0 if it is not. `pauses` are those of single
    recipes. `draining` lists the workers that take no more leases, and since when; it is stored with the tenant
    `default`, whose users run the workers. Events up to the number `after_event` and audit entries up to `after_audit`
    are about an earlier tenant of this id, and this one cannot read them.
    """

    id: TenantId
    name: Name = ""
    weight: Annotated[float, Meta(ge=0.01, le=1000)] = 1.0
    limits: Limits = Limits()
    disabled: bool = False
    paused: float = 0.0
    pauses: list[RecipePause] = msgspec.field(default_factory=list)
    draining: dict[str, float] = msgspec.field(default_factory=dict)
    created: float = 0.0
    after_event: int = 0
    after_audit: int = 0

    @property
    def paused_recipes(self) -> dict[str, float]:
        """The paused recipes, and since when."""
        return {pause.recipe: pause.since for pause in self.pauses if not pause.ended}


class Wanted(Record, frozen=True, kw_only=True):
    """A master's request for a part of a tenant's limits.

    `requests` is how many requests it wants to admit now. `uploads` is how many uploads it would then have in progress,
    `new` of which have not begun.
    """

    master: Annotated[str, Meta(min_length=1, max_length=64)]
    requests: Annotated[int, Meta(ge=0, le=2**31)] = 0
    uploads: Annotated[int, Meta(ge=0, le=2**31)] = 0
    new: Annotated[int, Meta(ge=0, le=2**31)] = 0


class Granted(Record, frozen=True, kw_only=True):
    """The answer to `Wanted`. `retry_after` says in how many seconds there is another request, if there are too few.

    `in_progress` counts the uploads in progress at all masters, including these.
    """

    requests: int
    uploads: int
    in_progress: int
    retry_after: float = 0.0


class TenantUse(Record, frozen=True, kw_only=True):
    """What a tenant uses now. `bytes` counts an original or a result once for every task that has it."""

    tenant: TenantId
    tasks: dict[str, int]
    bytes: int = 0


class TenantSeen(Record, frozen=True, kw_only=True):
    """A tenant and what it uses now."""

    tenant: Tenant
    use: TenantUse


class KeyInfo(Record, frozen=True, kw_only=True):
    """An API key without its secret."""

    id: str
    tenant: TenantId = DEFAULT_TENANT
    name: Name = ""
    scopes: Scopes
    created: float = 0.0
    created_by: str = ""
    expires: float | None = None
    revoked: float | None = None
    rotated: float | None = None
    last_used: float | None = None


class CreatedKey(Record, frozen=True, kw_only=True):
    """A key and its token, which is shown this once."""

    key: KeyInfo
    token: str


class Link(Record, frozen=True, kw_only=True):
    """An address that works without a key, and when it expires (Unix seconds)."""

    url: str
    expires: float


class ApiKey(KeyInfo, frozen=True, kw_only=True):
    """An API key as db keeps it. After a rotation the digest before it stays valid until `previous_expires`.

    `earlier` has the digests before that one which are still valid, oldest first, each with when it expires.
    """

    digest: Digest
    previous: Digest | None = None
    previous_expires: float = 0.0
    earlier: dict[Digest, float] = msgspec.field(default_factory=dict)

    @property
    def replaced(self) -> dict[str, float]:
        """The digests of replaced secrets, oldest first, each with when it expires."""
        return self.earlier if self.previous is None else {**self.earlier, self.previous: self.previous_expires}

    def matches(self, secret: str, now: float) -> bool:
        """Return whether a secret belongs to this key, in constant time."""
        return self.accepts(digest(secret), now)

    def accepts(self, given: str, now: float) -> bool:
        """Return whether this is the digest of a valid secret of this key, in constant time."""
        current = hmac.compare_digest(given, self.digest)
        replaced = [hmac.compare_digest(given, each) and now < until for each, until in self.replaced.items()]
        return current or any(replaced)

    def valid(self, now: float) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def info(self) -> KeyInfo:
        """Return the part of the key that may be shown."""
        return msgspec.convert(self, KeyInfo, from_attributes=True)


class SignedIn(Record, frozen=True, kw_only=True):
    """Who the caller is. Without a session or another credential, `signed_in` is false and the rest is empty.

    `needed` says whether users have to sign in at all; `operator` whether the caller may manage tenants. `providers`
    names other ways to sign in.
    """

    signed_in: bool
    needed: bool
    name: str = ""
    tenant: str = ""
    scopes: list[Scope] = msgspec.field(default_factory=list)
    via: str = ""
    key: str = ""
    operator: bool = False
    providers: list[str] = msgspec.field(default_factory=list)


class Session(Record, frozen=True, kw_only=True):
    """A browser that signed in. `id` is the digest of the cookie's secret; `key` the API key that it was given for.

    It ends with that key's secret, of which `secret` is the digest.
    """

    id: Digest
    tenant: TenantId
    name: Name = ""
    scopes: Scopes
    key: str = ""
    secret: str = ""
    created: float
    expires: float


class Ticket(Record, frozen=True, kw_only=True):
    """Something that is redeemed once: a sign-in link.

    `id` is the digest of its secret.
    """

    id: Digest
    kind: str
    tenant: TenantId = DEFAULT_TENANT
    name: Name = ""
    scopes: Annotated[list[Scope], Meta(max_length=len(Scope))] = msgspec.field(default_factory=list)
    values: dict[str, str] = msgspec.field(default_factory=dict)
    expires: float


class Purpose(StrEnum):
    """What a signing key signs."""

    LINKS = "links"
    """Links to single results and originals; nobody but the masters knows the secret."""
    WEBHOOKS = "webhooks"
    """Webhook calls; the tenant's administrators know the secret too, since receivers verify calls with it."""


class SigningKey(Record, frozen=True, kw_only=True):
    """A key that signs for a tenant. The newest of a purpose signs; others are valid until they expire."""

    id: str
    tenant: TenantId
    purpose: Purpose = Purpose.LINKS
    secret: str
    created: float
    expires: float | None = None


class WebhookSecret(Record, frozen=True, kw_only=True):
    """The secret with which receivers verify a tenant's webhook calls: `whsec_` and base64.

    Until `previous_expires` (Unix seconds) each call is also signed with the previous secret.
    """

    secret: str
    created: float
    previous_expires: float | None = None


class AuditEntry(Record, frozen=True, kw_only=True):
    """One line of the audit log: who did what. `tenant` is the affected tenant."""

    seq: int = 0
    at: float = 0.0
    tenant: str = DEFAULT_TENANT
    who: str
    via: str = ""
    remote: str = ""
    action: str
    subject: str = ""
    outcome: str = "done"
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


class AuditPage(Record, frozen=True, kw_only=True):
    """Entries after a number, oldest first; `last` goes into `after` for the next page."""

    entries: list[AuditEntry]
    last: int


def digest(secret: str) -> str:
    """Return the digest of a secret, which is stored instead of it."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()  # a wrong one need not be text


def new_secret() -> str:
    """Return 256 random bits as 52 characters of a-z and 2-7."""
    return base64.b32encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=").lower()


def new_id() -> str:
    """Return a random id that is not a secret: 16 characters of a-z and 2-7."""
    return base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()


def token(id: str, secret: str) -> str:
    """Return an API key as its owner keeps it: `sl_<id>_<secret>`."""
    return f"{_PREFIX}_{id}_{secret}"


def parse_token(text: str) -> tuple[str, str] | None:
    """Return the id and the secret of an API key, or None if the text is not a key."""
    prefix, _, rest = text.partition("_")
    key, _, secret = rest.partition("_")
    well = prefix == _PREFIX and len(key) <= 64 and key.isascii() and key.isalnum() and 0 < len(secret) <= 256
    return (key, secret) if well else None


def now() -> float:
    """Return the time to which expiries are compared."""
    return time.time()
