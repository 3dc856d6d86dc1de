"""Tenants, keys, sessions, tickets, signing keys and the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from safelight.db.calls import sharing, statistics
from safelight.db.calls.tasks import pausing
from safelight.db.commit.transaction import Transaction, encoded
from safelight.errors import Code, Error, plural
from safelight.wire import DEFAULT_TENANT, State, accounts
from safelight.wire.accounts import (
    ApiKey,
    AuditEntry,
    AuditPage,
    Granted,
    Purpose,
    Session,
    SigningKey,
    Tenant,
    TenantUse,
    Ticket,
    Wanted,
)

T = TypeVar("T")

Do = Callable[[Callable[[Transaction], T]], Awaitable[T]]
"""Runs a function of the transaction in the next commit."""

_KEPT = ("created", "paused", "pauses", "draining", "after_event", "after_audit")
"""What a change of a tenant does not replace."""
_RELEASED = 500
"""Tasks of a resumed recipe to release at once; maintenance releases the others."""
_EARLIER = 10
"""The most replaced secrets of a key that stay valid besides the last one."""
_CLEANED = 100
"""Old rows to remove with each new one, so that tables stay bounded without a timer."""


class AccountCalls:
    """`accounts.store.AccountStore` in the database of the tasks."""

    def __init__(self, do: Do[Any], look: Do[Any]) -> None:
        """Run writing calls with `do`, and reading ones with `look`."""
        self._do = do
        self._look = look

    async def tenants(self) -> list[Tenant]:
        """See the contract."""
        return await self._read(lambda t: sorted(t.memory.tenants.values(), key=lambda tenant: tenant.id))

    async def tenant(self, id: str) -> Tenant:
        """See the contract."""
        return await self._read(lambda t: _tenant(t, id))

    async def create_tenant(self, tenant: Tenant) -> Tenant:
        """See the contract."""
        return await self._run(lambda t: _create_tenant(t, tenant))

    async def change_tenant(self, tenant: Tenant) -> Tenant:
        """See the contract."""
        return await self._run(lambda t: _change_tenant(t, tenant))

    async def pause(self, id: str, *, paused: bool) -> Tenant:
        """See the contract."""
        return await self._run(lambda t: _pause(t, id, paused=paused))

    async def pause_recipe(self, id: str, recipe: str, *, paused: bool) -> Tenant:
        """See the contract."""
        return await self._run(lambda t: _pause_recipe(t, id, recipe, paused=paused))

    async def delete_tenant(self, id: str) -> None:
        """See the contract."""
        await self._run(lambda t: _delete_tenant(t, id))

    async def use(self) -> list[TenantUse]:
        """See the contract."""
        return await self._read(_use)

    async def grant(self, id: str, wanted: Wanted) -> Granted:
        """See the contract."""
        return await self._run(lambda t: sharing.grant(t, _tenant(t, id), wanted))

    async def keys(self, *, tenant: str | None = None) -> list[ApiKey]:
        """See the contract."""
        found = await self._read(lambda t: t.connection.read("api_keys", list[ApiKey], tenant))
        return sorted(found, key=lambda key: key.created)  # keys of the same millisecond stay in order of creation

    async def key(self, id: str) -> ApiKey:
        """See the contract."""
        return await self._read(lambda t: _key(t, id))

    async def create_key(self, key: ApiKey) -> ApiKey:
        """See the contract."""
        return await self._run(lambda t: _create_key(t, key))

    async def rotate_key(self, id: str, digest: str, *, overlap: float) -> ApiKey:
        """See the contract."""
        return await self._run(lambda t: _rotate_key(t, id, digest, overlap))

    async def revoke_key(self, id: str) -> ApiKey:
        """See the contract."""
        return await self._run(lambda t: _revoke_key(t, id))

    async def used_keys(self, used: Mapping[str, float]) -> None:
        """See the contract."""
        await self._run(lambda t: _used_keys(t, used))

    async def create_session(self, session: Session) -> Session:
        """See the contract."""
        return await self._run(lambda t: _create_session(t, session))

    async def session(self, id: str) -> Session:
        """See the contract."""
        return await self._read(lambda t: _session(t, id))

    async def end_session(self, id: str) -> None:
        """See the contract."""
        await self._run(lambda t: t.connection.run("delete_session", id))

    async def create_ticket(self, ticket: Ticket) -> None:
        """See the contract."""
        await self._run(lambda t: _create_ticket(t, ticket))

    async def redeem(self, id: str, kind: str) -> Ticket:
        """See the contract."""
        return await self._run(lambda t: _redeem(t, id, kind))

    async def signing_keys(self, tenant: str, purpose: Purpose = Purpose.LINKS) -> list[SigningKey]:
        """See the contract."""
        return await self._run(lambda t: _signing_keys(t, tenant, purpose) or _new_signing_key(t, tenant, purpose))

    async def rotate_signing_key(
        self, tenant: str, purpose: Purpose = Purpose.LINKS, *, overlap: float
    ) -> list[SigningKey]:
        """See the contract."""
        return await self._run(lambda t: _rotate_signing_key(t, tenant, purpose, overlap))

    async def append_audit(self, entries: Sequence[AuditEntry]) -> None:
        """See the contract."""
        await self._run(lambda t: _append_audit(t, entries))

    async def audit(self, after: int = 0, *, limit: int = 1000, tenant: str | None = None) -> AuditPage:
        """See the contract."""
        return await self._read(lambda t: _audit(t, after, limit, tenant))

    async def _run(self, work: Callable[[Transaction], T]) -> T:
        return await self._do(work)  # type: ignore[no-any-return]

    async def _read(self, work: Callable[[Transaction], T]) -> T:
        return await self._look(work)  # type: ignore[no-any-return]


def _tenant(transaction: Transaction, id: str) -> Tenant:
    tenant = transaction.memory.tenants.get(id)
    if tenant is None:
        raise Error(Code.NOT_FOUND, f"There is no tenant {id[:32]}.")
    return tenant


def _create_tenant(transaction: Transaction, tenant: Tenant) -> Tenant:
    if tenant.id in transaction.memory.tenants:
        raise Error(Code.CONFLICT, f"There is a tenant {tenant.id} already.")
    last = {"after_event": transaction.memory.last_event, "after_audit": transaction.connection.value("last_audit")}
    return _keep_tenant(transaction, tenant.evolve(created=transaction.now / 1000, **last))


def _change_tenant(transaction: Transaction, tenant: Tenant) -> Tenant:
    before = _tenant(transaction, tenant.id)
    if tenant.id == DEFAULT_TENANT and tenant.disabled:
        raise Error(Code.CONFLICT, "The tenant default cannot be disabled: its administrators manage the others.")
    kept = {name: getattr(before, name) for name in _KEPT}
    return _keep_tenant(transaction, tenant.evolve(**kept))


def _pause(transaction: Transaction, id: str, *, paused: bool) -> Tenant:
    tenant = _tenant(transaction, id)
    if bool(tenant.paused) is paused:
        return tenant
    return _keep_tenant(transaction, tenant.evolve(paused=transaction.now / 1000 if paused else 0.0))


def _pause_recipe(transaction: Transaction, id: str, recipe: str, *, paused: bool) -> Tenant:
    tenant = _tenant(transaction, id)
    if paused is (recipe in tenant.paused_recipes):
        return tenant
    _keep_tenant(transaction, pausing.pause(transaction, tenant, recipe) if paused else pausing.resume(tenant, recipe))
    if not paused and pausing.release(transaction, _RELEASED):
        transaction.schedule(transaction.steady)
    return _tenant(transaction, id)


def _keep_tenant(transaction: Transaction, tenant: Tenant) -> Tenant:
    transaction.keep_tenant(tenant)
    return tenant


def _delete_tenant(transaction: Transaction, id: str) -> None:
    _tenant(transaction, id)
    if id == DEFAULT_TENANT:
        raise Error(Code.CONFLICT, "The tenant default cannot be deleted.")
    if count := sum(transaction.memory.of(id).counts.values()):
        raise Error(
            Code.CONFLICT,
            f"The tenant {id} still has {count} {plural(count, 'task')}. Delete all its tasks first.",
            tasks=count,
        )
    transaction.write_events()
    while statistics.count(transaction):
        pass  # the last changes would count for the next tenant of this id
    transaction.memory.deliveries -= transaction.connection.run("delete_deliveries_of_tenant", id)
    for statement in (
        "tenant",
        "tenant_use",
        "api_keys",
        "sessions",
        "signing_keys",
        "recipes",
        "statistics",
        "webhook_calls",
    ):
        transaction.connection.run(f"delete_{statement}_of_tenant", id)
    transaction.memory.forget_tenant(id)


def _use(transaction: Transaction) -> list[TenantUse]:
    memory = transaction.memory
    return [
        TenantUse(
            tenant=tenant,
            tasks={state.name.lower(): memory.of(tenant).counts[state] for state in State},
            bytes=memory.of(tenant).bytes,
        )
        for tenant in sorted(memory.tenants)
    ]


def _key(transaction: Transaction, id: str) -> ApiKey:
    found = transaction.connection.read("api_key", ApiKey | None, id)  # type: ignore[arg-type]
    if found is None:
        raise Error(Code.NOT_FOUND, "There is no API key of this id.")
    return found


def _create_key(transaction: Transaction, key: ApiKey) -> ApiKey:
    _tenant(transaction, key.tenant)
    if transaction.connection.value("api_key", key.id) is not None:
        raise Error(Code.CONFLICT, "There is an API key of this id already.")
    return _keep_key(transaction, key.evolve(created=transaction.now / 1000))


def _keep_key(transaction: Transaction, key: ApiKey) -> ApiKey:
    transaction.connection.run("keep_api_key", key.id, key.tenant, encoded(key))
    return key


def _rotate_key(transaction: Transaction, id: str, digest: str, overlap: float) -> ApiKey:
    key = _key(transaction, id)
    now = transaction.now / 1000
    if not key.valid(now):
        raise Error(Code.CONFLICT, "This API key was revoked or has expired; create another one.")
    until = now + overlap
    earlier = [(each, min(end, until)) for each, end in key.replaced.items() if now < end][-_EARLIER:]
    rotated = key.evolve(digest=digest, previous=key.digest, previous_expires=until, earlier=dict(earlier), rotated=now)
    return _keep_key(transaction, rotated)


def _revoke_key(transaction: Transaction, id: str) -> ApiKey:
    key = _key(transaction, id)
    return key if key.revoked is not None else _keep_key(transaction, key.evolve(revoked=transaction.now / 1000))


def _used_keys(transaction: Transaction, used: Mapping[str, float]) -> None:
    for key, at in used.items():
        found: Any = transaction.connection.read("api_key", ApiKey | None, key)  # type: ignore[arg-type]
        if found is not None and (found.last_used or 0.0) < at:
            _keep_key(transaction, found.evolve(last_used=at))


def _create_session(transaction: Transaction, session: Session) -> Session:
    _tenant(transaction, session.tenant)
    transaction.connection.run("delete_old_sessions", transaction.now / 1000, _CLEANED)
    transaction.connection.run("insert_session", session.id, session.tenant, session.expires, encoded(session))
    return session


def _session(transaction: Transaction, id: str) -> Session:
    found: Any = transaction.connection.read("session", Session | None, id, transaction.now / 1000)  # type: ignore[arg-type]
    if found is None:
        raise Error(Code.NOT_FOUND, "The session has ended; sign in again.")
    return found  # type: ignore[no-any-return]


def _create_ticket(transaction: Transaction, ticket: Ticket) -> None:
    transaction.connection.run("delete_old_tickets", transaction.now / 1000, _CLEANED)
    transaction.connection.run("insert_ticket", ticket.id, ticket.expires, encoded(ticket))


def _redeem(transaction: Transaction, id: str, kind: str) -> Ticket:
    found: Any = transaction.connection.read("ticket", Ticket | None, id, transaction.now / 1000)  # type: ignore[arg-type]
    if found is None or found.kind != kind:
        raise Error(Code.NOT_FOUND, "This link was used before or has expired.")
    transaction.connection.run("delete_ticket", id)
    return found  # type: ignore[no-any-return]


def _signing_keys(transaction: Transaction, tenant: str, purpose: Purpose) -> list[SigningKey]:
    return [key for key in _all_signing_keys(transaction, tenant) if key.purpose is purpose]


def _all_signing_keys(transaction: Transaction, tenant: str) -> list[SigningKey]:
    _tenant(transaction, tenant)
    now = transaction.now / 1000
    rows = transaction.connection.read("signing_keys", list[SigningKey], tenant)
    return [key for key in rows if key.expires is None or now < key.expires]


def _new_signing_key(transaction: Transaction, tenant: str, purpose: Purpose) -> list[SigningKey]:
    now = transaction.now / 1000
    made = SigningKey(id=accounts.new_id(), tenant=tenant, purpose=purpose, secret=accounts.new_secret(), created=now)
    transaction.connection.run("insert_signing_key", tenant, encoded(made))
    return _signing_keys(transaction, tenant, purpose)


def _rotate_signing_key(transaction: Transaction, tenant: str, purpose: Purpose, overlap: float) -> list[SigningKey]:
    kept = _all_signing_keys(transaction, tenant)
    until = transaction.now / 1000 + overlap
    transaction.connection.run("delete_signing_keys_of_tenant", tenant)
    for key in reversed(kept):
        ending = key if key.purpose is not purpose else key.evolve(expires=min(until, key.expires or until))
        transaction.connection.run("insert_signing_key", tenant, encoded(ending))
    return _new_signing_key(transaction, tenant, purpose)


def _append_audit(transaction: Transaction, entries: Sequence[AuditEntry]) -> None:
    now = transaction.now / 1000
    for entry in entries:
        transaction.connection.run("insert_audit", now, entry.tenant, encoded(entry))


def _audit(transaction: Transaction, after: int, limit: int, tenant: str | None) -> AuditPage:
    if tenant in transaction.memory.tenants:
        after = max(after, transaction.memory.tenants[tenant].after_audit)
    rows = transaction.connection.read("audit", list[tuple[int, float, msgspec.Raw]], after, limit, tenant)
    entries = [msgspec.json.decode(body, type=AuditEntry).evolve(seq=seq, at=at) for seq, at, body in rows]
    return AuditPage(entries=entries, last=entries[-1].seq if entries else after)
