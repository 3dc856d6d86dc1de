"""Test finding, counting and changing many tasks, and events, in all stores of db."""

from __future__ import annotations

import asyncio

import pytest

from safelight.db.calls.tasks import batches, searching
from safelight.errors import Code
from safelight.wire import (
    Heartbeat,
    State,
    TaskChange,
    TaskFilter,
    TaskQuery,
    WorkerInfo,
)
from support.tasks import failed, finished, new_task, refused, request


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
                            state=",".join(state.name.lower() for state in states_) or None,
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


@pytest.mark.parametrize(
    ("filters", "pages"),
    [
        ({"batch": "b", "recipe": "rare"}, 3),
        ({"state": "cancelled", "recipe": "web"}, 1),
        ({"state": "waiting,cancelled", "recipe": "rare"}, 9),
        ({"state": "waiting", "internal": True}, 5),
        ({"batch": "b", "internal": True}, 3),
        ({"internal": True}, 5),
        ({"batch": "b", "limit": 100}, 1),
    ],
)
async def test_a_page_examines_a_limited_number_of_tasks(store, monkeypatch, filters, pages):
    monkeypatch.setattr(searching, "SEARCHED", 10)
    old = [new_task(batch="b", recipe="web", internal=True), new_task(batch="b", recipe="web")]
    old += [new_task(batch="b", recipe="rare") for _ in range(2)]
    made = await store.create(old + [new_task(batch="b", recipe="web") for _ in range(20)])
    await store.cancel(made[1].id)
    await store.cancel(made[2].id)
    await store.create([new_task(recipe="other") for _ in range(30)])
    found, asked, before = [], 0, None
    while asked == 0 or before is not None:
        page = await store.find(TaskQuery(**filters, before=before))
        found, asked, before = found + page.tasks, asked + 1, page.next
    wanted = TaskQuery(**filters)
    expected = [
        task.id
        for place, task in reversed(list(enumerate(made)))
        if wanted.recipe in (None, task.recipe)
        and (not wanted.state or ("cancelled" if place in (1, 2) else "waiting") in wanted.state)
        and wanted.internal == (place == 0)
    ]
    assert [task.id for task in found] == expected
    assert asked == pages


async def test_search_and_counts(store):
    of = [("Beach", "web", "summer"), ("beach", "thumbnail", ""), ("Forest", "web", "autumn"), ("a%b_c", "web", "")]
    new = [
        new_task(filename=f"{name}-{n}.JPG", recipe=recipe, batch=batch) for n, (name, recipe, batch) in enumerate(of)
    ]
    made = await store.create(new)
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


async def test_a_search_ignores_the_case_of_every_letter(store):
    names = ["Ärger.jpg", "ФОТО 1.jpg", "фото.jpg", "Straße.jpg", "İzmir.jpg", "[É]*?^$.jpg", "plain.jpg"]
    await store.create([new_task(filename=name) for name in names])
    of = {
        "ärg": names[:1], "ÄRGER": names[:1], "фОто": names[1:3], "фото.": names[2:3], "straß": names[3:4],
        "A\u0308RG": names[:1], "I\u0307zm": names[4:5],
        "İZM": names[4:5], "[é]*?^$.j": names[5:6], "é.": [], "JPG": names, "ärg*": [], "ärg.*": [],
    }  # fmt: skip
    for text, wanted in of.items():
        found = await store.find(TaskQuery(search=text))
        assert [task.filename for task in reversed(found.tasks)] == wanted, text
        assert (await store.count(TaskFilter(search=text))).total == len(wanted), text


async def test_many_tasks_are_changed_at_once(store):
    made = await store.create([new_task(batch="b" if place < 5 else "") for place in range(7)])
    leases = await store.lease(request(n=3))
    await store.settle([finished(leases[0].id), failed(leases[1].id, permanent=True)])
    # Batch b: finished, failed, working, waiting, waiting. No batch: waiting, waiting.
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


async def test_a_page_of_batches_counts_a_limited_number_of_tasks(store, monkeypatch):
    for module in (batches, searching):
        monkeypatch.setattr(module, "SEARCHED", 10)
    for name, tasks in {"oldest": 2, "large": 30, "old": 4, "newer": 4, "newest": 6}.items():
        await store.create([new_task(batch=name) for _ in range(tasks)])
    pages, before = [], None
    while not pages or before is not None:
        page = await store.batches(before=before)
        pages.append([(batch.name, batch.tasks["waiting"], batch.complete) for batch in page.batches])
        before = page.next
    assert pages == [
        [("newest", 6, True), ("newer", 4, True)],
        [("old", 4, True)],
        [("large", 11, False)],
        [("oldest", 2, True)],
    ]
    (large,) = (await store.batches(name="large")).batches
    assert (large.tasks, large.size, large.complete) == ({"waiting": 11}, 11 * 1000, False)


async def test_internal_tasks_are_not_listed_and_their_events_are_marked(store):
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


async def test_a_reader_of_one_task_advances_past_other_events(store):
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
