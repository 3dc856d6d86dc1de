"""When a task that failed with a transient error is tried again."""

from __future__ import annotations

import random

from safelight.db.store import Policy


def retry_delay(policy: Policy, errors: int) -> float:
    """Return the seconds until the next attempt; `errors` counts from 1.

    The delay doubles with each error up to `Policy.retry_longest`. Up to half of it is taken off at random, so that
    tasks that failed together do not come back together.
    """
    longest = min(policy.retry_longest, policy.retry_first * 2.0 ** min(errors - 1, 60))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
