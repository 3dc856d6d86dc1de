"""Test the contract of db's store for access control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from safelight import serve
from safelight.client.accounts import AccountClient
from safelight.db.__main__ import build
from safelight.db.accounts.store import AccountStore
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.steady import ManualClock
from safelight.wire import NamedRecipe, accounts
from safelight.wire.accounts import ApiKey, AuditEntry, Limits, Purpose, Scope, Session, Tenant, Ticket, Wanted
from support.tasks import new_task


@pytest.fixture(params=["direct", "served"])
async def store(request, backend) -> AsyncIterator[AccountStore]:
    if request.param == "direct":
        async with backend.open() as opened:
            yield opened.accounts
    else:
        config = backend.config()
        async with serve.running("db", config, build) as service, AccountClient.connect(service.url) as client:
            yield client


async def refused(code: Code, call) -> Error:
    with pytest.raises(Error) as caught:
        await call
    assert caught.value.code is code
    return caught.value


def new_key(id: str = "k", **fields) -> tuple[ApiKey, str]:
    secret = accounts.new_secret()
    given = {"name": "script", "scopes": [Scope.UPLOAD, Scope.READ], "digest": accounts.digest(secret), **fields}
    return ApiKey(id=id, **given), secret


async def test_tenants_come_and_go(store):
    assert [tenant.id for tenant in await store.tenants()] == ["default"]
    made = await store.create_tenant(Tenant(id="acme", name="Acme", limits=Limits(waiting=5)))
    assert await store.tenant("acme") == made
    assert made.created > 0
    await refused(Code.CONFLICT, store.create_tenant(Tenant(id="acme")))
    changed = await store.change_tenant(Tenant(id="acme", weight=2.5, disabled=True))
    assert changed == await store.tenant("acme") == Tenant(id="acme", weight=2.5, disabled=True, created=made.created)
    await refused(Code.CONFLICT, store.change_tenant(Tenant(id="default", disabled=True)))
    await refused(Code.CONFLICT, store.delete_tenant("default"))
    key, _ = new_key(tenant="acme")
    await store.create_key(key)
    await store.delete_tenant("acme")
    for call in (store.tenant("acme"), store.delete_tenant("acme"), store.key("k"), store.change_tenant(changed)):
        await refused(Code.NOT_FOUND, call)
    assert [tenant.id for tenant in await store.tenants()] == ["default"]


async def test_a_tenant_with_tasks_cannot_be_deleted(backend):
    async with backend.open() as tasks:
        await tasks.accounts.create_tenant(Tenant(id="acme"))
        (task,) = await tasks.create([new_task(tenant="acme")])
        await tasks.save_recipe(NamedRecipe(tenant="acme", name="own", spec=msgspec.Raw(b"{}")))
        error = await refused(Code.CONFLICT, tasks.accounts.delete_tenant("acme"))
        assert error.extra["tasks"] == 1
        await tasks.delete(task.id)
        await tasks.accounts.delete_tenant("acme")
        await tasks.accounts.create_tenant(Tenant(id="acme"))
        assert await tasks.recipes(tenant="acme") == []


async def test_a_tenant_that_does_not_exist_saves_no_recipe_for_a_later_one_of_its_id(backend):
    async with backend.open() as tasks:
        recipe = NamedRecipe(tenant="acme", name="own", spec=msgspec.Raw(b"{}"))
        await refused(Code.NOT_FOUND, tasks.save_recipe(recipe))
        await tasks.accounts.create_tenant(Tenant(id="acme"))
        assert await tasks.recipes(tenant="acme") == []
        await tasks.save_recipe(recipe)


async def test_a_tenant_has_nothing_of_an_earlier_one_of_its_id(backend):
    async with backend.open() as tasks:
        await tasks.accounts.create_tenant(Tenant(id="acme"))
        made = await tasks.create([new_task(tenant="acme", webhook="http://127.0.0.1:1/") for _ in range(2)])
        for task in made:
            await tasks.cancel(task.id)
        (call,) = await tasks.deliveries(n=1)
        await asyncio.gather(*(tasks.delete(task.id) for task in made), tasks.accounts.delete_tenant("acme"))

        await tasks.accounts.create_tenant(Tenant(id="acme"))
        await tasks.settle_delivery(call.id, delivered=False)
        assert (await tasks.webhook_calls(tenant="acme")).calls == []
        assert await tasks.deliveries() == []
        assert (await tasks.summary()).webhooks_due == 0
        assert await tasks.statistics(span=86400, step=300, tenant="acme") == []


async def test_a_tenant_reads_its_own_events_and_audit_entries_whatever_the_clock_said_when_it_was_created(backend):
    async def act(tasks):
        """Make a task of the tenant and an audit entry; return the task's id."""
        (task,) = await tasks.create([new_task(tenant="acme")])
        await tasks.accounts.append_audit([AuditEntry(who="root", action=f"make {task.id}", tenant="acme")])
        return task.id

    now = 2e9  # some decades ahead
    async with backend.open(clock=ManualClock(lambda: now)) as tasks:
        await tasks.accounts.create_tenant(Tenant(id="acme"))
        earlier = await act(tasks)
        await tasks.delete(earlier)
        await tasks.accounts.delete_tenant("acme")
        assert {event.task for event in (await tasks.events(0, tenant="acme")).events} == {earlier}, "operators may ask"
        made = await tasks.accounts.create_tenant(Tenant(id="acme"))
    now = 1e9
    async with backend.open(clock=ManualClock(lambda: now)) as tasks:
        assert await tasks.accounts.change_tenant(Tenant(id="acme", weight=2.0)) == made.evolve(weight=2.0)
        own = await act(tasks)
        assert [event.task for event in (await tasks.events(0, tenant="acme")).events] == [own]
        assert (await tasks.events(0, tenant="acme", task=earlier)).events == []
        page = await tasks.accounts.audit(tenant="acme", limit=1)
        assert [entry.action for entry in page.entries] == [f"make {own}"]
        assert (await tasks.accounts.audit(page.last, tenant="acme", limit=1)).entries == []
        assert {event.task for event in (await tasks.events(0)).events} == {earlier, own}
        assert len((await tasks.accounts.audit()).entries) == 2


