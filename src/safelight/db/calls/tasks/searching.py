"""List, search and count tasks.

Searches without an index examine a limited number of tasks at a time, so that no request blocks the database for long.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from heapq import merge
from itertools import islice

from safelight.db import ids
from safelight.db.commit.transaction import Transaction, encoded
from safelight.db.rows import TaskRow
from safelight.db.store import SEARCHED
from safelight.errors import Code, Error
from safelight.wire import State, TaskCounts, TaskFilter, TaskPage, TaskQuery

_Cell = tuple[State, str, str | None, int]
"""A state, a recipe, the code of a failure, and the number of tasks that have them."""

_ALL = 2**62


def find(transaction: Transaction, query: TaskQuery, tenant: str) -> TaskPage:
    """Return one page of tasks, newest first."""
    rows, following = found(transaction, query, tenant)
    return TaskPage(tasks=[transaction.record(row) for row in rows], next=following)


def found(transaction: Transaction, query: TaskQuery, tenant: str) -> tuple[list[TaskRow], str | None]:
    """Return the rows of one page, and the id below which the next page begins."""
    reference = ids.parse(query.before) if query.before is not None else None
    if query.before is not None and reference is None:
        raise Error(Code.INVALID_REQUEST, "The parameter before: give the id of a task.", position="before")
    below = reference.n if reference else _ALL
    if any(value is not None for value in (query.search, query.reason, query.since, query.until)):
        return search(transaction, query, tenant, below)
    return _find(transaction, query, tenant, below)


def _find(transaction: Transaction, query: TaskQuery, tenant: str, below: int) -> tuple[list[TaskRow], str | None]:
    """Find tasks by an index. Limit those that it looks at if another filter may leave out many of them."""
    states, recipe = sorted(set(query.states)), query.recipe
    keys: list[list[object]] = [[]]
    others: list[object] = []
    if query.batch:
        by, keys, others = "_by_batch", [[query.batch]], [recipe, encoded(states) if states else None]
    elif states:
        by, keys, others = "_by_state", [[state] for state in states], [recipe]
    elif recipe is not None:
        by, keys = "_by_recipe", [[recipe]]
    else:
        by = ""
    lowest, following = 0, None
    if query.internal or any(value is not None for value in others):
        places = [last_examined(transaction, tenant, below, SEARCHED // len(keys), by, key) for key in keys]
        lowest, following = max(places, key=lambda place: place[0])
    page = tenant, below, query.limit + 1, int(query.internal), lowest
    each = (transaction.tasks(f"find{by}", *page, *key, *others) for key in keys)
    rows = list(islice(merge(*each, key=lambda row: row.n, reverse=True), query.limit + 1))
    return _page(rows, query.limit, following)


def _page(rows: list[TaskRow], limit: int, following: str | None) -> tuple[list[TaskRow], str | None]:
    """Return the rows of a page, of which one more was read if there is one, and the id below which the next begins."""
    return (rows[:limit], rows[limit - 1].id) if len(rows) > limit else (rows, following)


def search(transaction: Transaction, query: TaskQuery, tenant: str, below: int) -> tuple[list[TaskRow], str | None]:
    """Return the rows of one page, and the id below which the next page begins."""
    lowest, lowest_id = last_examined(transaction, tenant, below, SEARCHED)
    states = encoded(sorted(set(query.states))) if query.states else None
    values = (below, lowest, int(query.internal), *_conditions(query), states, query.recipe, query.reason)
    rows = transaction.tasks("search", *values, query.limit + 1, tenant, _pattern(transaction, _searched(query)))
    return _page(rows, query.limit, lowest_id)


def count(transaction: Transaction, filter: TaskFilter, tenant: str) -> TaskCounts:
    """Count the tasks that match, and those that would match without the state, recipe or reason."""
    lowest, more = last_examined(transaction, tenant, _ALL, SEARCHED)
    values = (
        _ALL,
        lowest,
        int(filter.internal),
        *_conditions(filter),
        tenant,
        _pattern(transaction, _searched(filter)),
    )
    cells = transaction.connection.read("count_matching", list[_Cell], *values)
    wanted = set(filter.states)
    total = 0
    states, recipes, reasons = Counter[str](), Counter[str](), Counter[str]()
    for state, recipe, reason, held in cells:
        in_state = not wanted or state in wanted
        in_recipe = filter.recipe in (None, recipe)
        in_reason = filter.reason in (None, reason)
        if in_recipe and in_reason:
            states[state.name.lower()] += held
        if in_state and in_reason:
            recipes[recipe] += held
        if in_state and in_recipe and reason is not None:
            reasons[reason] += held
        if in_state and in_recipe and in_reason:
            total += held
    return TaskCounts(
        total=total, states=dict(states), recipes=dict(recipes), reasons=dict(reasons), complete=more is None
    )


def last_examined(
    transaction: Transaction, tenant: str, below: int, most: int, by: str = "", key: Sequence[object] = ()
) -> tuple[int, str | None]:
    """Return the number of the last task to examine, and its id if there are more beyond it.

    These are the tasks that an index, `by`, has under a key.
    """
    places = transaction.connection.read(f"searched_to{by}", list[tuple[int, str]], tenant, below, most, *key)
    return (places[0][0], f"{places[0][0]}-{places[0][1]}") if places else (0, None)


def _conditions(filter: TaskFilter) -> tuple[object, ...]:
    since, until = ((None if at is None else round(at * 1000)) for at in (filter.since, filter.until))
    text = _searched(filter)
    return filter.batch, text.lower() if text else None, since, until


def _searched(filter: TaskFilter) -> str | None:
    """Return the text to search for in NFC, as names are kept; one that was copied from macOS may be decomposed."""
    return unicodedata.normalize("NFC", filter.search) if filter.search else None


def _pattern(transaction: Transaction, text: str | None) -> str | None:
    """Return a pattern that matches a text in either case, or None for ASCII, whose case every database knows.

    SQLite knows no other, and PostgreSQL what its locale knows. To call Python for each name would cost seconds.
    """
    if not text or text.isascii():
        return None
    cases = [sorted({case for case in (letter, letter.lower(), letter.upper()) if len(case) == 1}) for letter in text]
    return "".join(f"[{''.join(each)}]" if len(each) > 1 else transaction.quoted(each[0]) for each in cases)
