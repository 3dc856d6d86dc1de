"""What a history tells of workers that ended: whom their tasks were charged to, and how soon others took them up."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kills.history import Call, History
from safelight.wire import Event

_CHARGED = ("expired", "died")


def wrongly_blamed(history: History, killed: Mapping[str, float]) -> list[str]:
    """Return a sentence for each error, and for each death that stays though its worker was not among the killed."""
    wrong = []
    for task in history.final.values():
        charged = [event for event in history.events if event.task == task.id and event.kind in _CHARGED]
        founded = sum(event.worker in killed for event in charged)
        if task.errors:
            wrong.append(f"task {task.id} is charged with {task.errors} errors: {task.failure}")
        if task.deaths > founded:
            by = [f"{event.kind} at {event.worker}" for event in charged]
            wrong.append(f"task {task.id} is charged with {task.deaths} deaths, {founded} of killed workers: {by}")
        released = [event for event in history.events if event.task == task.id and event.kind == "released"]
        if released and sum(event.worker in killed and event.seq < released[0].seq for event in charged) < 2:
            wrong.append(f"task {task.id} stayed in quarantine for what happened to machines")
    return wrong


@dataclass
class TakenUp:
    """Seconds after which others had the tasks of workers that were killed or stopped, and those that were given back.

    `returned` are the tasks of workers that went on: they could not reach storage, or had been out of reach.
    """

    killed: list[float] = field(default_factory=list)
    stopped: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)


def taken_up(history: History, killed: Mapping[str, float], stopped: Collection[str]) -> TakenUp:
    """Measure it from the times of events. `killed` has the ends of workers, by the monotonic clock of this program.

    `stopped` are the workers that were stopped while another one was within reach.
    """
    found = TakenUp()
    clock = _Clock(history.acknowledged)
    events: dict[str, list[Event]] = {}
    for event in history.events:
        if event.kind != "excused":
            events.setdefault(event.task, []).append(event)
    for of_task in events.values():
        for event, after in zip(of_task, of_task[1:], strict=False):
            if event.kind == "returned" and after.kind == "leased":
                given_back = found.stopped if event.worker in stopped else found.returned
                given_back.append(after.at - event.at)
            if event.kind != "leased" or event.worker not in killed:
                continue
            end = clock.of_db(killed[event.worker])
            again = next((late for late in of_task if late.seq > event.seq and late.kind == "leased"), None)
            if again is not None and event.at < end < after.at:
                found.killed.append(again.at - end)
    return found


class _Clock:
    """db's clock, from what uploads that were answered soon say of it."""

    def __init__(self, calls: list[Call]) -> None:
        answered = [call for call in calls if call.answered is not None and call.created is not None]
        self._known = [(call.sent, call.created, call.answered) for call in answered]

    def of_db(self, moment: float) -> float:
        """Return what db's clock showed at a time of the monotonic clock."""
        if not self._known:
            return moment + time.time() - time.monotonic()
        sent, created, answered = min(self._known, key=lambda one: (one[2] - one[0] > 1, abs(one[0] - moment)))
        return moment + created - (sent + answered) / 2
