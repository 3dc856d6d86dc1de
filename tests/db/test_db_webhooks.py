"""Test how a task store keeps the webhook calls that are due, and those that were made."""

from __future__ import annotations

import asyncio

import pytest

from db.leases.test_db_clock import DAY, JumpingClock
from safelight.db.store import Policy
from safelight.errors import Code
from safelight.wire import State, WebhookAnswer
from support.programs.until import until
from support.tasks import new_task, refused


async def test_webhooks_are_due_once_for_each_end(store):
    assert await store.deliveries() == []
    waiting = asyncio.create_task(store.deliveries(wait=30, seconds=0.05))
    (made,) = await store.create([new_task(webhook="http://127.0.0.1:1/hook")])
    await store.cancel(made.id)
    (first,) = await asyncio.wait_for(waiting, 10)
    assert (first.url, first.attempt, first.task.state) == ("http://127.0.0.1:1/hook", 1, State.CANCELLED)
    (second,) = await store.deliveries(wait=30)
    assert second.attempt == 2
    await store.settle_delivery(first.id, delivered=True)  # too late: another master has taken the call
    await store.settle_delivery(second.id, delivered=False, retry_after=0.05)
    await store.retry(made.id)
    (third,) = await store.deliveries(wait=30)
    assert (third.attempt, third.task.state) == (3, State.CANCELLED)
    await store.settle_delivery(third.id, delivered=True)
    await store.settle_delivery(third.id, delivered=True)
    await store.settle_delivery("nonsense", delivered=True)
    await store.cancel(made.id)
    (fourth,) = await store.deliveries(wait=30)
    await store.settle_delivery(fourth.id, delivered=False)
    assert await store.deliveries() == []


async def test_webhook_calls_are_recorded_with_their_answers_and_can_be_repeated(opened):
    store = await opened()
    (made,) = await store.create([new_task(webhook="http://127.0.0.1:1/hook", filename="one.jpg")])
    await store.cancel(made.id)
    (first,) = await store.deliveries(wait=30)
    assert (await store.webhook_calls()).calls == []
    no = WebhookAnswer(status=500, detail="no \x00 \u20ac", seconds=0.2)
    await store.settle_delivery(first.id, delivered=False, retry_after=3600.0, answer=no)
    (failed,) = (await store.webhook_calls(outcome="failed")).calls
    assert (failed.task, failed.filename, failed.url, failed.attempt) == (made.id, "one.jpg", first.url, 1)
    assert failed.answer == no
    assert failed.again == pytest.approx(failed.at + 3600.0, abs=1.0)
    waiting = asyncio.create_task(store.deliveries(wait=30))
    await store.resend(failed.id)
    (second,) = await asyncio.wait_for(waiting, 30)
    assert (second.attempt, second.task.id) == (2, made.id), "the same call must be made again, before it is due"
    await store.resend(failed.id)  # the call is in progress, so it is not made twice
    await store.settle_delivery(second.id, delivered=True, answer=WebhookAnswer(status=204))
    store = await opened()
    (delivered,) = (await store.webhook_calls()).calls
    assert (delivered.outcome, delivered.attempt, delivered.answer.status, delivered.again) == (
        "delivered",
        2,
        204,
        None,
    )
    assert (await store.webhook_calls(tenant="other")).calls == []
    await refused(Code.NOT_FOUND, store.resend(delivered.id, tenant="other"))
    await refused(Code.NOT_FOUND, store.resend("nonsense"))
    await store.delete(made.id)
    await store.resend(delivered.id)
    (third,) = await store.deliveries(wait=30)
    assert (third.attempt, third.task.id, third.task.state) == (1, made.id, State.CANCELLED)
    await store.settle_delivery(third.id, delivered=False, answer=no)
    page = await store.webhook_calls(limit=1)
    assert [call.outcome for call in page.calls] == ["given_up"]
    older = await store.webhook_calls(limit=1, before=page.next)
    assert ([call.id for call in older.calls], older.next) == ([delivered.id], None)


async def test_a_failed_call_that_was_too_old_to_be_repeated_can_be_made_again(backend):
    clock = JumpingClock()
    async with backend.open(policy=Policy(keep_events=7 * DAY), clock=clock) as store:
        (made,) = await store.create([new_task(webhook="http://127.0.0.1:1/hook")])
        await store.cancel(made.id)
        clock.passed += 6 * DAY
        (first,) = await store.deliveries(wait=30)
        await store.settle_delivery(first.id, delivered=False, retry_after=20 * DAY)

        async def forgotten() -> bool:
            clock.passed += DAY / 4
            await store.pass_time()
            return (await store.summary()).webhooks_due == 0

        await until(forgotten, timeout=30)
        (failed_call,) = (await store.webhook_calls()).calls
        await store.resend(failed_call.id)
        assert [call.task.id for call in await store.deliveries(wait=30)] == [made.id]


async def test_a_call_that_arises_while_the_clock_is_set_back_is_made(backend):
    clock = JumpingClock()
    async with backend.open(clock=clock) as store:
        await store.pass_time()
        assert await store.deliveries() == []
        clock.offset -= 10
        (made,) = await store.create([new_task(webhook="http://127.0.0.1:1/hook")])
        await store.cancel(made.id)
        clock.offset += 10
        assert [call.task.id for call in await store.deliveries()] == [made.id]


@pytest.mark.slow
async def test_the_webhook_calls_of_a_tenant_are_bounded(backend):
    async with backend.open() as store:
        tasks = await store.create([new_task(webhook="http://127.0.0.1:1/hook") for _ in range(1000)])
        tasks += await store.create([new_task(webhook="http://127.0.0.1:1/hook") for _ in range(250)])
        await asyncio.gather(*(store.cancel(task.id) for task in tasks))
        while due := await store.deliveries(n=500):
            await asyncio.gather(*(store.settle_delivery(delivery.id, delivered=True) for delivery in due))
        page = await store.webhook_calls(limit=2000)
        assert 1000 <= len(page.calls) < 1100
        assert int(page.calls[0].id) == 1250, "the newest calls must be kept"
