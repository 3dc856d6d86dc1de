"""List batches, which are tasks that were uploaded together, counted by state."""

from __future__ import annotations

from collections import defaultdict

from safelight.db.commit.transaction import Transaction, encoded
from safelight.errors import Code, Error
from safelight.wire import Batch, BatchPage, State

_Cell = tuple[str, State, int, int, int, int]
"""For a batch and a state: the number of tasks, the first creation, the last change, the bytes of the originals."""

_ALL = 2**62


def page(transaction: Transaction, before: str | None, limit: int, name: str | None, tenant: str) -> BatchPage:
    """Return one page of a tenant's batches, or only the one with a name."""
    if before is not None and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise Error(Code.INVALID_REQUEST, "The parameter before: give `next` of the page before.", position="before")
    pairs = transaction.connection.read(
        "batch_names", list[tuple[str, int]], tenant, int(before) if before else _ALL, limit + 1, name
    )
    shown = pairs[:limit]
    found: defaultdict[str, list[_Cell]] = defaultdict(list)
    for cell in transaction.connection.read("batches", list[_Cell], tenant, encoded([pair[0] for pair in shown])):
        found[cell[0]].append(cell)
    following = str(shown[-1][1]) if len(pairs) > limit else None
    return BatchPage(batches=[_batch(batch, found[batch]) for batch, _ in shown], next=following)


def _batch(name: str, cells: list[_Cell]) -> Batch:
    return Batch(
        name=name,
        created=min(created for *_, created, _, _ in cells) / 1000,
        changed=max(changed for *_, changed, _ in cells) / 1000,
        tasks={state.name.lower(): held for _, state, held, *_ in cells},
        size=sum(size for *_, size in cells),
    )
