"""The records that travel between services.

All are frozen, keyword-only and encoded as JSON by msgspec. Times are Unix seconds, durations seconds and sizes bytes;
digests are SHA-256 in lower-case hex.
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
    """Base of all records."""

    def evolve(self, **changes: Any) -> Any:
        """Return a copy with some fields replaced."""
        return msgspec.structs.replace(self, **changes)


class State(IntEnum):
    """The state of a task. The numbers -1 to 2 are those of the classic protocol."""

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
"""States that a task leaves only when somebody asks for it."""

DEFAULT_TENANT = "default"
"""The tenant to which everything belongs where no tenants were set up."""

TenantId = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$", description="1 to 32 of a-z, 0-9 and -, not beginning with -")
]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes, lower-case hex")]
Seconds = Annotated[float, Meta(ge=0)]


class Blob(Record, frozen=True, kw_only=True):
    """Immutable bytes in storage."""

    digest: Digest
    size: Annotated[int, Meta(ge=0)]


_MEDIA_TYPE = r"^(image/(jpeg|png|gif|webp|tiff|avif|heic|jxl|x-[a-z0-9-]{1,30})|application/octet-stream)$"


class Output(Record, frozen=True, kw_only=True):
    """One result of a task: a blob and a description of its image."""

    name: str
    digest: Digest
    size: int
    media_type: Annotated[str, Meta(pattern=_MEDIA_TYPE, description="never one that a browser would run")]
    width: int = 0
    height: int = 0
    frames: int = 1
    notes: list[str] = []
    """What was wrong with the photo, though it was read; sentences for people."""


class Failure(Record, frozen=True, kw_only=True):
    """Why a task or an attempt failed: an `errors.Code` for programs, and a sentence for people."""

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
    `recipe` is the name shown to people, `spec` the canonical JSON, and `recipe_digest` identifies what it computes.
    `classic` says that a classic worker, which can only invert, may do it. `internal` tasks are made by the system for
    its own use (renditions, previews); lists, archives and charts leave them out. Among a tenant's tasks of the same
    priority, `interactive` ones, whose sender waits for each, are leased before those of batches.
    """

    tenant: TenantId = DEFAULT_TENANT
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
    interactive: bool = True
    state: State = State.WAITING


class Task(Record, frozen=True, kw_only=True):
    """A task. `seq` is the number of its latest change."""

    id: str
    tenant: str = DEFAULT_TENANT
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
    """Whether it was finished on creation, with the outputs of an earlier task of the same input, recipe and engine."""
    lease: str | None = None
    """The lease that finished it; only services see it. A classic result is stored under this name."""


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
    since: Annotated[float, Meta(ge=0, le=1e11, description="created at this time or later, Unix seconds")] | None = (
        None
    )
    until: Annotated[float, Meta(ge=0, le=1e11, description="created before this time, Unix seconds")] | None = None
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
    """A page of tasks, newest first. `next` is the `before` of the next page, None on the last one.

    A page may hold fewer tasks than its limit and still have a next one, since a search looks at a limited number of
    tasks at a time.
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
    """What became of one photo of a request with several: a task, or the problem for which it was refused."""

    filename: str = ""
    task: Task | None = None
    problem: dict[str, Any] | None = None


class WorkerInfo(Record, frozen=True, kw_only=True):
    """A worker as it describes itself. `id` is different at each start."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    host: str = ""
    engine: str = ""
    slots: int = 1
    busy: int = 0
    isolation: str = ""


class WorkerSeen(Record, frozen=True, kw_only=True):
    """A worker as db has seen it. `holding` is the number of its leases."""

    worker: WorkerInfo
    first_seen: float
    last_seen: float
    holding: int = 0


class LeaseRequest(Record, frozen=True, kw_only=True):
    """Ask for up to `n` leases, waiting up to `wait` seconds for the first.

    `holding` names every lease that the worker knows of. Any other lease that db has granted to this worker was lost
    on the way: its task returns to the queue at once, which does not count as a death. A worker therefore has only one
    such request open at a time. With `n` 0 it takes no leases and only says which ones it holds.
    """

    worker: WorkerInfo
    n: Annotated[int, Meta(ge=0, le=1000)] = 1
    wait: Annotated[float, Meta(ge=0, le=60)] = 0.0
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    holding: list[str] = []


class Lease(Record, frozen=True, kw_only=True):
    """One attempt at one task, until `expires`. `id` is the fencing token."""

    id: str
    task: str
    tenant: str = DEFAULT_TENANT
    attempt: int
    expires: float
    input: Blob | None = None
    filename: str = ""
    media_type: str = ""
    recipe: str
    spec: msgspec.Raw


class Heartbeat(Record, frozen=True, kw_only=True):
    """A worker is alive and holds these leases; each of them now expires after `seconds`."""

    worker: WorkerInfo
    holding: list[str] = []
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0


