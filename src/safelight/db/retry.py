"""Compute when to retry a task after a transient error."""

from __future__ import annotations

import random

from safelight.db.store import Policy


def retry_delay(policy: Policy, errors: int) -> float:
    """Return the seconds until the next attempt; `errors` counts from 1.

    The delay doubles with each error up to `Policy.retry_longest`. It is reduced by a random part, up to half, so that
    tasks that failed together are not retried together.
    """
    longest = min(policy.retry_longest, policy.retry_first * 2.0 ** min(errors - 1, 60))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
