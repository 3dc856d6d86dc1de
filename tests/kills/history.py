"""Record the requests and answers of clients, and check the rules that every such history must obey."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from safelight.wire import Event, State, Task


@dataclass
class Call:
    """One upload: when it was sent, and when and how it was answered (None if it was not acknowledged).

    `created` is the time of the task's creation by db's clock. `failed` means that the answer was an error or missing.
    """

    photo: int
    key: str
    sent: float = field(default_factory=time.monotonic)
    answered: float | None = None
    task: str | None = None
    created: float | None = None
    failed: bool = False


@dataclass
class Sight:
    """One observation of a task: when it was requested, and when the answer was read."""

    asked: float
    at: float
    task: str
    state: State
    digests: tuple[str, ...]


class History:
    """Everything that clients have observed."""

    def __init__(self, shows: Callable[[int, bytes], bool] | None = None) -> None:
        """Start an empty history. `shows` tells whether bytes are the right result of a photo."""
        self._shows = shows
        self.readers: dict[str, list[Event]] = {}
        """The events that readers other than that of `events` have seen, in order."""
        self.called: dict[str, list[str]] | None = None
        """The webhook calls by task, if every upload has a webhook."""
        self.calls: list[Call] = []
        self.sights: list[Sight] = []
        self.events: list[Event] = []
        self.results: dict[str, bytes] = {}
        self.final: dict[str, Task] = {}

    def saw(self, task: Task, asked: float | None = None) -> None:
        """Record an observation; `asked` is the time of the request, because an answer may be late."""
        now = time.monotonic()
        digests = tuple(output.digest for output in task.outputs)
        self.sights.append(Sight(now if asked is None else asked, now, task.id, task.state, digests))

    @property
    def acknowledged(self) -> list[Call]:
        return [call for call in self.calls if call.task is not None]

    @property
    def failed(self) -> list[Call]:
        return [call for call in self.calls if call.failed]

    def violations(self) -> list[str]:
        """Return a message for every rule that this history breaks."""
        return [
            *self._acknowledged_are_finished(),
            *self._one_key_one_task(),
            *self._results_never_change(),
            *self._events_are_numbered(),
            *self._each_is_created_and_ends_once(),
            *self._answered_once_durable(),
            *self._attempts_follow_one_another(),
            *self._every_reader_sees_all(),
            *self._webhooks_are_called(),
        ]

    def _acknowledged_are_finished(self) -> list[str]:
        broken = []
        for call in self.acknowledged:
            task = self.final.get(call.task or "")
            if task is None:
                broken.append(f"photo {call.photo}: task {call.task} was acknowledged and is gone")
            elif task.state is not State.FINISHED:
                broken.append(f"photo {call.photo}: task {task.id} ended as {task.state.name}: {task.failure}")
            elif len(task.outputs) != 1:
                broken.append(f"photo {call.photo}: task {task.id} has {len(task.outputs)} outputs")
            elif task.id not in self.results:
                broken.append(f"photo {call.photo}: the result of task {task.id} cannot be read")
            elif hashlib.sha256(self.results[task.id]).hexdigest() != task.outputs[0].digest:
                broken.append(f"photo {call.photo}: the bytes of task {task.id} are not those it names")
            elif self._shows is not None and not self._shows(call.photo, self.results[task.id]):
                broken.append(f"photo {call.photo}: the result of task {task.id} shows something else")
        return broken

    def _one_key_one_task(self) -> list[str]:
        tasks: dict[str, set[str]] = {}
        for call in self.acknowledged:
            tasks.setdefault(call.key, set()).add(call.task or "")
        return [f"key {key} became several tasks: {ids}" for key, ids in tasks.items() if len(ids) > 1]

    def _results_never_change(self) -> list[str]:
        broken, published = [], dict[str, Sight]()
        for sight in self.sights:
            before = published.get(sight.task)
            if before is not None and sight.asked < before.at and sight.state is not State.FINISHED:
                continue  # requested before the end, and true at that time
            if before is not None and (sight.state is not State.FINISHED or sight.digests != before.digests):
                broken.append(f"task {sight.task} was finished with {before.digests}, later seen as {sight}")
            if sight.state is State.FINISHED:
                published.setdefault(sight.task, sight)
        return broken

    def _events_are_numbered(self) -> list[str]:
        numbers = [event.seq for event in self.events]
        if numbers != sorted(set(numbers)):
            return ["the event numbers repeat or fall"]
        gaps = [number for number, seq in enumerate(numbers, 1) if number != seq][:1]
        return [f"event {number} is missing" for number in gaps]

    def _each_is_created_and_ends_once(self) -> list[str]:
        """Check that a reader of all events saw each acknowledged task begin once and end once."""
        broken = []
        for call in self.acknowledged:
            of_task = [event for event in self.events if event.task == call.task]
            created = sum(event.kind == "created" for event in of_task)
            if created != 1 or of_task[0].kind != "created":
                broken.append(f"task {call.task} was acknowledged and has {created} events that say it was created")
            # A task that is released from quarantine goes on, so only the last end counts.
            ends = sum(event.state is State.FINISHED and event.kind in ("finished", "created") for event in of_task)
            if ends != 1 or of_task[-1].state is not State.FINISHED:
                broken.append(f"task {call.task} finished {ends} times in its events")
        return broken

    def _answered_once_durable(self) -> list[str]:
        """Check that task numbers are unique: a task acknowledged before its commit would lose its number in a kill."""
        seen, broken = dict[int, str](), []
        for event in self.events:
            n = int(event.task.partition("-")[0])
            if seen.setdefault(n, event.task) != event.task:
                broken.append(f"task {event.task} has the number of {seen[n]}, which was taken back")
        return broken

    def _every_reader_sees_all(self) -> list[str]:
        """Check that all readers saw the same events in the same order; some may be slightly behind at the end."""
        broken, expected = [], [(event.seq, event.task, event.kind) for event in self.events]
        ends = max((task.seq for task in self.final.values()), default=0)
        for name, events in self.readers.items():
            seen = [(event.seq, event.task, event.kind) for event in events]
            if seen[: len(expected)] != expected[: len(seen)]:
                broken.append(f"the {name} has shown other events than the pages of events")
            elif not seen or seen[-1][0] < ends:
                broken.append(f"the {name} has not shown the last events")
        return broken

    def _webhooks_are_called(self) -> list[str]:
        """Check that the webhook of each acknowledged task was called with the task's end, and with nothing else."""
        if self.called is None:
            return []
        wrong = {call.task: self.called.get(call.task or "", []) for call in self.acknowledged}
        return [
            f"task {task}: its webhook was called with {calls}"
            for task, calls in wrong.items()
            if calls[-1:] != ["task.finished"] or set(calls) - {"task.finished", "task.quarantined"}
        ]

    def _attempts_follow_one_another(self) -> list[str]:
        """Check that attempts at a task do not overlap, and that only the one with the lease publishes a result,
        once."""
        broken, holding, finished = [], dict[str, int](), dict[str, int]()
        for event in self.events:
            held = holding.get(event.task)
            if event.kind == "leased":
                if held is not None:
                    broken.append(f"task {event.task}: attempt {event.attempt} began while {held} held the lease")
                if event.task in finished:
                    broken.append(f"task {event.task} was leased after it had finished")
                holding[event.task] = event.attempt
            elif event.kind == "finished":
                if held is None or held != event.attempt:
                    broken.append(f"task {event.task}: attempt {event.attempt} finished while {held} held the lease")
                finished[event.task] = finished.get(event.task, 0) + 1
                holding.pop(event.task, None)
            elif event.kind != "excused":  # "excused" is about an earlier attempt; another may hold the lease
                holding.pop(event.task, None)
        broken += [f"task {task} was published {n} times" for task, n in finished.items() if n != 1]
        return broken
