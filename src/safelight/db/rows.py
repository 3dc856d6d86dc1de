"""The rows of tasks and events: one record each, fields in the order of the columns, times in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from safelight.db import ids
from safelight.wire import DEFAULT_TENANT, Blob, Event, Failure, Lease, Output, State, Task

Value = int | float | str | None
HOLD = 1 << 52
"""The `due` of a task whose recipe is paused is this plus the number of the pause, a time that never comes."""
EXPIRED = "expired"
"""The end of a lease that was not extended, in `TaskRow.settled_as` and in events."""


def ending(kind: str, missing: Sequence[str]) -> str:
    """Return a `TaskRow.settled_as`: how the last lease ended, followed by `TaskRow.missing`."""
    return " ".join((kind, *missing))


class TaskRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A row of the table of tasks."""

    n: int
    state: State
    seq: int = 0
    changed: int
    due: int | None = None
    attempts: int = 0
    errors: int = 0
    deaths: int = 0
    classic_deaths: int = 0
    lease: str | None = None
    expires: int | None = None
    lease_duration: int | None = None
    worker: str | None = None
    settled: str | None = None
    settled_as: str | None = None  # see `ending`
    outputs: list[Output] | None = None
    failure: Failure | None = None
    engine: str = ""
    seconds: float = 0.0
    # The columns from here on never change.
    key: str
    created: int
    priority: int = 0
    classic: int = 0
    internal: int = 0
    interactive: int = 1
    tenant: str = DEFAULT_TENANT
    spec: int
    recipe: str
    input: str | None = None
    input_size: int | None = None
    filename: str = ""
    media_type: str = ""
    batch: str = ""
    idempotency_key: str | None = None
    webhook: str | None = None
    reused: int = 0
    traceparent: str | None = None

    def values(self) -> list[Value]:
        """Return the values of the columns."""
        return _values(self, _TASK_STATE, _TASK_JSON)

    def changing_values(self) -> list[Value]:
        """Return the number and the values of the columns that can change."""
        return self.values()[:_CHANGING]

    def leased_values(self) -> tuple[Value, ...]:
        """Return the number and the values of the columns that a lease changes."""
        return (
            *(self.n, self.state.value, self.seq, self.changed, self.attempts),
            *(self.lease, self.expires, self.lease_duration, self.worker),
        )

    def evolve(self, **changes: Any) -> TaskRow:
        """Return a copy with some columns replaced."""
        return msgspec.structs.replace(self, **changes)

    @property
    def id(self) -> str:
        """The task's id."""
        return f"{self.n}-{self.key}"

    @property
    def lease_id(self) -> str:
        """The id of the lease in force, or else of the last one that an outcome has ended."""
        return f"{self.n}-{self.key}-{self.attempts}-{self.lease or self.settled}"

    @property
    def ended_as(self) -> str | None:
        """How the last lease ended: the name of its outcome, `expired` or `excused`."""
        return None if self.settled_as is None else self.settled_as.partition(" ")[0]

    @property
    def missing(self) -> tuple[str, ...]:
        """The random parts of the expired leases whose workers have not come back."""
        kind, *leases = (self.settled_as or "").split(" ")
        if kind == EXPIRED and not leases and self.settled is not None:  # as the first release wrote it
            return (self.settled,)
        return tuple(leases)

    @property
    def size(self) -> int:
        """The bytes of the original and the results, each counted for every task that has it."""
        size = self.input_size or 0
        for output in self.outputs or ():
            size += output.size
        return size

    @property
    def blob(self) -> Blob | None:
        """The input, or None for a task of the classic protocol."""
        return None if self.input is None else Blob(digest=self.input, size=self.input_size or 0)

    def held_under(self, lease: ids.Reference) -> bool:
        """Return whether a lease is in force."""
        return (
            self.lease is not None
            and self.lease == lease.token
            and self.attempts == lease.attempt
            and self.key == lease.key
        )

    def task(self, recipe_digest: str) -> Task:
        """Return the record of the task."""
        return Task(
            id=self.id,
            tenant=self.tenant,
            state=self.state,
            seq=self.seq,
            created=self.created / 1000,
            changed=self.changed / 1000,
            input=self.blob,
            filename=self.filename,
            media_type=self.media_type,
            recipe=self.recipe,
            recipe_digest=recipe_digest,
            priority=self.priority,
            batch=self.batch,
            internal=bool(self.internal),
            attempts=self.attempts,
            errors=self.errors,
            deaths=self.deaths,
            outputs=self.outputs or [],
            failure=self.failure,
            engine=self.engine,
            seconds=self.seconds,
            reused=bool(self.reused),
            lease=self.lease_id if self.state is State.FINISHED and self.settled else None,
            traceparent=self.traceparent,
        )

    def lease_record(self, spec: str) -> Lease:
        """Return the record of the lease in force."""
        return Lease(
            id=self.lease_id,
            task=self.id,
            tenant=self.tenant,
            attempt=self.attempts,
            expires=(self.expires or 0) / 1000,
            input=self.blob,
            filename=self.filename,
            media_type=self.media_type,
            recipe=self.recipe,
            spec=msgspec.Raw(spec),
            traceparent=self.traceparent,
        )


class EventRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A row of the table of events."""

    seq: int
    at: int
    n: int
    key: str
    state: State
    recipe: str
    batch: str
    internal: int
    tenant: str
    attempt: int
    worker: str
    kind: str
    failure: Failure | None
    seconds: float

    def values(self) -> list[Value]:
        """Return the values of the columns."""
        return _values(self, _EVENT_STATE, _EVENT_JSON)

    def event(self) -> Event:
        """Return the record of the event."""
        return Event(
            seq=self.seq,
            at=self.at / 1000,
            task=f"{self.n}-{self.key}",
            tenant=self.tenant,
            state=self.state,
            recipe=self.recipe,
            batch=self.batch,
            internal=bool(self.internal),
            attempt=self.attempt,
            worker=self.worker,
            kind=self.kind,
            failure=self.failure,
            seconds=self.seconds,
        )


_CHANGING = TaskRow.__struct_fields__.index("key")
_TASK_STATE = TaskRow.__struct_fields__.index("state")
_TASK_JSON = tuple(TaskRow.__struct_fields__.index(name) for name in ("outputs", "failure"))
_EVENT_STATE = EventRow.__struct_fields__.index("state")
_EVENT_JSON = (EventRow.__struct_fields__.index("failure"),)


def _values(row: msgspec.Struct, state: int, json: tuple[int, ...]) -> list[Value]:
    """Return the fields as SQL values: the state as a number, those at `json` as JSON, the others as they are.

    Six rows are written for each task, so this avoids checking the type of each field.
    """
    values: list[Any] = list(msgspec.structs.astuple(row))
    values[state] = int(values[state])
    for place in json:
        if values[place] is not None:
            values[place] = msgspec.json.encode(values[place]).decode()
    return values