class HeartbeatAnswer(Record, frozen=True, kw_only=True):
    """The leases of a heartbeat that are no longer in force: stop working on them."""

    lost: list[str] = []


class Finished(Record, frozen=True, kw_only=True, tag="finished", tag_field="kind"):
    """The attempt has produced every output."""

    lease: str
    outputs: list[Output] = []
    engine: str = ""
    seconds: Seconds = 0.0


class Failed(Record, frozen=True, kw_only=True, tag="failed", tag_field="kind"):
    """The attempt ended with an error. A `permanent` one fails the task at once, another is retried a limited number of
    times.
    """

    lease: str
    failure: Failure
    permanent: bool
    seconds: Seconds = 0.0


class Died(Record, frozen=True, kw_only=True, tag="died", tag_field="kind"):
    """The decoder died (by a signal, out of memory, out of time). It counts as a death, like an expired lease."""

    lease: str
    failure: Failure
    seconds: Seconds = 0.0


class Returned(Record, frozen=True, kw_only=True, tag="returned", tag_field="kind"):
    """The worker returns the lease. The task waits again at once; this is neither an error nor a death."""

    lease: str


Outcome = Finished | Failed | Died | Returned


class Settled(Record, frozen=True, kw_only=True):
    """The answer to one outcome: the state of the task now, or the problem for which it was refused (`lease_lost`)."""

    lease: str
    state: State | None = None
    problem: dict[str, Any] | None = None


class Event(Record, frozen=True, kw_only=True):
    """One change of one task. `seq` grows with each change, not necessarily by one, and never repeats."""

    seq: int
    at: float
    task: str
    tenant: str = DEFAULT_TENANT
    state: State
    recipe: str = ""
    batch: str = ""
    internal: bool = False
    attempt: int = 0
    worker: str = ""
    kind: str = ""
    """created, ready, leased, finished, failed, delayed, expired, died, returned, cancelled, retried, released,
    deleted."""
    failure: Failure | None = None
    seconds: float = 0.0


class EventPage(Record, frozen=True, kw_only=True):
    """Events after a number. `last` is the `after` of the next page; it grows even when no event matched.

    `oldest` is the smallest `after` from which no event is missing. A reader that is further behind has missed events
    that retention removed, and must read the tasks again.
    """

    events: list[Event]
    last: int
    oldest: int = 0


class Summary(Record, frozen=True, kw_only=True):
    """The queue at one moment. Ages are in seconds; `delayed` of the waiting tasks wait to be retried.

    `webhooks_due` counts the webhook calls that are not settled.
    """

    tasks: dict[str, int]
    delayed: int = 0
    oldest_waiting: float = 0.0
    seq: int = 0
    workers: list[WorkerSeen] = []
    webhooks_due: int = 0


class Reference(Record, frozen=True, kw_only=True):
    """What one page of tasks refers to in storage. `db` identifies the database; a new database has another."""

    digests: list[str]
    names: list[str]
    next: int | None = None
    db: str = ""


class NamedRecipe(Record, frozen=True, kw_only=True):
    """A recipe of a tenant under its name, as canonical JSON."""

    tenant: TenantId = DEFAULT_TENANT
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
    """A value in the key-value store. Several live instances may share a key. `expires` is None if it never does."""

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
    """What a garbage collection of storage did: items examined and removed, and bytes freed."""

    examined: int = 0
    removed: int = 0
    freed: int = 0


class NewPartial(Record, frozen=True, kw_only=True):
    """A partial upload to open: its size once complete, and metadata that is kept with it."""

    size: Annotated[int, Meta(ge=0)]
    metadata: Annotated[dict[str, str], Meta(max_length=32)] = {}


class Partial(Record, frozen=True, kw_only=True):
    """A partial upload, of which `offset` bytes are durable.

    Every append moves `expires`. `outcome` is empty until the upload is closed; then it is what the caller of `close`
    has recorded (the master records the task's id).
    """

    id: str
    size: int
    offset: int
    metadata: dict[str, str] = {}
    expires: float = 0.0
    outcome: str = ""


class StorageInfo(Record, frozen=True, kw_only=True):
    """What storage holds, and how many more bytes fit."""

    blobs: int
    size: int
    free: int | None = None


def encode(value: object) -> bytes:
    """Encode a record, or a list of them, as JSON."""
    return msgspec.json.encode(value)


def decode(data: bytes | str, kind: type[T]) -> T:
    """Decode JSON into a record. Raises INVALID_REQUEST with the position of what does not fit."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        sentence, position = validation_problem(error)
        raise Error(Code.INVALID_REQUEST, f"{sentence}.", position=position) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Error(Code.INVALID_REQUEST, f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise Error(Code.INVALID_REQUEST, "The body is nested too deeply.") from None
