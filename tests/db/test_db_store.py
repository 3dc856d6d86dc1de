"""Test the contract of a task store."""

from __future__ import annotations

import msgspec
import pytest

from safelight.errors import Code
from safelight.wire import (
    Heartbeat,
    KnownStore,
    State,
    StoreClaim,
    TaskQuery,
    WorkerInfo,
)
from support.tasks import died, digest, failed, finished, new_task, output, refused, request


async def test_a_task_is_read_back_unchanged(store):
    new = new_task(
        filename='Ä "quoted" \x00 \u2028 名.jpg',
        media_type="image/heic",
        priority=-7,
        batch="holiday",
        spec=msgspec.Raw(b'{"text": "\\u00e4 \'; DROP TABLE task"}'),
        traceparent="00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
    )
    (made,) = await store.create([new])
    assert made == await store.get(made.id)
    assert made.state is State.WAITING
    fields = ("input", "filename", "media_type", "recipe", "recipe_digest", "priority", "batch", "traceparent")
    for field in fields:
        assert getattr(made, field) == getattr(new, field)
    (lease,) = await store.lease(request())
    assert lease.traceparent == new.traceparent
    assert (lease.task, lease.attempt, lease.filename, lease.input) == (made.id, 1, new.filename, new.input)
    assert msgspec.json.decode(lease.spec) == msgspec.json.decode(new.spec)
    await store.settle([finished(lease.id)])
    ended = await store.get(made.id)
    for field in fields:
        assert getattr(ended, field) == getattr(new, field)


async def test_a_task_is_leased_and_finished(store):
    (made,) = await store.create([new_task()])
    (lease,) = await store.lease(request())
    assert (await store.get(lease.id)).id == made.id
    assert (await store.get(made.id)).state is State.WORKING
    (answer,) = await store.settle([finished(lease.id)])
    assert answer.state is State.FINISHED
    task = await store.get(made.id)
    assert (task.outputs, task.engine, task.seconds, task.lease) == ([output()], "engine 1", 0.5, lease.id)
    assert task.seq > made.seq
    assert await store.lease(request()) == []


async def test_highest_priority_first_then_oldest(store):
    made = await store.create([new_task(priority=priority) for priority in (0, -5, 5, 0, 5)])
    order = [lease.task for lease in await store.lease(request(n=10))]
    assert order == [made[place].id for place in (2, 4, 0, 3, 1)]


async def test_low_priority_does_not_starve(opened):
    store = await opened(oldest_every=5)
    (old,) = await store.create([new_task(priority=-100)])
    taken = []
    while old.id not in taken:
        await store.create([new_task(priority=0)])
        taken += [lease.task for lease in await store.lease(request(str(len(taken))))]
        assert len(taken) <= 5


async def test_creation_is_all_or_none(store):
    bad = new_task(state=State.FINISHED)
    error = await refused(Code.INVALID_REQUEST, store.create([new_task(), bad]))
    assert error.extra["position"] == "$[1].state"
    assert (await store.find(TaskQuery())).tasks == []
    assert await store.create([]) == []


async def test_the_same_work_is_done_once(store):
    (first,) = await store.create([new_task("a", webhook="http://127.0.0.1/hook")])
    (lease,) = await store.lease(request())
    await store.settle([finished(lease.id)])
    same, other_recipe, other_input, uploading = await store.create(
        [
            new_task("a", webhook="http://127.0.0.1/hook"),
            new_task("a", recipe_digest=digest("sepia")),
            new_task("b"),
            new_task("a", input=None, state=State.UPLOADING),
        ]
    )
    assert (same.state, same.reused, same.outputs, same.engine) == (State.FINISHED, True, [output()], "engine 1")
    assert same.id != first.id
    assert [task.state for task in (other_recipe, other_input, uploading)] == [0, 0, -1]
    assert {call.task.id for call in await store.deliveries()} == {first.id, same.id}


async def test_results_of_another_engine_are_not_reused(store):
    await store.create([new_task("a")])
    (lease,) = await store.lease(request())
    await store.settle([finished(lease.id)])
    await store.lease(request().evolve(worker=WorkerInfo(id="w", engine="engine 2")))
    (again,) = await store.create([new_task("a")])
    assert again.state is State.WAITING


async def test_classic_results_are_not_reused(store):
    await store.create([new_task("a")])
    (lease,) = await store.lease(request())
    await store.settle([finished(lease.id, outputs=[])])
    (again,) = await store.create([new_task("a")])
    assert again.state is State.WAITING


