"""Leases: what workers ask for, receive and settle."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from safelight.wire.records import DEFAULT_TENANT, Blob, Record, Seconds
from safelight.wire.tasks import Failure, Output, State

MOST_LEASES = 1000
"""The most leases that one request may ask for."""

Engine = Annotated[str, Meta(max_length=500)]


class WorkerInfo(Record, frozen=True, kw_only=True):
    """A worker as it describes itself. `id` is different at each start; `name` is what people call it, if anything."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    name: Annotated[str, Meta(max_length=64)] = ""
    host: Annotated[str, Meta(max_length=255)] = ""
    engine: Engine = ""
    slots: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    busy: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    isolation: Annotated[str, Meta(max_length=64)] = ""


class WorkerSeen(Record, frozen=True, kw_only=True):
    """A worker as db has seen it. `holding` is the number of its leases.

    `draining` says since when it takes no more leases (Unix seconds), 0 if it takes some. It is drained once it holds
    none.
    """

    worker: WorkerInfo
    first_seen: float
    last_seen: float
    holding: int = 0
    draining: float = 0.0


class LeaseRequest(Record, frozen=True, kw_only=True):
    """Ask for up to `n` leases, waiting up to `wait` seconds for the first.

    `holding` names every lease that the worker knows of. Any other lease that db has granted to this worker was lost on
    the way: its task returns to the queue at once, which does not count as a death. A worker therefore has only one
    such request open at a time. With `n` 0 it takes no leases and only reports the ones that it holds, as a successor
    does for a worker that died; deaths are then not taken back.
    """

    worker: WorkerInfo
    n: Annotated[int, Meta(ge=0, le=MOST_LEASES)] = 1
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
    traceparent: str | None = None
    """The span that created the task, if it is traced."""


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
    outputs: Annotated[list[Output], Meta(max_length=64)] = []
    engine: Engine = ""
    seconds: Seconds = 0.0


class Failed(Record, frozen=True, kw_only=True, tag="failed", tag_field="kind"):
    """The attempt ended with an error: a `permanent` one fails the task, others are retried up to a limit."""

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
