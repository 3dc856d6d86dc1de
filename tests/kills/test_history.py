"""Test that the checker finds every kind of error: a history that is wrong in one way breaks one rule."""

import hashlib

from kills.history import Call, History
from safelight.wire import Event, Output, State, Task


def good() -> History:
    history = History()
    digest = hashlib.sha256(b"result").hexdigest()
    output = Output(name="image", digest=digest, size=6, media_type="image/png")
    task = Task(id="1-a", state=State.FINISHED, seq=3, created=0, changed=0, outputs=[output])
    history.calls.append(Call(photo=0, key="k", answered=1.0, task="1-a"))
    history.final["1-a"], history.results["1-a"] = task, b"result"
    history.saw(task)
    for seq, (kind, state, attempt) in enumerate(
        [("created", State.WAITING, 0), ("leased", State.WORKING, 1), ("finished", State.FINISHED, 1)], 1
    ):
        history.events.append(Event(seq=seq, at=0, task="1-a", state=state, kind=kind, attempt=attempt))
    return history


def test_a_good_history_breaks_no_rule() -> None:
    assert good().violations() == []


def test_a_lost_acknowledged_upload_is_found() -> None:
    history = good()
    del history.final["1-a"]
    assert "is gone" in history.violations()[0]


def test_wrong_bytes_are_found() -> None:
    history = good()
    history.results["1-a"] = b"other"
    assert "not those it names" in history.violations()[0]


def test_a_result_that_changes_is_found() -> None:
    history = good()
    other = history.final["1-a"].outputs[0].evolve(digest="0" * 64)
    history.saw(history.final["1-a"].evolve(outputs=[other]))
    assert "later seen as" in history.violations()[0]


def test_two_attempts_at_once_are_found() -> None:
    history = good()
    second = history.events[1].evolve(attempt=2)
    history.events = [*history.events[:2], second.evolve(seq=3), history.events[2].evolve(seq=4, attempt=2)]
    assert "held the lease" in history.violations()[0]


def test_publication_by_a_stale_attempt_is_found() -> None:
    history = good()
    history.events.append(history.events[2].evolve(seq=4))
    assert len(history.violations()) == 3


def test_a_repeated_event_number_is_found() -> None:
    history = good()
    history.events[2] = history.events[2].evolve(seq=2)
    assert "the event numbers repeat or fall" in history.violations()


def test_an_event_that_is_missing_is_found() -> None:
    history = good()
    history.events = [event.evolve(seq=event.seq + (event.seq > 1)) for event in history.events]
    assert history.violations() == ["event 2 is missing"]


def test_a_change_without_its_event_is_found() -> None:
    history = good()
    history.events = [event.evolve(seq=event.seq - 1) for event in history.events[1:]]
    assert "0 events that say it was created" in " ".join(history.violations())


def test_an_end_that_no_reader_saw_is_found() -> None:
    history = good()
    del history.events[-1]
    assert history.violations() == ["task 1-a finished 0 times in its events"]


def test_a_task_that_is_created_twice_is_found() -> None:
    history = good()
    again = history.events[0].evolve(seq=4)
    history.events.append(again)
    assert "2 events that say it was created" in " ".join(history.violations())


def test_an_answer_before_the_commit_is_found() -> None:
    """A kill lost the task, and another task got its number."""
    history = good()
    history.events.append(history.events[0].evolve(seq=4, task="1-b"))
    assert "which was taken back" in " ".join(history.violations())


def test_a_change_after_the_end_is_found() -> None:
    history = good()
    history.events.append(history.events[1].evolve(seq=4, attempt=2))
    assert "leased after it had finished" in " ".join(history.violations())


def test_a_result_of_another_attempt_is_found() -> None:
    history = good()
    history.events[2] = history.events[2].evolve(attempt=2)
    assert "attempt 2 finished while 1 held the lease" in " ".join(history.violations())


def test_a_wrong_end_is_found() -> None:
    history = good()
    history.final["1-a"] = history.final["1-a"].evolve(state=State.FAILED)
    assert "ended as FAILED" in " ".join(history.violations())


def test_a_key_that_became_two_tasks_is_found() -> None:
    history = good()
    history.calls.append(Call(photo=0, key="k", answered=2.0, task="2-b"))
    history.final["2-b"], history.results["2-b"] = history.final["1-a"], b"result"
    assert "several tasks" in " ".join(history.violations())


def test_taking_a_death_back_ends_no_other_attempt() -> None:
    history = good()
    leased, finished = history.events[1:]
    expired = leased.evolve(seq=3, kind="expired", state=State.WAITING)
    again = leased.evolve(seq=4, attempt=2)
    excused = again.evolve(seq=5, kind="excused")
    history.events[2:] = [expired, again, excused, finished.evolve(seq=6, attempt=2)]
    assert history.violations() == []


def test_a_reader_that_missed_events_is_found() -> None:
    history = good()
    history.readers["stream"] = [history.events[0], history.events[2]]
    assert "other events" in " ".join(history.violations())
    history.readers["stream"] = history.events[:2]
    assert "has not shown the last events" in " ".join(history.violations())
    history.readers["stream"] = list(history.events)
    assert history.violations() == []


def test_a_webhook_that_was_not_called_is_found() -> None:
    history = good()
    history.called = {}
    assert "its webhook was called with []" in " ".join(history.violations())
    history.called = {"1-a": ["task.failed"]}
    assert "task.failed" in " ".join(history.violations())
    history.called = {"1-a": ["task.finished"]}
    assert history.violations() == []


def test_a_result_that_shows_something_else_is_found() -> None:
    shown = History(lambda _number, result: result == b"another")
    history = good()
    shown.calls, shown.final, shown.results, shown.events = (
        history.calls,
        history.final,
        history.results,
        history.events,
    )
    assert "shows something else" in " ".join(shown.violations())


def test_a_late_answer_is_not_a_change() -> None:
    history = good()
    waiting = history.final["1-a"].evolve(state=State.WAITING, outputs=[])
    history.saw(waiting, history.sights[0].at - 1)
    assert history.violations() == []
    history.saw(waiting)
    assert "later seen as" in history.violations()[0]
