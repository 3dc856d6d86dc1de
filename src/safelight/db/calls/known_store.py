"""The store of blobs to which the tasks of this database refer."""

from __future__ import annotations

from safelight.db.commit.transaction import Transaction
from safelight.wire import KnownStore, StoreClaim

_NAME = "store"


def claim(transaction: Transaction, store: StoreClaim) -> StoreClaim:
    """Return the known store. If there is none, the claiming one becomes it, unless another database knows that one."""
    found = known(transaction)
    if found.id or not store.id or store.db not in ("", found.db):
        return found
    return StoreClaim(id=accept(transaction, KnownStore(id=store.id)).id, db=found.db)


def accept(transaction: Transaction, store: KnownStore) -> KnownStore:
    """Replace the known store."""
    transaction.connection.run("set_meta", _NAME, store.id)
    return store


def known(transaction: Transaction) -> StoreClaim:
    """Return the known store and the id of this database."""
    return StoreClaim(id=transaction.connection.value("meta", _NAME) or "", db=transaction.memory.id)