async def test_cancel_ends_a_task_and_its_lease(store):
    waiting, working, done = await store.create([new_task(priority=p) for p in (0, 1, 2)])
    leases = {lease.task: lease.id for lease in await store.lease(request(n=2))}
    await store.settle([finished(leases[done.id])])
    for name in (waiting.id, leases[working.id]):
        assert (await store.cancel(name)).state is State.CANCELLED
        assert (await store.cancel(name)).state is State.CANCELLED
    await refused(Code.CONFLICT, store.cancel(done.id))
    assert (await store.settle([finished(leases[working.id])]))[0].problem["code"] == "lease_lost"
    assert await store.lease(request("b", n=3)) == []


async def test_retry_queues_an_ended_task_again(store):
    (made,) = await store.create([new_task()])
    await refused(Code.CONFLICT, store.retry(made.id))
    (first,) = await store.lease(request())
    await store.settle([failed(first.id, permanent=True)])
    again = await store.retry(made.id)
    assert (again.state, again.errors, again.failure) == (State.WAITING, 0, None)
    (second,) = await store.lease(request())
    assert second.id != first.id
    await store.settle([finished(second.id)])
    await refused(Code.CONFLICT, store.retry(made.id))
    await refused(Code.CONFLICT, store.release(made.id))


async def test_a_deleted_task_is_forgotten(store):
    made = await store.create([new_task(), new_task()])
    (lease,) = await store.lease(request())
    await store.delete(lease.id)
    for call, named in (
        (store.get(lease.id), lease.id),
        (store.delete(made[0].id), made[0].id),
        (store.cancel(made[0].id), made[0].id),
        (store.get(made[0].id), made[0].id),
    ):
        error = await refused(Code.NOT_FOUND, call)
        assert error.detail == f"There is no task {named}."
    assert (await store.settle([finished(lease.id)]))[0].problem["code"] == "lease_lost"
    (fresh,) = await store.create([new_task()])
    assert fresh.id not in {task.id for task in made}
    summary = await store.summary()
    assert (summary.tasks["waiting"], summary.tasks["working"]) == (2, 0)


@pytest.mark.parametrize(
    "id", ["", "1", "x", "1-aaaaaaaaaa", "0-aaaaaaaaaa", "99999999999999999999-aaaaaaaaaa", "१-aaaaaaaaaa"]
)
async def test_an_unknown_id_is_not_found(store, id):
    await store.create([new_task()])
    if id:
        await refused(Code.NOT_FOUND, store.get(id))
    assert (await store.heartbeat(Heartbeat(worker=WorkerInfo(id="w"), holding=[id]))).lost == [id]


async def test_too_many_waiting_tasks_are_refused(opened):
    store = await opened(max_waiting=3)
    await store.create([new_task(), new_task("a", idempotency_key="k")])
    if type(store).__name__ == "DbClient":
        store._connection.retry_for = 0.0
    error = await refused(Code.TOO_MANY_REQUESTS, store.create([new_task(), new_task()]))
    assert error.extra["retry_after"] > 0
    assert len(await store.create([new_task("a", idempotency_key="k"), new_task()])) == 2


async def test_references_name_every_blob_that_storage_must_keep(store):
    rich, classic, plain = await store.create(
        [new_task("a"), new_task(input=None, classic=True, priority=-1), new_task("b", classic=True, priority=-2)]
    )
    (lease,) = await store.lease(request())
    await store.settle([finished(lease.id)])
    one, two = await store.lease_classic(), await store.lease_classic()
    assert [one.task, two.task] == [classic.id, plain.id]
    await store.finish_classic(one.id)
    names, digests, after = set(), set(), 0
    while after is not None:
        page = await store.referenced(after, limit=2)
        names.update(page.names)
        digests.update(page.digests)
        after = page.next
    assert digests == {digest("a"), digest("b"), output().digest}
    assert names == {classic.id, one.id, two.id}


async def test_classic_workers_take_only_classic_tasks(store):
    await store.create([new_task(priority=5)])
    assert await store.lease_classic() is None
    assert not await store.classic_waits()
    one, two = await store.create([new_task(classic=True), new_task(classic=True, priority=1)])
    assert await store.classic_waits()
    first, second = await store.lease_classic(), await store.lease_classic()
    assert (first.task, second.task) == (two.id, one.id)
    assert not await store.classic_waits()
    task = await store.finish_classic(first.id, [output()], seconds=0.1)
    assert (task.state, task.outputs, task.engine, task.lease) == (State.FINISHED, [output()], "classic", first.id)
    assert await store.finish_classic(first.id) == task
    assert (await store.finish_classic(one.id)).lease == second.id
    (rich,) = await store.lease(request())
    for name in (rich.task, rich.id[:-1] + ("a" if rich.id[-1] != "a" else "b")):
        await refused(Code.LEASE_LOST, store.finish_classic(name))


