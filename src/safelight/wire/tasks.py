"""Records of tasks and of the requests that create, find and change them."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from safelight.errors import Code, Error
from safelight.wire.records import DEFAULT_TENANT, Blob, Digest, Record, TenantId, Traceparent


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
"""States that a task leaves only on request."""


_MEDIA_TYPE = r"^(image/(jpeg|png|gif|webp|tiff|avif|heic|jxl|x-[a-z0-9-]{1,30})|application/octet-stream)$"


_MOST = 2**40
"""The largest number of bytes or pixels, so that sums of many still fit into a database column."""
_LONGEST_DETAIL = 2000

_Scalar = Annotated[str, Meta(max_length=2000)] | int | float | bool | None
_Extra = Annotated[
    dict[Annotated[str, Meta(max_length=64)], _Scalar | Annotated[list[_Scalar], Meta(max_length=64)]],
    Meta(max_length=32),
]
_MEMBERS = frozenset({"type", "title", "status", "detail", "code"})
"""Members of every problem document, which `Failure.extra` cannot replace."""
_OF_REQUESTS = frozenset(
    {Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.MISDIRECTED, Code.METHOD_NOT_ALLOWED, Code.RANGE_NOT_SATISFIABLE}
)
"""Errors of requests, which a photo cannot cause: a client that got one would sign in again or change its request."""


class Output(Record, frozen=True, kw_only=True):
    """One result of a task: a blob and a description of its image."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    digest: Digest
    size: Annotated[int, Meta(ge=0, le=_MOST)]
    media_type: Annotated[str, Meta(pattern=_MEDIA_TYPE, description="never one that a browser would run")]
    width: Annotated[int, Meta(ge=0, le=_MOST)] = 0
    height: Annotated[int, Meta(ge=0, le=_MOST)] = 0
    frames: Annotated[int, Meta(ge=0, le=_MOST)] = 1
    notes: Annotated[list[Annotated[str, Meta(max_length=1000)]], Meta(max_length=16)] = []
    """What was wrong with the photo although it could be read; sentences for people."""


class Failure(Record, frozen=True, kw_only=True):
    """Why a task or an attempt failed: an `errors.Code` for programs, and a sentence for people."""

    code: Annotated[str, Meta(max_length=64)]
    detail: Annotated[str, Meta(max_length=20_000)]
    extra: _Extra = {}

    @classmethod
    def of(cls, error: Error) -> Failure:
        """Record an error."""
        return cls(code=error.code.value, detail=error.detail[:_LONGEST_DETAIL], extra=error.extra)

    def error(self) -> Error:
        """Return the recorded error; a worker may have sent any code, or one of a later version."""
        try:
            code = Code(self.code)
        except ValueError:
            code = Code.OPERATION_FAILED
        code = Code.OPERATION_FAILED if code in _OF_REQUESTS else code
        return Error(code, self.detail, **{name: value for name, value in self.extra.items() if name not in _MEMBERS})


class NewTask(Record, frozen=True, kw_only=True):
    """A task that the master asks db to create, once the input is in storage.

    `input` is None only for a task of the classic protocol, whose input is stored under the task's own id.
    `recipe` is the name shown to people, `spec` the canonical JSON, and `recipe_digest` identifies what it computes.
    `classic` says that a classic worker, which can only invert, may process it. `internal` tasks are created by the
    system for its own use (renditions, previews); lists, archives and charts omit them. Among a tenant's tasks of the
    same priority, `interactive` ones, whose sender waits for each, are leased before those of batches.
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
    reuse: bool = True
    """Whether the outputs of an equal finished task may be reused."""
    state: State = State.WAITING
    traceparent: Traceparent | None = None
    """The span that created it, if it is traced."""


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
    """Whether it finished on creation, with the outputs of an earlier task of the same input, recipe and engine."""
    lease: str | None = None
    """The lease that finished it, which only services see. A classic result is stored under this name."""
    traceparent: str | None = None
    """The span that created it, if it is traced; only services see it."""


class TaskFilter(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tasks. A task must match every filter that is given."""

    state: (
        Annotated[str, Meta(min_length=1, description=f"states, separated by commas: {', '.join(STATES)}")] | None
    ) = None
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
        """The states in `state`; none means all. Raises INVALID_REQUEST for one that does not exist.

        Text that names none is refused too: a script whose variable is empty would otherwise delete all tasks.
        """
        if self.state is None:
            return []
        names = [name.strip() for name in self.state.split(",") if name.strip()]
        for name in names or [self.state]:
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
        return {name: str(value) for name, value in fields.items() if value is not None}


class TaskQuery(TaskFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of the tasks that match a filter."""

    before: Annotated[str, Meta(description="`next` of the page before", max_length=128)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class TaskPage(Record, frozen=True, kw_only=True):
    """A page of tasks, newest first. `next` is the `before` of the next page, None on the last one.

    A page may have fewer tasks than its limit and still have a next one, since a search examines a limited number of
    tasks at a time.
    """

    tasks: list[Task]
    next: str | None = None


class TaskCounts(Record, frozen=True, kw_only=True):
    """How many tasks match a filter.

    `states`, `recipes` and `reasons` (codes of failures) each count the tasks that would match if the filter did not
    name a state, recipe or reason. `complete` is false if there are more tasks than one count examines; then only the
    newest were counted.
    """

    total: int
    states: dict[str, int]
    recipes: dict[str, int]
    reasons: dict[str, int]
    complete: bool = True


class TaskChange(Record, frozen=True, kw_only=True):
    """Cancel, retry, release or delete many tasks: the named ones, or (page by page) those that match a filter."""

    action: Literal["cancel", "retry", "release", "delete"]
    tasks: Annotated[list[str], Meta(max_length=1000)] | None = None
    filter: TaskFilter | None = None
    before: Annotated[str, Meta(max_length=128)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class TaskChanges(Record, frozen=True, kw_only=True):
    """How many tasks were changed, and how many were skipped because of their state or because they no longer exist.

    `next` goes into `before` for the next tasks of a filter, None at the end.
    """

    changed: int = 0
    skipped: int = 0
    next: str | None = None


class Batch(Record, frozen=True, kw_only=True):
    """Tasks that were uploaded together. `tasks` counts them by state; `size` is that of their originals in bytes.

    `complete` is false if there are more tasks than one count examines; then everything is about the newest of them.
    """

    name: str
    created: float
    changed: float
    tasks: dict[str, int]
    size: int = 0
    complete: bool = True


class BatchPage(Record, frozen=True, kw_only=True):
    """A page of batches, those with the newest tasks first; `next` goes into `before` for the next page.

    It has fewer batches than were asked for if they have very many tasks.
    """

    batches: list[Batch]
    next: str | None = None


class Created(Record, frozen=True, kw_only=True):
    """The answer to one of several new tasks: the task, or the problem for which it was refused."""

    task: Task | None = None
    problem: dict[str, Any] | None = None


class Uploaded(Record, frozen=True, kw_only=True):
    """The outcome for one photo of a request with several: a task, or the problem for which it was refused."""

    filename: str = ""
    task: Task | None = None
    problem: dict[str, Any] | None = None
