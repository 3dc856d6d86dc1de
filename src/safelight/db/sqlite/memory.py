"""Read the memory of a SQLite database, at the start and after a failed transaction."""

from __future__ import annotations

import msgspec

from safelight.db.commit.memory import Memory
from safelight.db.sqlite.connection import Connection
from safelight.wire import State
from safelight.wire.accounts import Tenant


def read(connection: Connection) -> Memory:
    """Read it from the file."""
    memory = Memory()
    memory.deliveries = connection.value("count_deliveries")
    memory.last_task = connection.value("last_number", "task") or 0
    memory.last_event = connection.value("last_number", "event") or 0
    memory.removed_event = connection.value("meta", "removed_event") or 0
    memory.id = connection.value("meta", "id")
    memory.runs = msgspec.json.decode(connection.value("meta", "runs") or "[]", type=list[tuple[str, int]])
    memory.unheard = msgspec.json.decode(connection.value("meta", "unheard") or "{}", type=dict[str, list[str]])
    memory.engine = connection.value("meta", "engine") or ""
    for tenant in connection.read("tenants", list[Tenant]):
        memory.keep_tenant(tenant)
    for name, state, count in connection.read("counts", list[tuple[str, State, int]]):
        memory.of(name).counts[state] = count
        memory.counts[state] += count
    for name, delayed, held in connection.read("count_delayed", list[tuple[str, int, int]]):
        memory.count_delayed(name, delayed)
        memory.count_held(name, held)
    for name, size in connection.read("kept_bytes", list[tuple[str, int]]):
        memory.of(name).bytes = size
    return memory