async def test_expired_classic_leases_are_counted_separately(opened):
    store = await opened(classic_lease_duration=0.02, classic_max_deaths=3)
    (made,) = await store.create([new_task(classic=True)])
    seen = 0
    for _ in range(3):
        assert (await store.lease_classic()) is not None
        page = await store.events(seen, wait=10)
        while page.events[-1].kind != "expired":
            page = await store.events(page.last, wait=10)
        seen = page.last
    task = await store.get(made.id)
    assert (task.state, task.deaths) == (State.QUARANTINED, 3)


async def test_a_classic_worker_that_comes_back_takes_its_death_back(opened):
    store = await opened(classic_lease_duration=0.02, classic_max_deaths=3)
    (made,) = await store.create([new_task(classic=True)])
    lease = await store.lease_classic()
    page = await store.events(0, wait=10)
    while page.events[-1].kind != "expired":
        page = await store.events(page.last, wait=10)
    assert (await store.get(made.id)).deaths == 1
    for _ in range(2):  # a death is taken back only once
        await refused(Code.LEASE_LOST, store.finish_classic(lease.id))
        task = await store.get(made.id)
        assert (task.state, task.deaths, task.failure) == (State.WAITING, 0, None)
    assert [event.kind for event in (await store.events(page.last)).events] == ["excused"]
    for state in (State.WAITING, State.QUARANTINED):  # it does not count among those of classic workers any more
        (lease,) = await store.lease(request())
        (answer,) = await store.settle([died(lease.id)])
        assert answer.state is state


async def test_everything_survives_a_restart(opened):
    store = await opened()
    made = await store.create([new_task(), new_task("a", idempotency_key="k"), new_task()])
    (lease, other) = await store.lease(request(n=2, seconds=30.0))
    last = (await store.events(0)).last
    store = await opened()
    assert (await store.settle([finished(lease.id)]))[0].state is State.FINISHED
    (again,) = await store.create([new_task("a", idempotency_key="k")])
    assert again.id == made[1].id
    (fresh,) = await store.create([new_task()])
    assert fresh.seq > last
    assert len({task.id for task in [*made, fresh]}) == 4


@pytest.mark.slow
async def test_retention_removes_what_is_old(opened):
    store = await opened(keep_tasks=0.05, keep_events=0.2, keep_uploading=0.05)
    ended, waiting, uploading = await store.create(
        [new_task(), new_task(), new_task(input=None, state=State.UPLOADING)]
    )
    await store.cancel(ended.id)
    after, gone = 0, set()
    while gone != {ended.id, uploading.id}:
        page = await store.events(after, wait=10)
        after = page.last
        gone |= {event.task for event in page.events if event.kind == "deleted"}
    assert [task.id for task in (await store.find(TaskQuery())).tasks] == [waiting.id]
    while (page := await store.events(0, wait=0.1)).events:
        assert page.last <= (await store.summary()).seq
    assert page.oldest == page.last == (await store.summary()).seq


async def test_the_first_store_of_blobs_is_the_known_one_until_a_person_accepts_another(backend):
    one, other = "1" * 32, "2" * 32
    async with backend.open() as store:
        db = (await store.referenced(0)).db
        assert await store.claim_store(StoreClaim()) == StoreClaim(db=db)
        assert await store.claim_store(StoreClaim(id=one)) == StoreClaim(id=one, db=db)
        assert await store.claim_store(StoreClaim(id=other, db=db)) == StoreClaim(id=one, db=db)
    async with backend.open() as store:
        assert (await store.claim_store(StoreClaim())).id == one
        assert (await store.accept_store(KnownStore(id=other))).id == other
        assert (await store.claim_store(StoreClaim(id=one))).id == other


async def test_a_store_of_another_database_must_be_accepted_by_a_person(backend):
    claim = StoreClaim(id="1" * 32, db="2" * 32)
    async with backend.open() as store:
        assert (await store.claim_store(claim)).id == ""
        await store.accept_store(KnownStore(id=claim.id))
        assert (await store.claim_store(claim)).id == claim.id
