"""The store of blobs to which the tasks of this database refer."""

from __future__ import annotations

from safelight.db.commit.transaction import Transaction
from safelight.wire import KnownStore

_NAME = "store"


def claim(transaction: Transaction, store: KnownStore) -> KnownStore:
    """Return the known store. If there is none yet, the claiming store becomes the known one."""
    known = known_store(transaction)
    return known if known.id or not store.id else accept(transaction, store)


def accept(transaction: Transaction, store: KnownStore) -> KnownStore:
    """Replace the known store."""
    transaction.connection.run("set_meta", _NAME, store.id)
    return store


def known_store(transaction: Transaction) -> KnownStore:
    """Return the known store."""
    return KnownStore(id=transaction.connection.value("meta", _NAME) or "")
