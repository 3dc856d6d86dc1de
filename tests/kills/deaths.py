"""Analyse the ends of workers in a history: the charged deaths, and how soon other workers leased the tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from kills.history import Call, History
from safelight.wire import Event

_CHARGED = ("expired", "died")
_NEAR = 20
"""How many uploads are used to determine db's clock."""


def wrongly_blamed(history: History, killed: Mapping[str, float]) -> list[str]:
    """Return a message for each error, and for each remaining death of a worker that was not killed."""
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
    """Seconds until other workers leased the tasks of killed or stopped workers, and returned tasks.

    The seconds count from the kill, from the request to stop, or else from the return, and only while another worker
    is idle, because a busy worker first finishes its own tasks. `returned` are tasks of workers that continued to run:
    they could not reach storage, or were out of reach for a time.
    """

    killed: list[float] = field(default_factory=list)
    stopped: list[float] = field(default_factory=list)
    handed: list[float] = field(default_factory=list)
    """Of `stopped`, the part until db had the task back."""
    returned: list[float] = field(default_factory=list)


def taken_up(history: History, killed: Mapping[str, float], stopped: Mapping[str, float]) -> TakenUp:
    """Return the seconds by the times of events. `killed` and `stopped` map workers to their ends (monotonic clock)."""
    found, idle = TakenUp(), _Idle(history.events)
    clock = _Clock(history.acknowledged)
    told = {worker: clock.of_db(at) for worker, at in stopped.items()}
    dead = {worker: clock.of_db(at) for worker, at in killed.items()}
    last: dict[str, Event] = {}
    holders: dict[str, Event] = {}
    for event in history.events:
        if event.kind == "excused":
            continue
        free = last.get(event.task)
        if event.kind == "leased":
            if free is not None and free.kind == "returned":
                waited = idle.waited(free.at, event.at, free.worker)
                if free.worker in told:
                    found.handed.append(max(0.0, free.at - told[free.worker]))
                    found.stopped.append(found.handed[-1] + waited)
                else:
                    found.returned.append(waited)
            holder = holders.get(event.task)
            if free is not None and holder is not None and holder.at < dead.get(holder.worker, 0.0) < free.at:
                waited = idle.waited(free.at, event.at, holder.worker)
                found.killed.append(free.at - dead[holder.worker] + waited)
            holders[event.task] = event
        last[event.task] = event
    return found


class _Idle:
    """The times in which workers were idle, by the events."""

    def __init__(self, events: list[Event]) -> None:
        self._changes: list[tuple[float, str, int]] = []
        """The time, the worker, and how many leases it held from then on."""
        holder, held = dict[str, str](), dict[str, int]()
        for event in events:
            if event.kind == "excused":
                continue
            before = holder.pop(event.task, None)
            if before is not None:
                held[before] -= 1
                self._changes.append((event.at, before, held[before]))
            if event.kind == "leased":
                holder[event.task] = event.worker
                held[event.worker] = held.get(event.worker, 0) + 1
                self._changes.append((event.at, event.worker, held[event.worker]))

    def waited(self, since: float, until: float, ended: str) -> float:
        """Return the longest time between `since` and `until` in which a living worker other than `ended` was idle.

        Only workers that are seen before and after count; if there are none, all of the time counts.
        """
        before = {worker: count for at, worker, count in self._changes if at <= since}
        after = {worker for at, worker, _ in self._changes if at >= until}
        held = {worker: count for worker, count in before.items() if worker in after and worker != ended}
        if not held:
            return until - since
        longest, begun = 0.0, None if min(held.values()) else since
        for at, worker, count in [*self._changes, (until, "", 0)]:
            if not since < at <= until:
                continue
            if worker in held:
                held[worker] = count
            if begun is not None and (not worker or min(held.values())):
                longest, begun = max(longest, at - begun), None
            elif begun is None and not min(held.values()):
                begun = at
        return longest


class _Clock:
    """Estimate db's clock from the uploads near a moment: each task is created after the request, before the answer."""

    def __init__(self, calls: list[Call]) -> None:
        self._known = [
            (call.answered, call.created - call.answered, call.created - call.sent)
            for call in calls
            if call.answered is not None and call.created is not None
        ]

    def of_db(self, moment: float) -> float:
        """Return the time of db's clock at a time of the monotonic clock, in the middle of the possible range."""
        if not self._known:
            return moment + time.time() - time.monotonic()
        near = sorted(self._known, key=lambda one: abs(one[0] - moment))[:_NEAR]
        return moment + (max(least for _, least, _ in near) + min(most for _, _, most in near)) / 2
