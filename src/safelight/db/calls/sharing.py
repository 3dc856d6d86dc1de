"""Share the limits of a tenant among the masters: remaining requests, and uploads in progress at each master.

This state is only in memory, like counts; on PostgreSQL the ledger passes it to the other instances. After a restart
the full limits are available again, and the masters report anew what is in progress.
"""

from __future__ import annotations

from safelight.db.commit.memory import Shares
from safelight.db.commit.transaction import Transaction
from safelight.wire.accounts import Granted, Tenant, Wanted

_FULL = 1e12
"""More requests than any limit admits at once."""
BURST = 2.0
"""Seconds' worth of requests that may arrive at once."""
HELD_FOR = 30_000
"""Milliseconds for which the uploads of a master count after its last report."""


def grant(transaction: Transaction, tenant: Tenant, wanted: Wanted) -> Granted:
    """Grant a master a part of a tenant's limits, as far as some is left."""
    now, limits = transaction.steady, tenant.limits
    shares = transaction.memory.shares.get(tenant.id) or Shares(_FULL, now, {})
    requests, retry_after, left = wanted.requests, 0.0, _FULL
    if limits.requests is not None:
        most = max(1.0, limits.requests * BURST)
        left = min(most, shares.requests + max(0, now - shares.at) / 1000 * limits.requests)
        requests = min(requests, int(left))
        left -= requests
        if requests < wanted.requests:
            retry_after = max(0.0, 1 - left) / limits.requests
    held = {
        name: each
        for name, each in shares.uploads.items()
        if now < each[1] <= now + HELD_FOR and name != wanted.master  # PostgreSQL's clock may have gone back
    }
    in_progress = sum(count for count, _ in held.values())
    uploads = wanted.uploads
    if limits.uploads is not None:
        # Uploads in progress continue, even if the limit was lowered or the master seemed gone meanwhile.
        uploads = min(uploads, max(limits.uploads - in_progress, uploads - wanted.new))
    if uploads:
        held[wanted.master] = uploads, now + HELD_FOR
    transaction.keep_shares(tenant.id, Shares(left, now, held))
    return Granted(requests=requests, retry_after=retry_after, uploads=uploads, in_progress=in_progress + uploads)
