"""Apply changes to a draft of the entries before they are committed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import msgspec

from safelight.keyvaluestore.sqlite.file import Statement
from safelight.keyvaluestore.store import check_room
from safelight.wire import Entry


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in memory. `deadline` is monotonic, so that setting the wall clock expires no live service."""

    entry: Entry
    ttl: float | None
    deadline: float


Entries = Mapping[str, Mapping[str, Standing]]


class Draft:
    """The entries after the next commit, and the statements that bring the file to the same state."""

    def __init__(self, entries: Entries, revision: int, max_entries: int) -> None:
        self.entries: dict[str, Mapping[str, Standing]] = dict(entries)
        self.revision = revision
        self.statements: list[Statement] = []
        self.changes: list[tuple[str, Entry]] = []
        self._max_entries = max_entries

    def set(self, key: str, value: str, instance: str, ttl: float | None) -> Entry:
        """Set a value as `KeyValueStore.set` says. Raises STORAGE_FULL at the limit of entries."""
        under = self.entries.get(key, {})
        before = under.get(instance)
        gone = [other for other in under if other != instance and (not instance or not other)]
        renewal = before is not None and before.entry.value == value and not gone
        if before is None and not gone:
            check_room((name for under in self.entries.values() for name in under), instance, self._max_entries)
        if not renewal:
            self.revision += 1
        revision = before.entry.revision if renewal and before else self.revision
        expires = None if ttl is None else time.time() + ttl
        entry = Entry(key=key, value=value, instance=instance, revision=revision, expires=expires)
        deadline = math.inf if ttl is None else time.monotonic() + ttl
        kept = {name: standing for name, standing in under.items() if name not in gone}
        self.entries[key] = {**kept, instance: Standing(entry=entry, ttl=ttl, deadline=deadline)}
        self.statements += [("delete_entry", (key, name)) for name in gone]
        if not renewal or (before and before.ttl != ttl):
            self.statements.append(("set_entry", (key, instance, value, ttl, revision)))
        if not renewal:
            self.changes.append(("set", entry))
        return entry

    def delete(self, key: str, instance: str | None) -> int:
        """Delete entries as `KeyValueStore.delete` says."""
        under = self.entries.get(key, {})
        gone = [name for name in under if instance is None or name == instance]
        if gone:
            self.revision += 1
            self._remove("delete", key, gone)
        return len(gone)

    def expire(self, now: float) -> None:
        """Delete the entries whose deadline has passed."""
        for key, under in list(self.entries.items()):
            gone = [name for name, standing in under.items() if standing.deadline <= now]
            self.revision += len(gone)
            self._remove("expire", key, gone)

    def _remove(self, kind: str, key: str, gone: Sequence[str]) -> None:
        under = self.entries.get(key, {})
        self.changes += [(kind, under[name].entry) for name in gone]
        self.statements += [("delete_entry", (key, name)) for name in gone]
        kept = {name: standing for name, standing in under.items() if name not in gone}
        if kept:
            self.entries[key] = kept
        else:
            self.entries.pop(key, None)
