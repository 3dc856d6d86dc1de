"""Take and settle webhook calls."""

from __future__ import annotations

from safelight.db import ids
from safelight.db.calls.transaction import Transaction, encoded
from safelight.wire import Delivery


def take(transaction: Transaction, n: int, seconds: float) -> list[Delivery]:
    """Take calls that are due. Each is due again if it is not settled within `seconds`."""
    due = transaction.due_deliveries(n)
    if not due:
        return []
    tokens = ids.randoms(len(due))
    again = transaction.steady + round(seconds * 1000)
    pairs = [(row[0], token) for row, token in zip(due, tokens, strict=True)]
    transaction.connection.run("take_deliveries", encoded(pairs), again)
    transaction.schedule(again)
    return [
        Delivery(id=f"{n}-{attempt + 1}-{token}", url=url, attempt=attempt + 1, task=task)
        for (n, url, attempt, task), token in zip(due, tokens, strict=True)
    ]


def settle(transaction: Transaction, id: str, *, delivered: bool, retry_after: float | None) -> None:
    """End a call that was delivered or given up, or delay it."""
    reference = ids.parse_delivery(id)
    if reference is None:
        return
    if delivered or retry_after is None:
        transaction.memory.deliveries -= transaction.connection.run("delete_delivery", *reference)
    else:
        due = transaction.steady + round(retry_after * 1000)
        transaction.connection.run("delay_delivery", *reference, due)
        transaction.schedule(due)
