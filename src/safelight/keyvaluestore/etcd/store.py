"""A key-value store on an etcd cluster.

Each instance follows etcd by a watch and holds all entries in memory. A write returns once it has come back through the
watch, and a read first asks etcd whether memory is up to date, so all instances give the same answers. While etcd does
not answer, reads return the last known entries, so services keep finding one another.

Revisions are those of etcd. A renewal keeps a lease alive, which does not change etcd's revision. A renewal with a
different time to live writes the key again, which this store does not count as a change.

Requests that change entries are conditional on what was read before, so that they are safe to repeat: a member that did
not answer in time may have made the change, or may still make it after somebody else has changed the entry.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from safelight.client.availability.reachability import LIMIT
from safelight.errors import Code, Error
from safelight.keyvaluestore.etcd.gateway import Gateway
from safelight.keyvaluestore.etcd.records import Kept, Names, Standing, content
from safelight.keyvaluestore.store import check_entry, check_room, shown
from safelight.wire import Entry, EntryPage

log = logging.getLogger(__name__)

_AGAIN = 1.0
_SAID_AGAIN = 10.0
_READ = 3.0
"""Seconds after which a read returns the known entries because no member has answered."""

_CAUGHT_UP = 5.0
"""Seconds for which a call waits for the watch to deliver a change that etcd has confirmed."""

Standings = Mapping[tuple[str, str], Standing]


class EtcdStore:
    """A `KeyValueStore` on an etcd cluster that any number of instances use."""

    def __init__(self, gateway: Gateway, prefix: str, max_entries: int) -> None:
        self._gateway = gateway
        self._names = Names(prefix)
        self._max_entries = max_entries
        self._standings: Standings = {}
        self._revision = -1
        self._seen = -1
        """The revision up to which etcd's changes have arrived, including those that do not count."""
        self._turn = itertools.count()
        self._changed = asyncio.Event()
        self._stopping = False
        self._count_change: Callable[[str], None] = lambda _kind: None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        gateway: Gateway,
        *,
        prefix: str = "/safelight/",
        max_entries: int = 10_000,
        registry: CollectorRegistry | None = None,
    ) -> AsyncIterator[EtcdStore]:
        """Follow the entries below a prefix until the context ends. It waits until a member answers.

        Raises INTERNAL if the cluster refuses the user.
        """
        store = cls(gateway, prefix, max_entries)
        if registry is not None:
            store._measure(registry)
        await store._first_load()
        following = asyncio.create_task(store._follow(), name="etcd")
        try:
            yield store
        finally:
            store.wake()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def get(self, key: str) -> str:
        """Return a value; see the contract."""
        found = (await self.entries(key)).entries
        if not found:
            raise Error(Code.NOT_FOUND, "Key not found")
        return found[next(self._turn) % len(found)].value

    async def entries(self, key: str | None = None) -> EntryPage:
        """Return the live entries; see the contract."""
        try:
            await self._catch_up()
        except Error as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            log.debug("Answering with the last known entries: %s", error.detail)
        return self._page(key)

    async def set(self, key: str, value: str, *, instance: str = "", ttl: float | None = None) -> Entry:
        """Set a value; see the contract. etcd counts times to live in seconds, at least about two."""
        check_entry(key, value, instance, ttl)
        while True:
            answer = await self._gateway.call("kv/range", self._names.all_of(key))
            found = [self._names.standing(one) for one in answer.get("kvs", [])]
            under = {one.entry.instance: one for one in found}
            gone = [other for other in under if other != instance and (not instance or not other)]
            before = under.get(instance)
            if before is not None and before.entry.value == value and not gone:
                entry = await self._renew(before, ttl)
            else:
                if before is None and not gone:
                    check_room((name for _, name in self._standings), instance, self._max_entries)
                written = 0 if before is None else before.written
                entry = await self._write(key, Kept(value=value, ttl=ttl), instance, after=written)
            if entry is not None:
                return entry

    async def delete(self, key: str, *, instance: str | None = None) -> int:
        """Delete entries; see the contract."""
        which = self._names.all_of(key) if instance is None else {"key": self._names.entry(key, instance)}
        while True:
            answer = await self._gateway.call("kv/range", {**which, "keys_only": True})
            found = len(answer.get("kvs", []))
            if not found:
                return 0
            unchanged = {**which, "target": "MOD", "result": "LESS", "mod_revision": str(_revision(answer) + 1)}
            steps = [{"request_delete_range": which}]
            answer = await self._gateway.call("kv/txn", {"compare": [unchanged], "success": steps})
            if answer.get("succeeded"):
                await self._until_seen(_revision(answer))
                return found

    async def watch(self, after: int, *, key: str | None = None, wait: float = 30.0) -> EntryPage:
        """Wait for a change; see the contract."""
        try:
            async with asyncio.timeout(wait):
                while self._revision == after and not self._stopping:
                    await self._changed.wait()
        except TimeoutError:
            pass  # the page shows that nothing has changed
        return self._page(key)

    def wake(self) -> None:
        """End every watch now; see the contract."""
        self._stopping = True
        self._changed.set()

    async def check(self) -> None:
        """Check that the cluster answers, which needs a majority of its members. Raises UNAVAILABLE."""
        await self._gateway.call("kv/range", {**self._names.everything(), "count_only": True}, within=LIMIT)

    def _page(self, key: str | None) -> EntryPage:
        found = [self._standings[name].shown() for name in sorted(self._standings) if key in (None, name[0])]
        return EntryPage(entries=found, revision=self._revision)

    def _measure(self, registry: CollectorRegistry) -> None:
        gauge = Gauge("safelight_keyvaluestore_entries", "Entries in the store", registry=registry)
        gauge.set_function(lambda: len(self._standings))
        changes = Counter("safelight_keyvaluestore_changes", "Entries changed", ["kind"], registry=registry)
        self._count_change = lambda kind: changes.labels(kind).inc()

    async def _renew(self, before: Standing, ttl: float | None) -> Entry | None:
        """Renew an entry; return None if it has changed meanwhile."""
        name = (before.entry.key, before.entry.instance)
        if ttl == before.ttl:
            if ttl is None:
                return before.entry
            answer = await self._gateway.call("lease/keepalive", {"ID": str(before.lease)})
            if not int(answer.get("TTL", 0)):
                return None if await self._is_gone(name) else await self._write_again(before, ttl)
            entry = msgspec.structs.replace(before.entry, expires=time.time() + int(answer["TTL"]))
            if (known := self._standings.get(name)) is not None and known.written == before.written:
                self._standings = {**self._standings, name: msgspec.structs.replace(known, entry=entry)}
            return entry
        return await self._write_again(before, ttl)

    async def _is_gone(self, name: tuple[str, str]) -> bool:
        answer = await self._gateway.call("kv/range", {"key": self._names.entry(*name)})
        return not answer.get("kvs")

    async def _write_again(self, before: Standing, ttl: float | None) -> Entry | None:
        """Attach an entry to a lease of a different duration, unless it has changed meanwhile."""
        entry = before.entry
        kept = Kept(value=entry.value, ttl=ttl, revision=entry.revision)
        return await self._write(entry.key, kept, entry.instance, after=before.written)

    async def _write(self, key: str, kept: Kept, instance: str, *, after: int) -> Entry | None:
        """Write an entry and delete those that it replaces; return None if its last write is not the one at `after`."""
        name = self._names.entry(key, instance)
        unchanged = {"key": name, "target": "MOD", "result": "EQUAL", "mod_revision": str(after)}
        put: dict[str, str] = {"key": name, "value": content(kept)}
        expires = None
        if kept.ttl is not None:
            lease = await self._gateway.call("lease/grant", {"TTL": str(max(1, math.ceil(kept.ttl)))})
            put["lease"] = lease["ID"]
            expires = time.time() + int(lease["TTL"])
        replaced = {"key": self._names.entry(key, "")} if instance else self._names.others_of(key)
        steps = [{"request_delete_range": replaced}, {"request_put": put}]
        answer = await self._gateway.call("kv/txn", {"compare": [unchanged], "success": steps})
        if not answer.get("succeeded"):
            return None
        revision = _revision(answer)
        await self._until_seen(revision)
        return Entry(key=key, value=kept.value, instance=instance, revision=kept.revision or revision, expires=expires)

    async def _catch_up(self) -> None:
        """Wait until memory is as recent as etcd is now. Raises UNAVAILABLE if etcd does not answer."""
        answer = await self._gateway.call("kv/range", {**self._names.everything(), "keys_only": True}, within=_READ)
        current = {self._names.parse(one["key"]): int(one["mod_revision"]) for one in answer.get("kvs", [])}
        at = _revision(answer)
        try:
            async with asyncio.timeout(_CAUGHT_UP):
                while self._seen < at and current != {name: one.written for name, one in self._standings.items()}:
                    await self._changed.wait()
        except TimeoutError:
            raise Error(Code.UNAVAILABLE, "The watch of etcd is behind.", retry_after=1) from None

    async def _until_seen(self, revision: int) -> None:
        try:
            async with asyncio.timeout(_CAUGHT_UP):
                while self._seen < revision and not self._stopping:
                    await self._changed.wait()
        except TimeoutError:
            log.debug("The watch of etcd is behind")

    async def _first_load(self) -> None:
        said = -math.inf
        while True:
            try:
                return await self._load()
            except Error as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
                if time.monotonic() - said > _SAID_AGAIN:
                    log.warning("Waiting for etcd: %s", error.detail)
                    said = time.monotonic()
            await asyncio.sleep(_AGAIN)

    async def _load(self) -> None:
        """Read everything, and apply the differences as if they had arrived through the watch.

        A cluster that was set up again, or restored, has a lower revision than before: everything may be different.
        """
        answer = await self._gateway.call("kv/range", self._names.everything())
        new = {self._names.parse(one["key"]): self._names.standing(one) for one in answer.get("kvs", [])}
        first, revision = self._revision < 0, _revision(answer)
        again = revision < self._seen
        if again:
            log.warning("etcd was set up again or restored: its revision is %d after %d", revision, self._seen)
            self._seen, self._standings = revision, {}
        same = {name: one.entry.revision for name, one in new.items()} == {
            name: one.entry.revision for name, one in self._standings.items()
        }
        kept = {name: self._standings[name] for name in new if name in self._standings and self._is_known(new[name])}
        self._publish({**new, **kept}, revision, counts=first or again or not same)

    async def _follow(self) -> None:
        """Follow etcd; whenever a watch ends for any reason, read everything and start the next one."""
        said, lost = -math.inf, False
        while True:
            began = time.monotonic()
            try:
                if lost:
                    await self._load()  # another history would not have the revision from which to follow
                    lost = False
                request = {**self._names.everything(), "start_revision": str(self._seen + 1)}
                async for answer in self._gateway.watch(request):
                    if answer.get("canceled"):  # its first revision may have been compacted
                        break
                    self._apply(answer)
                await self._load()
                if time.monotonic() - began < _AGAIN:
                    await asyncio.sleep(_AGAIN / 10)
            except Error as error:
                if time.monotonic() - said > _SAID_AGAIN:
                    log.warning("etcd cannot be followed: %s", error.detail)
                    said = time.monotonic()
                lost = True
                await asyncio.sleep(_AGAIN)
            except Exception:
                log.exception("Unexpected error in following etcd")
                await asyncio.sleep(_AGAIN)

    def _apply(self, answer: dict[str, Any]) -> None:
        standings, counts, revision = dict(self._standings), False, self._seen
        for event in answer.get("events", []):
            found = event["kv"]
            name, revision = self._names.parse(found["key"]), int(found["mod_revision"])
            before = standings.get(name)
            if event.get("type") == "DELETE":
                standings.pop(name, None)
                counts = True
                if before is not None:
                    self._note("delete", before.entry)
                continue
            standings[name] = self._names.standing(found)
            if before is None or standings[name].entry.revision != before.entry.revision:
                counts = True
                self._note("set", standings[name].entry)
        if revision > self._seen:
            self._publish(standings, revision, counts=counts)

    def _publish(self, standings: Standings, revision: int, *, counts: bool) -> None:
        self._standings, self._seen = standings, max(revision, self._seen)
        if counts:
            self._revision = self._seen
        if not self._stopping:
            self._changed.set()
            self._changed = asyncio.Event()

    def _is_known(self, found: Standing) -> bool:
        return self._standings[found.entry.key, found.entry.instance].written == found.written

    def _note(self, kind: str, entry: Entry) -> None:
        log.info("%s%s", shown(entry), " deleted" if kind == "delete" else "")
        self._count_change(kind)


def _revision(answer: dict[str, Any]) -> int:
    return int(answer["header"]["revision"])
