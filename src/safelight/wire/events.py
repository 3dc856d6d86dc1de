"""Events, and what db stores besides tasks: summaries, references to blobs, recipes, webhook calls."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from safelight.wire.leases import WorkerSeen
from safelight.wire.records import DEFAULT_TENANT, Record, TenantId
from safelight.wire.tasks import Failure, State, Task

NONE_HELD: Mapping[str, int] = MappingProxyType({})
"""The `held` of `DbClient.deliveries` if no calls are in progress."""


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
    """Its id; tenants other than `default` see only the random end of it, without the name of the machine."""
    kind: str = ""
    """created, ready, leased, finished, failed, delayed, expired, excused, died, returned, cancelled, retried,
    released, deleted. `excused`: the worker of an expired lease came back, so its death does not count."""
    failure: Failure | None = None
    seconds: float = 0.0


class EventPage(Record, frozen=True, kw_only=True):
    """Events after a number. `last` is the `after` of the next page; it grows even when no event matched.

    `oldest` is the smallest `after` with no missing events. A reader that is further behind has missed events that
    retention removed, and must read the tasks again.

    `db` identifies the database and its current run; send it as `known` with the next `after`.
    `restored` says that an older copy of the database has been restored meanwhile, so events that the reader has seen
    may be undone: it must read the tasks again, and continue after `last`.
    """

    events: list[Event]
    last: int
    oldest: int = 0
    db: str = ""
    restored: bool = False


class Summary(Record, frozen=True, kw_only=True):
    """The queue at one moment. Of the waiting tasks, `delayed` wait to be retried, and `available` can begin now: these
    are neither delayed nor paused. `oldest_waiting` is the age in seconds of the oldest of those.

    `webhooks_due` counts the webhook calls of all tenants that are not settled; only the tenant `default` sees it and
    `workers`, and `workers_hidden` tells others so. `paused` says since when the tenant's queue is paused (Unix
    seconds), 0 if it is not; `paused_recipes` says the same for single recipes. `bytes` counts an original or a result
    once for every task that has it.
    """

    tasks: dict[str, int]
    delayed: int = 0
    available: int = 0
    oldest_waiting: float = 0.0
    seq: int = 0
    workers: list[WorkerSeen] = []
    workers_hidden: bool = False
    webhooks_due: int = 0
    paused: float = 0.0
    paused_recipes: dict[str, float] = {}
    bytes: int = 0


class Reference(Record, frozen=True, kw_only=True):
    """The blobs and names that one page of tasks refers to in storage. `db` identifies the database."""

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


class SavedRecipe(Record, frozen=True, kw_only=True):
    """A saved recipe in a list: its name, when it was changed, and the bytes of its JSON."""

    name: str
    changed: float
    size: int


class Delivery(Record, frozen=True, kw_only=True):
    """One webhook call that is due: `id` is the fencing token, `attempt` counts from 1."""

    id: str
    url: str
    attempt: int
    task: Task


class WebhookAnswer(Record, frozen=True, kw_only=True):
    """The answer of a webhook: the status, or None without an answer, and the beginning of its body or an error."""

    status: int | None = None
    detail: Annotated[str, Meta(max_length=1000)] = ""
    seconds: float = 0.0


NO_ANSWER = WebhookAnswer()


class WebhookCall(Record, frozen=True, kw_only=True):
    """A webhook call after its latest attempt. The newest 1,000 of each tenant are kept, as long as events are.

    `outcome` is `delivered`, `failed` (to be repeated at `again`, Unix seconds) or `given_up`.
    """

    id: str
    task: str
    filename: str = ""
    url: str
    created: float
    at: float
    attempt: int
    outcome: Literal["delivered", "failed", "given_up"]
    answer: WebhookAnswer
    again: float | None = None


class WebhookCallPage(Record, frozen=True, kw_only=True):
    """Webhook calls, newest first. `next` is the `before` of the next page."""

    calls: list[WebhookCall]
    next: str | None = None
