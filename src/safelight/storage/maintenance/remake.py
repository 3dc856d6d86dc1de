"""Remake damaged results from their photos: the same work gives the same bytes, which replace the damaged ones."""

from __future__ import annotations

import time

from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.wire import NewTask, Task, TaskQuery

_PAGE = 500
_LEAST_PRIORITY = -100
_DAY = 86400


async def make_again(db: DbClient, accounts: AccountClient, damaged: set[str]) -> int:
    """Create an internal task for each damaged result whose photo is undamaged; return the number of results."""
    wanted = set(damaged)
    made: set[str] = set()
    for tenant in await accounts.tenants():
        before: str | None = None
        while wanted - made:
            page = await db.find(TaskQuery(state="finished", before=before, limit=_PAGE), tenant=tenant.id)
            for task in page.tasks:
                lost = {output.digest for output in task.outputs} & wanted - made
                if lost and task.input is not None and task.input.digest not in damaged:
                    await db.create([await _again(db, task)])
                    made |= lost
            before = page.next
            if before is None:
                break
    return len(made)


async def _again(db: DbClient, task: Task) -> NewTask:
    recipe = await db.spec(task.id, tenant=task.tenant)
    return NewTask(
        tenant=task.tenant,
        input=task.input,
        filename=task.filename,
        media_type=task.media_type,
        recipe=task.recipe,
        recipe_digest=task.recipe_digest,
        spec=recipe.spec,
        priority=_LEAST_PRIORITY,
        internal=True,
        interactive=False,
        reuse=False,
        # The next search may come before the task is done; once a day is enough.
        idempotency_key=f"again.{task.id}.{int(time.time()) // _DAY}",
    )