async def test_tenants_and_their_data_survive_a_restart(backend):
    async with backend.open() as tasks:
        await tasks.accounts.create_tenant(Tenant(id="acme", weight=4.0))
        await tasks.create([new_task(tenant="acme") for _ in range(3)])
        before = await tasks.accounts.use()
    async with backend.open() as tasks:
        assert await tasks.accounts.use() == before
        assert (await tasks.accounts.tenant("acme")).weight == 4.0
        assert before[0].bytes == 3000


async def test_a_key_is_kept_rotated_and_revoked(store):
    key, secret = new_key(created_by="root")
    made = await store.create_key(key)
    assert await store.key("k") == made
    assert made.matches(secret, made.created)
    assert not made.matches(secret + "x", made.created)
    await refused(Code.CONFLICT, store.create_key(key))
    await refused(Code.NOT_FOUND, store.create_key(new_key("other", tenant="nobody")[0]))
    another = accounts.new_secret()
    rotated = await store.rotate_key("k", accounts.digest(another), overlap=60.0)
    now = rotated.rotated
    assert [rotated.matches(each, now) for each in (another, secret, "")] == [True, True, False]
    assert not rotated.matches(secret, now + 60.1)
    third, fourth = accounts.new_secret(), accounts.new_secret()
    # The new secret was lost before anybody used it: the programs that have the first one go on working.
    rotated = await store.rotate_key("k", accounts.digest(third), overlap=90.0)
    assert [rotated.matches(each, now + 59) for each in (secret, another, third)] == [True, True, True]
    assert [rotated.matches(each, now + 61) for each in (secret, another, third)] == [False, True, True]
    rotated = await store.rotate_key("k", accounts.digest(fourth), overlap=0.0)
    ended = rotated.rotated
    assert [rotated.matches(each, ended) for each in (secret, another, third, fourth)] == [False, False, False, True]
    await store.used_keys({"k": now + 5, "gone": now})
    await store.used_keys({"k": now + 1})
    assert (await store.key("k")).last_used == now + 5
    revoked = await store.revoke_key("k")
    assert not revoked.valid(now)
    assert await store.revoke_key("k") == revoked
    await refused(Code.CONFLICT, store.rotate_key("k", accounts.digest("s"), overlap=0.0))
    await refused(Code.NOT_FOUND, store.revoke_key("gone"))


async def test_the_keys_of_a_tenant_are_listed_oldest_first(store):
    await store.create_tenant(Tenant(id="acme"))
    for seconds, (name, tenant) in enumerate((("z", "acme"), ("y", "default"), ("x", "acme"))):
        key = new_key(name, tenant=tenant)[0]
        await store.create_key(key.evolve(created=key.created + seconds))
    assert [key.id for key in await store.keys(tenant="acme")] == ["z", "x"]
    assert {key.id for key in await store.keys()} == {"x", "y", "z"}


async def test_a_session_lasts_until_it_ends(store):
    now = accounts.now()
    session = Session(
        id=accounts.digest("s"), tenant="default", name="me", scopes=[Scope.READ], created=now, expires=now + 60
    )
    assert await store.create_session(session) == await store.session(session.id) == session
    await store.end_session(session.id)
    await store.end_session(session.id)
    await refused(Code.NOT_FOUND, store.session(session.id))
    old = session.evolve(id=accounts.digest("old"), expires=now - 1)
    await store.create_session(old)
    await refused(Code.NOT_FOUND, store.session(old.id))


