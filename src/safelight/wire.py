"""The records that travel between services.

All are frozen, keyword-only and encoded as JSON by msgspec. Times are Unix seconds, durations seconds, sizes bytes,
digests the SHA-256 of the bytes in lower-case hex.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from safelight.errors import Code, Error, validation_problem

T = TypeVar("T")

MAX_PHOTO_BYTES = 256 * 1024 * 1024
"""Size of the largest photo that the master accepts and workers process; `max_photo` is the setting."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A frozen record; `evolve` makes a changed copy."""

    def evolve(self, **changes: Any) -> Any:
        """Return a copy with some fields replaced."""
        return msgspec.structs.replace(self, **changes)


class State(IntEnum):
    """Where a task is. The numbers -1 to 2 are the classic protocol's."""

    UPLOADING = -1
    WAITING = 0
    WORKING = 1
    FINISHED = 2
    FAILED = 3
    QUARANTINED = 4
    CANCELLED = 5


STATES: dict[str, State] = {state.name.lower(): state for state in State}
"""The states by the names that people read and write."""

ENDED = frozenset({State.FINISHED, State.FAILED, State.QUARANTINED, State.CANCELLED})
"""States in which nothing more happens unless somebody asks."""

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes, lower-case hex")]
Seconds = Annotated[float, Meta(ge=0)]


class Blob(Record, frozen=True, kw_only=True):
    """Immutable bytes in storage."""

    digest: Digest
    size: Annotated[int, Meta(ge=0)]


class Output(Record, frozen=True, kw_only=True):
    """One result of a task: a blob and what it shows."""

    name: str
    digest: Digest
    size: int
    media_type: str
    width: int = 0
    height: int = 0
    frames: int = 1


class Failure(Record, frozen=True, kw_only=True):
    """Why a task or an attempt ended badly: `errors.Code` for programs, a sentence for people."""

    code: str
    detail: str
    extra: dict[str, Any] = {}

    @classmethod
    def of(cls, error: Error) -> Failure:
        """Record an error."""
        return cls(code=error.code.value, detail=error.detail, extra=error.extra)

    def error(self) -> Error:
        """Return the error that this records."""
        return Error(Code(self.code), self.detail, **self.extra)


class NewTask(Record, frozen=True, kw_only=True):
    """What the master asks db to create, once the input is in storage.

    `input` is None only for a task of the classic protocol, whose input is stored under the task's own id.
    `recipe` is the name shown to people, `spec` its canonical JSON, `recipe_digest` names what it does.
    `classic` says that a classic worker, which can only invert, may do it. `internal` tasks are made by the system for
    its own use (renditions, previews); nobody's lists, archives and charts show them.
    """

    input: Blob | None = None
    filename: str = ""
    media_type: str = ""
    recipe: str
    recipe_digest: Digest
    spec: msgspec.Raw
    classic: bool = False
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    batch: Annotated[str, Meta(max_length=64)] = ""
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    webhook: str | None = None
    internal: bool = False
    state: State = State.WAITING


class Task(Record, frozen=True, kw_only=True):
    """A task as everybody sees it. `seq` numbers its latest change."""

    id: str
    state: State
    seq: int
    created: float
    changed: float
    input: Blob | None = None
    filename: str = ""
    media_type: str = ""
    recipe: str = ""
    recipe_digest: str = ""
    priority: int = 0
    batch: str = ""
    internal: bool = False
    attempts: int = 0
    errors: int = 0
    deaths: int = 0
    outputs: list[Output] = []
    failure: Failure | None = None
    engine: str = ""
    seconds: float = 0.0
    reused: bool = False
    """Finished on creation, from an earlier task with the same input, recipe and engine."""
    lease: str | None = None
    """The lease that finished it; only services see it. The classic result is stored under this id."""


