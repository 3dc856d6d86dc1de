"""Test instances of one PostgreSQL whose clock is set."""

from __future__ import annotations

import pytest

from db.leases.test_db_clock import JumpingClock
from safelight.db.postgres import PostgresStore, ledger
from support.tasks import new_task

pytestmark = pytest.mark.slow


async def test_a_call_that_arose_while_the_clock_was_set_back_is_made_by_an_instance_that_did_not_notice(
    database, monkeypatch
):
    monkeypatch.setattr(ledger, "SWEEP", 0)  # instead of a minute
    one, other = JumpingClock(), JumpingClock()
    async with PostgresStore.open(database, clock=one) as first, PostgresStore.open(database, clock=other) as second:
        await first.pass_time()
        await second.pass_time()
        assert await second.deliveries() == []
        one.offset -= 10
        (made,) = await first.create([new_task(webhook="http://127.0.0.1:1/hook")])
        await first.cancel(made.id)
        one.offset += 10
        assert [call.task.id for call in await second.deliveries()] == [made.id]
