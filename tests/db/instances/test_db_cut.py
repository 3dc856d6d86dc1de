"""Test a primary that vanishes from the network: packets are dropped, and no connection is reset or refused."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

import pytest

from safelight.db.postgres import PostgresStore
from support.programs.until import until
from support.servers import postgres
from support.servers.places import Namespaces, namespaces
from support.tasks import finished, new_task, request

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

NOTICED = 20.0
"""Seconds within which everything must continue: half of the time limit of the longest statement."""


T = TypeVar("T")


def _server(places: Namespaces, name: str) -> AbstractContextManager[postgres.Server]:
    return postgres.server(fsync=True, made=False, host=places.host(name), prefix=places.prefix(name))


async def _in_time(call: Awaitable[T]) -> T:
    return await asyncio.wait_for(call, NOTICED)


async def test_a_primary_that_vanishes_is_given_up_within_seconds() -> None:
    with ExitStack() as stack:
        places = stack.enter_context(namespaces())
        primary, standby = (stack.enter_context(_server(places, name)) for name in ("one", "two"))
        primary.make()
        primary.start()
        await primary.empty()
        standby.follow(primary)
        standby.start()
        await primary.synchronous()
        url = f"postgresql://safelight@{primary.host}:{primary.port},{standby.host}:{standby.port}/postgres"
        async with PostgresStore.open(url, readers=1) as store:
            (made,) = await store.create([new_task()])
            waiting = asyncio.create_task(store.events(1, wait=120))
            places.cut("client", "one")
            places.cut("one", "two")
            await asyncio.to_thread(standby.promote)
            began = time.monotonic()
            (lease,) = await _in_time(store.lease(request()))
            assert lease.task == made.id
            await _in_time(store.settle([finished(lease.id)]))
            assert [event.kind for event in (await asyncio.wait_for(waiting, NOTICED)).events][:1] == ["leased"]
            assert time.monotonic() - began < NOTICED
        places.heal("client", "one")
        places.heal("one", "two")


async def test_the_lock_of_an_instance_that_vanishes_is_free_within_seconds() -> None:
    with ExitStack() as stack:
        places = stack.enter_context(namespaces())
        server = stack.enter_context(_server(places, "one"))
        server.make()
        server.start()
        url = await server.empty()
        async with PostgresStore.open(url, readers=1) as store:
            await store.create([new_task()])
            locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            places.cut("client", "one")
            began = time.monotonic()

            async def free() -> bool:
                server.run(
                    "psql", "-h", server.host, "-p", str(server.port), "-U", "safelight", "-Atc", locks, "postgres"
                )
                return (server.directory / "psql.out").read_text().strip() == "0"

            try:
                await until(free, timeout=30)
            finally:
                places.heal("client", "one")
            assert time.monotonic() - began < 25
            assert len(await _in_time(store.lease(request()))) == 1