class TaskFilter(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tasks. A task must match every filter that is given."""

    state: Annotated[str, Meta(description=f"states, separated by commas: {', '.join(STATES)}")] = ""
    recipe: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    batch: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    search: (
        Annotated[str, Meta(min_length=1, max_length=128, description="a part of the file name, or how the id begins")]
        | None
    ) = None
    reason: Annotated[str, Meta(min_length=1, max_length=64, description="the code of the failure")] | None = None
    since: Annotated[float, Meta(ge=0, description="created at this time or later, Unix seconds")] | None = None
    until: Annotated[float, Meta(ge=0, description="created before this time, Unix seconds")] | None = None
    internal: Annotated[bool, Meta(description="list the tasks that the system made for its own use instead")] = False

    @property
    def states(self) -> list[State]:
        """The states in `state`; none means all. Raises INVALID_REQUEST for one that does not exist."""
        names = [name.strip() for name in self.state.split(",") if name.strip()]
        for name in names:
            if name not in STATES:
                detail = f"There is no state {name[:32]!r}; there are {', '.join(STATES)}."
                raise Error(Code.INVALID_REQUEST, detail, position="state")
        return [STATES[name] for name in names]

    def page(self, *, before: str | None = None, limit: int = 100, **changes: Any) -> TaskQuery:
        """Return a page of this filter, some of its fields replaced."""
        fields = {name: getattr(self, name) for name in TaskFilter.__struct_fields__} | changes
        return TaskQuery(**fields, before=before, limit=limit)

    def params(self) -> dict[str, str]:
        """Return the query string's parameters."""
        fields = msgspec.structs.asdict(self) | {"internal": "true" if self.internal else None}
        return {name: str(value) for name, value in fields.items() if value not in (None, "")}


class TaskQuery(TaskFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of the tasks that match a filter."""

    before: Annotated[str, Meta(description="`next` of the page before", max_length=128)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class TaskPage(Record, frozen=True, kw_only=True):
    """A page of tasks, newest first; `next` goes into `before` for the next page, None at the end.

    A page may hold fewer tasks than its limit and still have a next one: a search looks at so many tasks at a time.
    """

    tasks: list[Task]
    next: str | None = None


class TaskCounts(Record, frozen=True, kw_only=True):
    """How many tasks match a filter.

    `states`, `recipes` and `reasons` (codes of failures) each count what there would be if the filter did not name a
    state, recipe or reason. `complete` is false where there are more tasks than one count looks at: the newest were
    counted.
    """

    total: int
    states: dict[str, int]
    recipes: dict[str, int]
    reasons: dict[str, int]
    complete: bool = True


class TaskChange(Record, frozen=True, kw_only=True):
    """Cancel, retry, release or delete many tasks: those named, or (a page at a time) those that match a filter."""

    action: Literal["cancel", "retry", "release", "delete"]
    tasks: Annotated[list[str], Meta(max_length=1000)] | None = None
    filter: TaskFilter | None = None
    before: Annotated[str, Meta(max_length=128)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class TaskChanges(Record, frozen=True, kw_only=True):
    """How many tasks were changed, and how many were not in a state that allows it (or not there any more).

    `next` goes into `before` for the next tasks of a filter, None at the end.
    """

    changed: int = 0
    skipped: int = 0
    next: str | None = None


class Batch(Record, frozen=True, kw_only=True):
    """Tasks that were uploaded together. `tasks` counts them by state; `size` is that of their originals in bytes."""

    name: str
    created: float
    changed: float
    tasks: dict[str, int]
    size: int = 0


class BatchPage(Record, frozen=True, kw_only=True):
    """A page of batches, those with the newest tasks first; `next` goes into `before` for the next page."""

    batches: list[Batch]
    next: str | None = None


class Uploaded(Record, frozen=True, kw_only=True):
    """What became of one of several photos in a request: a task, or the problem that refused it."""

    filename: str = ""
    task: Task | None = None
    problem: dict[str, Any] | None = None


class WorkerInfo(Record, frozen=True, kw_only=True):
    """A worker as it describes itself. `id` is unique per start."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    host: str = ""
    engine: str = ""
    slots: int = 1
    busy: int = 0
    isolation: str = ""


class WorkerSeen(Record, frozen=True, kw_only=True):
    """A worker as db knows it."""

    worker: WorkerInfo
    first_seen: float
    last_seen: float
    holding: int = 0


class LeaseRequest(Record, frozen=True, kw_only=True):
    """Ask for up to `n` leases, waiting up to `wait` seconds for the first.

    `holding` names every lease that the worker knows of. A lease that db counts as this worker's and that is not
    named was lost on the way to it: it goes back to the queue at once, and that is no death. So a worker has one
    such request under way at a time. With `n` 0 it takes nothing, and only says what is held.
    """

    worker: WorkerInfo
    n: Annotated[int, Meta(ge=0, le=1000)] = 1
    wait: Annotated[float, Meta(ge=0, le=60)] = 0.0
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    holding: list[str] = []


class Lease(Record, frozen=True, kw_only=True):
    """One attempt at one task. `id` is the fencing token."""

    id: str
    task: str
    attempt: int
    expires: float
    input: Blob | None = None
    filename: str = ""
    media_type: str = ""
    recipe: str
    spec: msgspec.Raw


class Heartbeat(Record, frozen=True, kw_only=True):
    """A worker is alive and still holds these leases; each is extended to `seconds` from now."""

    worker: WorkerInfo
    holding: list[str] = []
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0


class HeartbeatAnswer(Record, frozen=True, kw_only=True):
    """The leases named in the heartbeat that are no longer in force: stop working on them."""

    lost: list[str] = []


class Finished(Record, frozen=True, kw_only=True, tag="finished", tag_field="kind"):
    """The attempt made every output."""

    lease: str
    outputs: list[Output] = []
    engine: str = ""
    seconds: Seconds = 0.0


class Failed(Record, frozen=True, kw_only=True, tag="failed", tag_field="kind"):
    """An error: `permanent` fails the task at once, otherwise it is tried again later, up to a number."""

    lease: str
    failure: Failure
    permanent: bool
    seconds: Seconds = 0.0


class Died(Record, frozen=True, kw_only=True, tag="died", tag_field="kind"):
    """The decoder died on it (signal, out of memory, time-out): counts as a death, like a lapse."""

    lease: str
    failure: Failure
    seconds: Seconds = 0.0


class HandedBack(Record, frozen=True, kw_only=True, tag="handed_back", tag_field="kind"):
    """The worker leaves or cannot take it: back to the queue at once; neither error nor death."""

    lease: str


Outcome = Finished | Failed | Died | HandedBack


class Settled(Record, frozen=True, kw_only=True):
    """What became of one outcome: the task's state now, or the problem (`lease_lost`) that changed nothing."""

    lease: str
    state: State | None = None
    problem: dict[str, Any] | None = None


class Event(Record, frozen=True, kw_only=True):
    """One change of one task. `seq` grows by at least one with each and never repeats."""

    seq: int
    at: float
    task: str
    state: State
    recipe: str = ""
    batch: str = ""
    internal: bool = False
    attempt: int = 0
    worker: str = ""
    kind: str = ""
    """created, ready, leased, finished, failed, delayed, lapsed, died, handed_back, cancelled, retried, released,
    deleted."""
    failure: Failure | None = None
    seconds: float = 0.0


class EventPage(Record, frozen=True, kw_only=True):
    """Events after a number. `last` goes into `after` for the next page (it moves even when none matched).

    `oldest` is the smallest `after` from which nothing is missing; a follower that is behind it has missed events
    that retention removed, and reads the tasks anew.
    """

    events: list[Event]
    last: int
    oldest: int = 0


class Summary(Record, frozen=True, kw_only=True):
    """The queue at one moment. Ages in seconds; `delayed` of the waiting tasks wait for a retry's time."""

    tasks: dict[str, int]
    delayed: int = 0
    oldest_waiting: float = 0.0
    seq: int = 0
    workers: list[WorkerSeen] = []


class Reference(Record, frozen=True, kw_only=True):
    """Names in storage that one page of tasks points at. `db` tells one database from another, set up anew."""

    digests: list[str]
    names: list[str]
    next: int | None = None
    db: str = ""


class NamedRecipe(Record, frozen=True, kw_only=True):
    """A recipe that a user saved: its name and canonical JSON."""

    name: str
    spec: msgspec.Raw
    changed: float = 0.0


class Delivery(Record, frozen=True, kw_only=True):
    """One webhook call that is due: `id` is the fencing token, `attempt` counts from 1."""

    id: str
    url: str
    attempt: int
    task: Task


class Entry(Record, frozen=True, kw_only=True):
    """A value in the key-value store. Several live instances may share a key; `expires` None means never."""

    key: str
    value: str
    instance: str = ""
    revision: int = 0
    expires: float | None = None


class EntryPage(Record, frozen=True, kw_only=True):
    """Entries at one revision of the store."""

    entries: list[Entry]
    revision: int


class Collected(Record, frozen=True, kw_only=True):
    """What one collection of storage did."""

    examined: int = 0
    removed: int = 0
    freed: int = 0


class NewPartial(Record, frozen=True, kw_only=True):
    """An upload that will come in pieces: how many bytes in all, and what its sender wants kept beside them."""

    size: Annotated[int, Meta(ge=0)]
    metadata: Annotated[dict[str, str], Meta(max_length=32)] = {}


class Partial(Record, frozen=True, kw_only=True):
    """An upload that comes in pieces, `offset` bytes of it durable so far.

    `expires` moves with every piece. `outcome` is empty until the upload is closed: what became of it, in the words
    of whoever closed it (the master: the task's id).
    """

    id: str
    size: int
    offset: int
    metadata: dict[str, str] = {}
    expires: float = 0.0
    outcome: str = ""


class StorageInfo(Record, frozen=True, kw_only=True):
    """What storage holds and what is left for it, in bytes."""

    blobs: int
    size: int
    free: int | None = None


def encode(value: object) -> bytes:
    """Encode a record, or a list of them, as JSON."""
    return msgspec.json.encode(value)


def decode(data: bytes | str, kind: type[T]) -> T:
    """Decode JSON into a record.

    Raises `Error(INVALID_REQUEST)` with the place of what does not fit.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        sentence, position = validation_problem(error)
        raise Error(Code.INVALID_REQUEST, f"{sentence}.", position=position) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Error(Code.INVALID_REQUEST, f"The body is not valid JSON: {error}.") from None
