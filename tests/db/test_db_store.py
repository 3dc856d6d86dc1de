"""The contract of a task store."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from safelight.errors import Code, Error
from safelight.wire import (
    Heartbeat,
    NamedRecipe,
    Returned,
    State,
    TaskChange,
    TaskFilter,
    TaskQuery,
    WorkerInfo,
)
from support.tasks import died, digest, failed, finished, new_task, output, request


async def refused(code: Code, call) -> Error:
    with pytest.raises(Error) as caught:
        await call
    assert caught.value.code is code
    return caught.value


async def states(store, tasks) -> list[State]:
    return [(await store.get(task.id)).state for task in tasks]


async def test_a_task_comes_back_as_it_was_made(store):
    new = new_task(
        filename='Ä "quoted" \x00 \u2028 名.jpg',
        media_type="image/heic",
        priority=-7,
        batch="holiday",
        spec=msgspec.Raw(b'{"text": "\\u00e4 \'; DROP TABLE task"}'),
    )
    (made,) = await store.create([new])
    assert made == await store.get(made.id)
    assert made.state is State.WAITING
    for field in ("input", "filename", "media_type", "recipe", "recipe_digest", "priority", "batch"):
        assert getattr(made, field) == getattr(new, field)
    (lease,) = await store.lease(request())
    assert (lease.task, lease.attempt, lease.filename, lease.input) == (made.id, 1, new.filename, new.input)
    assert msgspec.json.decode(lease.spec) == msgspec.json.decode(new.spec)


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


async def test_an_idempotency_key_names_one_task(store):
    first, other, again = await store.create(
        [new_task("a", idempotency_key="k"), new_task("b"), new_task("a", idempotency_key="k")]
    )
    assert first == again != other
    await store.cancel(first.id)
    (later,) = await store.create([new_task("a", idempotency_key="k")])
    assert (later.id, later.state) == (first.id, State.CANCELLED)
    for changed in (new_task("z", idempotency_key="k"), new_task("a", idempotency_key="k", recipe_digest=digest("q"))):
        error = await refused(Code.CONFLICT, store.create([new_task("c"), changed]))
        assert error.extra["position"] == "$[1].idempotency_key"
    await refused(Code.CONFLICT, store.create([new_task("a", idempotency_key="n"), new_task("b", idempotency_key="n")]))
    assert len((await store.find(TaskQuery())).tasks) == 2


async def test_racing_creations_with_one_key_make_one_task(store):
    made = await asyncio.gather(*(store.create([new_task("a", idempotency_key="k")]) for _ in range(20)))
    assert len({task.id for (task,) in made}) == 1
    assert (await store.summary()).tasks["waiting"] == 1


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


async def test_an_outcome_may_be_repeated_but_not_changed(store):
    await store.create([new_task(), new_task()])
    one, two = await store.lease(request(n=2))
    for _ in range(2):
        answers = await store.settle([finished(one.id), Returned(lease=two.id), finished(one.id)])
        assert [answer.state for answer in answers] == [State.FINISHED, State.WAITING, State.FINISHED]
    answers = await store.settle([failed(one.id), finished(two.id)])
    assert [answer.problem["code"] for answer in answers] == ["lease_lost", "lease_lost"]
    assert (await store.get(one.task)).state is State.FINISHED


async def test_a_returned_task_keeps_its_place_and_its_counts(store):
    made = await store.create([new_task(), new_task()])
    (lease,) = await store.lease(request())
    await store.settle([Returned(lease=lease.id)])
    again = await store.lease(request(n=2))
    assert [lease.task for lease in again] == [task.id for task in made]
    assert again[0].attempt == 2
    assert again[0].id != lease.id
    task = await store.get(made[0].id)
    assert (task.errors, task.deaths) == (0, 0)


async def test_an_outcome_of_an_unknown_lease_changes_nothing(store):
    (made,) = await store.create([new_task()])
    (lease,) = await store.lease(request())
    forged = [lease.id[:-1] + "a", lease.id[:-1] + "b", lease.id.replace("-1-", "-2-", 1), made.id, "nonsense", ""]
    answers = await store.settle([finished(name) for name in forged if name != lease.id])
    assert {answer.problem["code"] for answer in answers} == {"lease_lost"}
    assert (await store.get(made.id)).state is State.WORKING


async def test_a_permanent_error_fails_the_task_at_once(store):
    (made,) = await store.create([new_task()])
    (lease,) = await store.lease(request())
    await store.settle([failed(lease.id, permanent=True)])
    task = await store.get(made.id)
    assert (task.state, task.failure.code, task.errors) == (State.FAILED, "damaged_image", 1)


async def test_passing_errors_are_tried_again_up_to_a_number(opened):
    store = await opened(max_errors=3, retry_first=0.02, retry_longest=0.03)
    (made,) = await store.create([new_task()])
    for attempt in (1, 2, 3):
        (lease,) = await store.lease(request(wait=10))
        assert lease.attempt == attempt
        await store.settle([failed(lease.id)])
    task = await store.get(made.id)
    assert (task.state, task.errors, task.deaths, task.failure.code) == (State.FAILED, 3, 0, "unavailable")
    kinds = [event.kind for event in (await store.events(0, task=made.id)).events]
    assert kinds == ["created", *["leased", "delayed"] * 2, "leased", "failed"]


async def test_a_delayed_task_is_not_leased_before_its_time(opened):
    store = await opened(retry_first=100)
    await store.create([new_task()])
    (lease,) = await store.lease(request())
    await store.settle([failed(lease.id)])
    assert await store.lease(request()) == []
    summary = await store.summary()
    assert (summary.tasks["waiting"], summary.delayed) == (1, 1)


async def test_deaths_lead_to_quarantine_with_the_cause(store):
    (made,) = await store.create([new_task()])
    for state in (State.WAITING, State.QUARANTINED):
        (lease,) = await store.lease(request())
        (answer,) = await store.settle([died(lease.id)])
        assert answer.state is state
    task = await store.get(made.id)
    assert (task.deaths, task.errors, task.failure.code) == (2, 0, "out_of_memory")
    released = await store.release(made.id)
    assert (released.state, released.deaths, released.failure) == (State.WAITING, 0, None)
    await refused(Code.CONFLICT, store.release(made.id))


async def test_an_expired_lease_is_a_death_and_fenced(store):
    (made,) = await store.create([new_task()])
    (first,) = await store.lease(request("a", seconds=0.05))
    (second,) = await store.lease(request("b", wait=10, seconds=0.05))
    assert second.attempt == 2
    assert await store.lease(request("b", wait=2.0, holding=[second.id])) == []
    task = await store.get(made.id)
    assert (task.state, task.deaths, task.failure.code) == (State.QUARANTINED, 2, "worker_lost")
    for lease in (first, second):
        (answer,) = await store.settle([finished(lease.id)])
        assert (answer.problem["code"], answer.problem["state"]) == ("lease_lost", "quarantined")
    assert (await store.get(made.id)).outputs == []


async def test_a_worker_that_comes_back_takes_its_death_back(store):
    """It was suspended, or the master was away: nobody died. Its lease stays lost."""
    (made,) = await store.create([new_task()])
    (first,) = await store.lease(request("a", seconds=0.05))
    (second,) = await store.lease(request("b", wait=10, seconds=0.05))
    page = await store.events(0, task=made.id)
    while len(page.events) < 5:
        await store.events(page.last, wait=10, task=made.id)
        page = await store.events(0, task=made.id)
    assert (await store.get(made.id)).state is State.QUARANTINED
    for _ in range(2):  # a death is taken back once
        answer = await store.heartbeat(Heartbeat(worker=WorkerInfo(id="b"), holding=[second.id]))
        assert answer.lost == [second.id]
        task = await store.get(made.id)
        assert (task.state, task.deaths, task.failure.code) == (State.WAITING, 1, "worker_lost")
    kinds = [event.kind for event in (await store.events(0, task=made.id)).events]
    assert kinds == ["created", "leased", "expired", "leased", "expired", "excused"]
    (answer,) = await store.settle([finished(second.id)])
    assert answer.problem["code"] == "lease_lost"
    assert first.task == second.task


async def test_heartbeats_keep_a_lease_and_tell_what_is_lost(store):
    await store.create([new_task(), new_task()])
    kept, lapsing = await store.lease(request("a", n=2, seconds=0.2))
    worker = WorkerInfo(id="a")
    answer = await store.heartbeat(Heartbeat(worker=worker, holding=[kept.id], seconds=60))
    assert answer.lost == []
    (again,) = await store.lease(request("b", wait=10))
    assert again.task == lapsing.task
    answer = await store.heartbeat(Heartbeat(worker=worker, holding=[kept.id, lapsing.id, "x"], seconds=60))
    assert answer.lost == [lapsing.id, "x"]
    assert (await store.settle([finished(kept.id)]))[0].state is State.FINISHED


async def test_a_lease_whose_answer_was_lost_goes_back_at_once(store):
    await store.create([new_task() for _ in range(3)])
    one, lost = await store.lease(request(n=2))
    (again,) = await store.lease(request(holding=[one.id]))
    assert again.task == lost.task
    assert again.attempt == 2
    assert (await store.get(lost.task)).deaths == 0
    assert (await store.settle([finished(lost.id)]))[0].problem["code"] == "lease_lost"
    assert len(await store.lease(request("other", n=9))) == 1


async def test_no_task_is_leased_twice_at_once(store):
    made = await store.create([new_task() for _ in range(60)])
    leases = [
        lease
        for taken in await asyncio.gather(*(store.lease(request(f"w{number}", n=7)) for number in range(20)))
        for lease in taken
    ]
    assert sorted(lease.task for lease in leases) == sorted(task.id for task in made)


async def test_a_wait_ends_with_the_task(store):
    waiting = asyncio.create_task(store.lease(request(wait=30)))
    (made,) = await store.create([new_task()])
    (lease,) = await asyncio.wait_for(waiting, 10)
    assert lease.task == made.id
    assert await store.lease(request("b", wait=0.05)) == []


async def test_uploading_tasks_become_ready(store):
    (made,) = await store.create([new_task(input=None, state=State.UPLOADING)])
    assert await store.lease(request()) == []
    assert (await store.ready(made.id)).state is State.WAITING
    assert (await store.ready(made.id)).state is State.WAITING
    (lease,) = await store.lease(request())
    assert lease.input is None
    await refused(Code.CONFLICT, store.ready(made.id))


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


async def test_retry_sends_an_ended_task_round_again(store):
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
    for call in (store.get(lease.id), store.delete(made[0].id), store.cancel(made[0].id), store.get(made[0].id)):
        error = await refused(Code.NOT_FOUND, call)
        assert error.detail == "Task not found"
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


async def test_find_filters_and_pages(store):
    made = await store.create(
        [
            new_task(batch="b" if place % 2 else "", recipe="r" if place % 3 else "s", priority=100 - place)
            for place in range(12)
        ]
    )
    leases = await store.lease(request(n=4))
    await store.settle([finished(lease.id) for lease in leases[:2]])
    tasks = [await store.get(task.id) for task in reversed(made)]
    for states_ in ((), (State.FINISHED,), (State.WAITING, State.WORKING)):
        for recipe in (None, "r", "none"):
            for batch in (None, "b", "none"):
                expected = [
                    task
                    for task in tasks
                    if (not states_ or task.state in states_)
                    and (recipe is None or task.recipe == recipe)
                    and (batch is None or task.batch == batch)
                ]
                found, before = [], None
                while True:
                    page = await store.find(
                        TaskQuery(
                            state=",".join(state.name.lower() for state in states_),
                            recipe=recipe,
                            batch=batch,
                            before=before,
                            limit=2,
                        )
                    )
                    assert len(page.tasks) <= 2
                    found += page.tasks
                    if (before := page.next) is None:
                        break
                assert found == expected
    await refused(Code.INVALID_REQUEST, store.find(TaskQuery(before="nonsense")))


async def test_search_and_counts(store):
    made = await store.create(
        [
            new_task(filename=f"{name}-{place}.JPG", recipe=recipe, batch=batch)
            for place, (name, recipe, batch) in enumerate(
                [
                    ("Beach", "web", "summer"),
                    ("beach", "thumbnail", ""),
                    ("Forest", "web", "autumn"),
                    ("a%b_c", "web", ""),
                ]
            )
        ]
    )
    leases = await store.lease(request(n=2))
    await store.settle([finished(leases[0].id), failed(leases[1].id, permanent=True)])

    async def names(**filters):
        return sorted(task.filename.partition("-")[0] for task in (await store.find(TaskQuery(**filters))).tasks)

    assert await names(search="beach") == ["Beach", "beach"]
    assert await names(search="jpg", recipe="web") == ["Beach", "Forest", "a%b_c"]
    assert await names(search="%b_") == ["a%b_c"]
    assert await names(search=made[2].id[:6]) == ["Forest"]
    assert await names(search="beach", state="failed") == ["beach"]
    assert await names(search="beach", batch="summer") == ["Beach"]
    assert await names(reason="damaged_image") == ["beach"]
    assert await names(since=made[0].created - 1, until=made[0].created + 60) == ["Beach", "Forest", "a%b_c", "beach"]
    assert await names(until=made[0].created) == []
    first = await store.find(TaskQuery(search="jpg", limit=3))
    rest = await store.find(TaskQuery(search="jpg", limit=3, before=first.next))
    assert [task.id for task in first.tasks + rest.tasks] == [task.id for task in reversed(made)]
    assert rest.next is None

    counts = await store.count(TaskFilter(recipe="web", state="waiting"))
    assert counts.total == 2
    assert counts.states == {"waiting": 2, "finished": 1}
    assert counts.recipes == {"web": 2}
    assert counts.reasons == {}
    assert counts.complete
    assert (await store.count(TaskFilter(search="beach"))).reasons == {"damaged_image": 1}


async def test_many_tasks_are_changed_at_once(store):
    made = await store.create([new_task(batch="b" if place < 5 else "") for place in range(7)])
    leases = await store.lease(request(n=3))
    await store.settle([finished(leases[0].id), failed(leases[1].id, permanent=True)])
    # finished, failed, working, waiting, waiting | waiting, waiting
    changed = await store.change(TaskChange(action="cancel", filter=TaskFilter(batch="b"), limit=2))
    assert (changed.changed, changed.skipped) == (2, 0)
    changed = await store.change(TaskChange(action="cancel", filter=TaskFilter(batch="b"), before=changed.next))
    assert (changed.changed, changed.skipped, changed.next) == (1, 2, None)
    assert (await store.settle([finished(leases[2].id)]))[0].state is None
    retried = await store.change(TaskChange(action="retry", tasks=[made[1].id, leases[1].id, made[0].id, "1-no"]))
    assert (retried.changed, retried.skipped) == (1, 3)
    assert (await store.get(made[1].id)).state is State.WAITING
    released = await store.change(TaskChange(action="release", filter=TaskFilter()))
    assert (released.changed, released.skipped) == (0, 7)
    assert (await store.change(TaskChange(action="delete", filter=TaskFilter(state="cancelled")))).changed == 3
    assert sum((await store.summary()).tasks.values()) == 4
    await refused(Code.INVALID_REQUEST, store.change(TaskChange(action="delete")))


async def test_batches_are_listed_with_their_counts(store):
    for batch in ("first", "second", "third"):
        await store.create([new_task(batch=batch), new_task(batch=batch)])
    (newest,) = await store.create([new_task(batch="first")])
    (lease,) = await store.lease(request(n=1))
    await store.settle([finished(lease.id)])
    page = await store.batches(limit=2)
    assert [batch.name for batch in page.batches] == ["first", "third"]
    assert page.batches[0].tasks == {"finished": 1, "waiting": 2}
    assert page.batches[0].created <= newest.created <= page.batches[0].changed
    assert page.batches[0].size == 3 * newest.input.size
    rest = await store.batches(before=page.next)
    assert [batch.name for batch in rest.batches] == ["second"]
    assert [batch.name for batch in (await store.batches(name="third")).batches] == ["third"]
    assert (await store.batches(name="none")).batches == []
    spec = await store.spec(newest.id)
    assert (spec.name, bytes(spec.spec)) == (newest.recipe, bytes(new_task().spec))


async def test_internal_tasks_stay_out_of_lists_and_say_so_in_events(store):
    (mine,) = await store.create([new_task(batch="view")])
    (internal,) = await store.create([new_task(batch="view", internal=True)])
    for filters in ({}, {"batch": "view"}, {"state": "waiting"}, {"recipe": mine.recipe}):
        assert [task.id for task in (await store.find(TaskQuery(**filters))).tasks] == [mine.id], filters
        found = await store.find(TaskQuery(**filters, internal=True))
        assert [task.id for task in found.tasks] == [internal.id], filters
    assert [event.internal for event in (await store.events(0)).events] == [False, True]


async def test_every_change_is_a_numbered_event(store):
    (made,) = await store.create([new_task(batch="b")])
    (lease,) = await store.lease(request())
    await store.settle([finished(lease.id)])
    await store.delete(made.id)
    page = await store.events(0)
    assert [(event.kind, event.state) for event in page.events] == [
        ("created", 0),
        ("leased", 1),
        ("finished", 2),
        ("deleted", 2),
    ]
    numbers = [event.seq for event in page.events]
    assert numbers == sorted(set(numbers))
    assert page.last == numbers[-1]
    assert page.oldest == 0
    done = page.events[2]
    assert (done.task, done.batch, done.recipe, done.attempt, done.worker, done.seconds) == (
        made.id, "b", "invert", 1, "w", 0.5,
    )  # fmt: skip
    assert (await store.events(numbers[1])).events == page.events[2:]
    first = await store.events(0, limit=1)
    assert (first.events, first.last) == (page.events[:1], numbers[0])


async def test_events_of_one_task_move_on_with_the_others(store):
    one, two = await store.create([new_task(), new_task()])
    page = await store.events(0, task=one.id)
    assert [event.task for event in page.events] == [one.id]
    assert page.last == two.seq
    waiting = asyncio.create_task(store.events(page.last, task=one.id, wait=30))
    await store.cancel(two.id)
    await store.cancel(one.id)
    page = await asyncio.wait_for(waiting, 10)
    assert [(event.task, event.kind) for event in page.events] == [(one.id, "cancelled")]
    assert (await store.events(page.last, task=one.id, wait=0.05)).events == []


async def test_the_summary_counts(opened):
    store = await opened()
    made = await store.create([new_task() for _ in range(5)])
    leases = await store.lease(request("a", n=3))
    await store.settle([finished(leases[0].id)])
    for summary in (await store.summary(), await (await opened()).summary()):
        counts = {name: count for name, count in summary.tasks.items() if count}
        assert counts == {"waiting": 2, "working": 2, "finished": 1}
        assert summary.oldest_waiting > 0
        assert summary.seq >= made[-1].seq
    store = await opened()
    await store.heartbeat(Heartbeat(worker=WorkerInfo(id="a", slots=4), holding=[]))
    (seen,) = (await store.summary()).workers
    assert (seen.worker.slots, seen.holding) == (4, 2)


async def test_too_many_waiting_tasks_are_refused(opened):
    store = await opened(max_waiting=3)
    await store.create([new_task(), new_task("a", idempotency_key="k")])
    if type(store).__name__ == "DbClient":
        store._connection.retry_for = 0.0
    error = await refused(Code.TOO_MANY_REQUESTS, store.create([new_task(), new_task()]))
    assert error.extra["retry_after"] > 0
    assert len(await store.create([new_task("a", idempotency_key="k"), new_task()])) == 2


async def test_references_name_all_that_storage_must_keep(store):
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


async def test_classic_workers_take_only_plain_tasks(store):
    await store.create([new_task(priority=5)])
    assert await store.lease_classic() is None
    one, two = await store.create([new_task(classic=True), new_task(classic=True, priority=1)])
    first, second = await store.lease_classic(), await store.lease_classic()
    assert (first.task, second.task) == (two.id, one.id)
    task = await store.finish_classic(first.id, [output()], seconds=0.1)
    assert (task.state, task.outputs, task.engine, task.lease) == (State.FINISHED, [output()], "classic", first.id)
    assert await store.finish_classic(first.id) == task
    assert (await store.finish_classic(one.id)).lease == second.id
    (rich,) = await store.lease(request())
    for name in (rich.task, rich.id[:-1] + ("a" if rich.id[-1] != "a" else "b")):
        await refused(Code.LEASE_LOST, store.finish_classic(name))


async def test_classic_lapses_count_apart(opened):
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


async def test_recipes_are_saved_by_name(store):
    await store.save_recipe(NamedRecipe(name="b", spec=msgspec.Raw(b'{"x":1}')))
    await store.save_recipe(NamedRecipe(name="a", spec=msgspec.Raw(b"{}")))
    await store.save_recipe(NamedRecipe(name="b", spec=msgspec.Raw(b'{"x":2}')))
    saved = await store.recipes()
    assert [(recipe.name, msgspec.json.decode(recipe.spec)) for recipe in saved] == [("a", {}), ("b", {"x": 2})]
    assert all(recipe.changed > 0 for recipe in saved)
    await store.delete_recipe("a")
    await refused(Code.NOT_FOUND, store.delete_recipe("a"))
    assert [recipe.name for recipe in await store.recipes()] == ["b"]


async def test_webhooks_are_due_once_for_each_end(store):
    assert await store.deliveries() == []
    waiting = asyncio.create_task(store.deliveries(wait=30, seconds=0.05))
    (made,) = await store.create([new_task(webhook="http://127.0.0.1:1/hook")])
    await store.cancel(made.id)
    (first,) = await asyncio.wait_for(waiting, 10)
    assert (first.url, first.attempt, first.task.state) == ("http://127.0.0.1:1/hook", 1, State.CANCELLED)
    (second,) = await store.deliveries(wait=30)
    assert second.attempt == 2
    await store.settle_delivery(first.id, delivered=True)  # too late: taken by another meanwhile
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
