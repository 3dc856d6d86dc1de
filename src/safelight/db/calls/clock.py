"""Store a person's confirmation that the clocks are right, for the deletion of old data."""

from __future__ import annotations

from safelight.db.commit.transaction import Transaction
from safelight.wire import ClockConfirmed

_NAME = "clock_confirmed"


def confirm(transaction: Transaction) -> ClockConfirmed:
    """Store the confirmation, and let maintenance check it at once."""
    at = transaction.now / 1000
    transaction.connection.run("set_meta", _NAME, str(at))
    transaction.schedule(transaction.steady)
    return ClockConfirmed(at=at)


def confirmed(transaction: Transaction) -> ClockConfirmed:
    """Return the last confirmation."""
    return ClockConfirmed(at=float(transaction.connection.value("meta", _NAME) or 0.0))
