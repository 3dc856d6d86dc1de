"""Cancel, retry, release or delete many tasks at once."""

from __future__ import annotations

from collections.abc import Callable

from safelight.db import lifecycle
from safelight.db.calls.tasks.searching import found
from safelight.db.commit.transaction import Transaction
from safelight.db.lifecycle import Change
from safelight.db.rows import TaskRow
from safelight.errors import Code, Error
from safelight.wire import TaskChange, TaskChanges

_RULES: dict[str, Callable[[TaskRow], Change | None]] = {
    "cancel": lifecycle.cancelled,
    "retry": lifecycle.retried,
    "release": lifecycle.released,
    "delete": lambda row: Change(kind="deleted", old=row),
}


def change(transaction: Transaction, change: TaskChange, tenant: str) -> TaskChanges:
    """Change the named tasks, or one page of those that match."""
    if (change.tasks is None) == (change.filter is None):
        raise Error(Code.INVALID_REQUEST, "Name either tasks or a filter.", position="$.tasks")
    following: str | None = None
    if change.filter is not None:
        rows, following = found(transaction, change.filter.page(before=change.before, limit=change.limit), tenant)
        missing = 0
    else:
        rows = _named(transaction, change.tasks or [], tenant)
        missing = len(set(change.tasks or [])) - len(rows)
    changes = [made for row in rows if (made := _allowed(_RULES[change.action], row)) is not None]
    transaction.apply(changes)
    return TaskChanges(changed=len(changes), skipped=len(rows) - len(changes) + missing, next=following)


def _named(transaction: Transaction, wanted: list[str], tenant: str) -> list[TaskRow]:
    rows: dict[int, TaskRow] = {}  # the id of a lease also names a task
    for each in wanted:
        try:
            row = transaction.task(each, tenant)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
        else:
            rows[row.n] = row
    return list(rows.values())


def _allowed(rule: Callable[[TaskRow], Change | None], row: TaskRow) -> Change | None:
    try:
        return rule(row)
    except Error as error:
        if error.code is not Code.CONFLICT:
            raise
        return None
