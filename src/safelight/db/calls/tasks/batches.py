"""List batches, which are tasks that were uploaded together, counted by state.

One page counts a limited number of tasks, so that no request blocks the database for long.
"""

from __future__ import annotations

from collections import defaultdict

from safelight.db.calls.tasks.searching import last_examined
from safelight.db.commit.transaction import Transaction, encoded
from safelight.db.store import SEARCHED
from safelight.errors import Code, Error
from safelight.wire import Batch, BatchPage, State

_Cell = tuple[str, State, int, int, int, int]
"""For a batch and a state: the number of tasks, the first creation, the last change, the bytes of the originals."""

_ALL = 2**62


def page(transaction: Transaction, before: str | None, limit: int, name: str | None, tenant: str) -> BatchPage:
    """Return one page of a tenant's batches, or only the one with a name."""
    if name is not None:
        return BatchPage(batches=_counted(transaction, tenant, [name]))
    if before is not None and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise Error(Code.INVALID_REQUEST, "The parameter before: give `next` of the page before.", position="before")
    found = transaction.connection.read(
        "batch_names", list[tuple[str, int, int]], tenant, int(before) if before else _ALL, limit + 1
    )
    shown = _fitting([held for *_, held in found[:limit]])
    following = str(found[shown - 1][1]) if shown < len(found) else None
    return BatchPage(batches=_counted(transaction, tenant, [each for each, *_ in found[:shown]]), next=following)


def _fitting(held: list[int]) -> int:
    """Return how many of the first batches one page counts. A batch with too many tasks is alone on its page."""
    room = SEARCHED
    for place, tasks in enumerate(held):
        if place and tasks > room:
            return place
        room -= tasks
    return len(held)


def _counted(transaction: Transaction, tenant: str, names: list[str]) -> list[Batch]:
    """Return batches in the order of their names, without those that have no tasks."""
    first, more = 0, None
    if len(names) == 1:
        first, more = last_examined(transaction, tenant, _ALL, SEARCHED, "_by_batch", names)
    found: defaultdict[str, list[_Cell]] = defaultdict(list)
    for cell in transaction.connection.read("batches", list[_Cell], tenant, encoded(names), first):
        found[cell[0]].append(cell)
    return [_batch(name, found[name], complete=more is None) for name in names if name in found]


def _batch(name: str, cells: list[_Cell], *, complete: bool) -> Batch:
    return Batch(
        name=name,
        created=min(created for *_, created, _, _ in cells) / 1000,
        changed=max(changed for *_, changed, _ in cells) / 1000,
        tasks={state.name.lower(): held for _, state, held, *_ in cells},
        size=sum(size for *_, size in cells),
        complete=complete,
    )
