"""Take and settle webhook calls, and store their answers."""

from __future__ import annotations

from collections.abc import Mapping

from safelight.db import ids
from safelight.db.commit.transaction import Transaction, WebhookRow, encoded
from safelight.db.fairness import choose_calls
from safelight.errors import Code, Error
from safelight.wire import Delivery, Task, WebhookAnswer, WebhookCall, WebhookCallPage

KEPT = 1000
"""The number of calls to keep for each tenant."""
_TRIM_EVERY = 100
_ALL = 2**62

_Delivery = tuple[int, str, Task]
"""When a call was created, its URL and task."""
_Kept = tuple[WebhookCall, Task]


def take(transaction: Transaction, n: int, seconds: float, held: Mapping[str, int]) -> list[Delivery]:
    """Take due calls, tenant by tenant in turn. A call that is not settled within `seconds` is due again."""
    found = transaction.due_deliveries(n)
    chosen = choose_calls(found, n, held)
    if len(chosen) == len(found) < n:
        transaction.all_taken()
    if not chosen:
        return []
    due = transaction.connection.read("deliveries_by_number", list[WebhookRow], encoded(chosen))
    due.sort(key=lambda row: chosen.index(row[0]))
    tokens = ids.randoms(len(due))
    again = transaction.steady + round(seconds * 1000)
    pairs = [(row[0], token) for row, token in zip(due, tokens, strict=True)]
    transaction.connection.run("take_deliveries", encoded(pairs), again)
    transaction.schedule(again)
    return [
        Delivery(id=f"{n}-{attempt + 1}-{token}", url=url, attempt=attempt + 1, task=task)
        for (n, url, attempt, task), token in zip(due, tokens, strict=True)
    ]


def settle(
    transaction: Transaction,
    id: str,
    *,
    delivered: bool,
    retry_after: float | None,
    answer: WebhookAnswer,
) -> None:
    """End a call that was delivered or given up, or delay it, and store its answer."""
    reference = ids.parse_delivery(id)
    if reference is None:
        return
    connection = transaction.connection
    found: _Delivery | None = connection.read("delivery", _Delivery | None, *reference)  # type: ignore[arg-type]
    if found is None:
        return
    again = None
    if delivered or retry_after is None:
        transaction.memory.deliveries -= connection.run("delete_delivery", *reference)
    else:
        due = transaction.steady + round(retry_after * 1000)
        connection.run("delay_delivery", *reference, due)
        transaction.schedule(due)
        again = transaction.now / 1000 + retry_after
    created, url, task = found
    call = WebhookCall(
        id=str(reference.n),
        task=task.id,
        filename=task.filename,
        url=url,
        created=created / 1000,
        at=transaction.now / 1000,
        attempt=reference.attempt,
        outcome="delivered" if delivered else "given_up" if again is None else "failed",
        answer=answer,
        again=again,
    )
    connection.run("keep_webhook_call", reference.n, task.tenant, transaction.now, encoded(call), encoded(task))
    if reference.n % _TRIM_EVERY == 0:
        connection.run("trim_webhook_calls", task.tenant, KEPT)


def calls(
    transaction: Transaction, before: str | None, limit: int, outcome: str | None, tenant: str
) -> WebhookCallPage:
    """Return one page of a tenant's calls, newest first."""
    below = _ALL if before is None else _number(before)
    if below is None:
        raise Error(Code.INVALID_REQUEST, "The parameter before: give `next` of the page before.", position="before")
    found = transaction.connection.read("webhook_calls", list[WebhookCall], tenant, below, limit + 1, outcome)
    shown = found[:limit]
    return WebhookCallPage(calls=shown, next=shown[-1].id if len(found) > limit else None)


def resend(transaction: Transaction, id: str, tenant: str) -> WebhookCall:
    """Make a call again: at once if it waits for its next attempt, otherwise as a new call. Raises NOT_FOUND."""
    connection, n = transaction.connection, _number(id)
    found: _Kept | None = None
    if n is not None:
        found = connection.read("webhook_call", _Kept | None, n, tenant)  # type: ignore[arg-type]
    if found is None:
        raise Error(Code.NOT_FOUND, "There is no such webhook call; calls are kept for a while.")
    call, task = found
    # A call that was to be repeated may have been deleted meanwhile, as old ones are.
    if call.outcome == "failed" and connection.read("deliveries_by_number", list[WebhookRow], encoded([n])):
        connection.run("hasten_delivery", n, transaction.steady)
    else:
        connection.run("insert_delivery", transaction.now, transaction.steady, call.url, encoded(task), tenant)
        transaction.memory.deliveries += 1
    transaction.schedule(transaction.steady)
    transaction.webhooks = True
    return call


def _number(id: str) -> int | None:
    return int(id) if id.isascii() and id.isdigit() and len(id) < 19 else None
