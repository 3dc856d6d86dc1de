"""Test waiting for many tasks at once, where one request tells of all of them."""

import asyncio

import pytest

from safelight.client.requests import ends
from safelight.client.requests.ends import Ends
from safelight.errors import Code, Error
from safelight.wire import Event, EventPage, State, Task


class Master:
    """Answers as a master whose tasks and pages of changes a test sets."""

    def __init__(self) -> None:
        self.states = {"1-a": State.WAITING, "2-b": State.WAITING}
        self.pages: asyncio.Queue[EventPage | Error] = asyncio.Queue()
        self.asked: asyncio.Queue[int] = asyncio.Queue()

    async def task(self, id: str) -> Task:
        return Task(id=id, state=self.states[id], seq=7, created=0, changed=0)

    async def changes(self, after: int, *, wait: float, task: str | None = None, known: str = "") -> EventPage:
        assert task is None
        self.asked.put_nowait(after)
        page = await self.pages.get()
        if isinstance(page, Error):
            raise page
        return page


@pytest.fixture
def master(monkeypatch) -> Master:
    monkeypatch.setattr(ends, "_APART", 0)
    return Master()


def wait_for_all(master: Master) -> list[asyncio.Task[Task]]:
    source = Ends(master)
    return [asyncio.create_task(source.of(each)) for each in master.states]


async def test_changes_that_may_have_been_missed_are_looked_up(master):
    one, two = wait_for_all(master)
    assert await master.asked.get() == 7
    master.states["1-a"] = State.FINISHED
    master.pages.put_nowait(EventPage(events=[], last=9, db="x"))  # the first page cannot show a restored database
    assert (await one).state is State.FINISHED
    assert await master.asked.get() == 9
    master.states["2-b"] = State.FAILED
    master.pages.put_nowait(EventPage(events=[], last=30, oldest=20, db="x"))
    assert (await two).state is State.FAILED


async def test_one_request_tells_of_all_tasks(master):
    waiting = wait_for_all(master)
    master.pages.put_nowait(EventPage(events=[], last=9, db="x"))
    assert [await master.asked.get(), await master.asked.get()] == [7, 9]
    master.states = dict.fromkeys(master.states, State.FINISHED)
    ended = [
        Event(seq=n, at=0, task=each, state=State.FINISHED, kind="finished") for n, each in enumerate(master.states)
    ]
    master.pages.put_nowait(EventPage(events=ended, last=11, db="x"))
    assert [(await each).id for each in waiting] == ["1-a", "2-b"]
    assert master.asked.qsize() <= 1


async def test_everybody_who_waits_learns_that_no_changes_can_be_read(master):
    waiting = wait_for_all(master)
    await master.asked.get()
    master.pages.put_nowait(Error(Code.UNAUTHENTICATED, "This key has been revoked."))
    for each in waiting:
        with pytest.raises(Error, match="revoked"):
            await each