async def test_a_ticket_is_redeemed_once_however_many_try(store):
    now = accounts.now()
    ticket = Ticket(id=accounts.digest("t"), kind="sign_in", scopes=[Scope.ADMINISTER], expires=now + 60)
    await store.create_ticket(ticket)
    await refused(Code.NOT_FOUND, store.redeem(ticket.id, "oidc"))
    tries = await asyncio.gather(*(store.redeem(ticket.id, "sign_in") for _ in range(20)), return_exceptions=True)
    assert [each for each in tries if isinstance(each, Ticket)] == [ticket]
    assert {each.code for each in tries if isinstance(each, Error)} == {Code.NOT_FOUND}
    expired = ticket.evolve(id=accounts.digest("u"), expires=now - 1)
    await store.create_ticket(expired)
    await refused(Code.NOT_FOUND, store.redeem(expired.id, "sign_in"))


async def test_signing_keys_rotate_with_an_overlap(store):
    (first,) = await store.signing_keys("default")
    assert await store.signing_keys("default") == [first]
    second, before = await store.rotate_signing_key("default", overlap=60.0)
    assert (before.id, before.secret) == (first.id, first.secret)
    assert before.expires == pytest.approx(second.created + 60.0, abs=1.0)
    (third,) = await store.rotate_signing_key("default", overlap=0.0)
    assert third.secret not in (first.secret, second.secret)
    await refused(Code.NOT_FOUND, store.signing_keys("nobody"))


async def test_each_purpose_has_signing_keys_of_its_own(store):
    (link,) = await store.signing_keys("default")
    (webhook,) = await store.signing_keys("default", Purpose.WEBHOOKS)
    assert webhook.secret != link.secret
    new, before = await store.rotate_signing_key("default", Purpose.WEBHOOKS, overlap=60.0)
    assert (before.id, new.purpose) == (webhook.id, Purpose.WEBHOOKS)
    assert await store.signing_keys("default") == [link]
    (other,) = await store.rotate_signing_key("default", overlap=0.0)
    assert await store.signing_keys("default", Purpose.WEBHOOKS) == [new, before]
    assert other.id not in (new.id, before.id)


async def test_the_audit_log_is_read_in_order_by_tenant(store):
    await store.append_audit([AuditEntry(who="root", action=f"act.{n}", tenant="ab"[n % 2]) for n in range(4)])
    page = await store.audit(limit=3)
    assert [entry.action for entry in page.entries] == ["act.0", "act.1", "act.2"]
    assert [entry.action for entry in (await store.audit(page.last)).entries] == ["act.3"]
    assert [entry.action for entry in (await store.audit(tenant="b")).entries] == ["act.1", "act.3"]
    assert all(entry.at > 0 for entry in page.entries)


async def test_old_entries_of_the_audit_log_are_deleted(backend):
    now = 1_000_000.0
    policy = Policy(keep_audit=86400.0)
    async with backend.open(policy=policy, clock=ManualClock(lambda: now)) as tasks:
        await tasks.accounts.append_audit([AuditEntry(who="root", action="old")])
        for _ in range(2):  # only entries that are old at two checks are deleted
            now += 86401
            await tasks.pass_time()
        await tasks.accounts.append_audit([AuditEntry(who="root", action="new")])
        now += 1.0
        await tasks.pass_time()
        assert [entry.action for entry in (await tasks.accounts.audit()).entries] == ["new"]


@pytest.mark.parametrize("text", ["", "sl_", "sl__x", "sl_a-b_x", "xx_a_b", "sl_a_", "sl_" + "a" * 65 + "_x", "Bearer"])
def test_a_malformed_key_is_not_accepted(text):
    assert accounts.parse_token(text) is None


def test_the_text_of_a_key():
    name, secret = accounts.new_id(), accounts.new_secret()
    assert accounts.parse_token(accounts.token(name, secret)) == (name, secret)
    assert len(secret) == 52


async def test_masters_share_what_a_tenant_may_send_at_once(store):
    await store.create_tenant(Tenant(id="few", limits=Limits(uploads=3)))
    one, other = Wanted(master="one"), Wanted(master="other")
    assert (await store.grant("few", one.evolve(uploads=2, new=2))).uploads == 2
    refused_one = await store.grant("few", other.evolve(uploads=2, new=2))
    assert (refused_one.uploads, refused_one.in_progress) == (1, 3)
    assert (await store.grant("few", one.evolve(uploads=2))).uploads == 2, "uploads in progress must continue"
    await store.grant("few", one.evolve(uploads=0))
    assert (await store.grant("few", other.evolve(uploads=3, new=2))).uploads == 3
    await refused(Code.NOT_FOUND, store.grant("nobody", one))


async def test_masters_share_a_rate_of_requests(store):
    await store.create_tenant(Tenant(id="slow", limits=Limits(requests=0.001)))
    await store.create_tenant(Tenant(id="some", limits=Limits(requests=2.5)))
    assert (await store.grant("slow", Wanted(master="one", requests=5))).requests == 1
    none = await store.grant("slow", Wanted(master="other", requests=1))
    assert none.requests == 0
    assert 900 < none.retry_after <= 1000
    asked = [store.grant("some", Wanted(master=f"{n}", requests=2)) for n in range(5)]
    assert sum([granted.requests for granted in await asyncio.gather(*asked)]) == 5
    assert (await store.grant("default", Wanted(master="one", requests=7, uploads=9, new=9))).uploads == 9
