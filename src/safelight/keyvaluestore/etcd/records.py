"""The format of entries in etcd.

    <prefix><key> NUL <instance>      the value with its time to live, attached to a lease if it has one

Keys and instances are printable, so NUL separates them and no key is a prefix of another one.
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from typing import Any

import msgspec

from safelight.wire import Entry, Record, encode


class Kept(Record, frozen=True, kw_only=True):
    """The content of an entry's key. `ttl` is in seconds.

    `revision` is 0, or the revision at which the value was set if the key has been written again since. A renewal with
    a different time to live writes the key again, because etcd cannot change the duration of a lease.
    """

    value: str
    ttl: float | None = None
    revision: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in etcd, with the revision of its last write and its lease (0: none)."""

    entry: Entry
    ttl: float | None
    written: int
    lease: int

    def shown(self) -> Entry:
        """Return the entry. If it has outlived the expiry that this instance knows, another instance has renewed it."""
        if self.ttl is None or self.entry.expires is None or self.entry.expires > time.time():
            return self.entry
        return msgspec.structs.replace(self.entry, expires=time.time() + self.ttl)


class Names:
    """Keys and ranges below one prefix, in the gateway's encoding."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()

    def entry(self, key: str, instance: str) -> str:
        """Return the key of an entry."""
        return _text(self._raw(key) + instance.encode())

    def all_of(self, key: str) -> dict[str, str]:
        """Return the range of every entry of a key."""
        return {"key": _text(self._raw(key)), "range_end": _text(self._raw(key)[:-1] + b"\x01")}

    def others_of(self, key: str) -> dict[str, str]:
        """Return the range of the entries of a key that have an instance."""
        return {"key": _text(self._raw(key) + b"\0"), "range_end": _text(self._raw(key)[:-1] + b"\x01")}

    def everything(self) -> dict[str, str]:
        """Return the range of every entry."""
        last = self._prefix[:-1] + bytes([self._prefix[-1] + 1])
        return {"key": _text(self._prefix), "range_end": _text(last)}

    def parse(self, raw: str) -> tuple[str, str]:
        """Return the key and the instance."""
        key, _, instance = b64decode(raw).removeprefix(self._prefix).decode().partition("\0")
        return key, instance

    def standing(self, found: dict[str, Any], expires: float | None = None) -> Standing:
        """Read what etcd returns for a key."""
        key, instance = self.parse(found["key"])
        kept = msgspec.json.decode(b64decode(found.get("value", "")), type=Kept)
        written = int(found["mod_revision"])
        if kept.ttl is not None and expires is None:
            expires = time.time() + kept.ttl
        entry = Entry(key=key, value=kept.value, instance=instance, revision=kept.revision or written, expires=expires)
        return Standing(entry=entry, ttl=kept.ttl, written=written, lease=int(found.get("lease", 0)))

    def _raw(self, key: str) -> bytes:
        return self._prefix + key.encode() + b"\0"


def content(kept: Kept) -> str:
    """Return the content of an entry's key."""
    return _text(encode(kept))


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()
