"""The key-value store over HTTP: the same methods as `keyvaluestore.store.KeyValueStore`."""

from __future__ import annotations

from urllib.parse import quote

from safelight.client.base import ServiceClient
from safelight.wire import Entry, EntryPage


def _path(key: str) -> str:
    return f"/{quote(key, safe='')}"


class KeyValueStoreClient(ServiceClient):
    """Values under keys, several live instances under one key, and a watch."""

    async def get(self, key: str) -> str:
        """Return a value; with several instances under the key, each in turn. Raises NOT_FOUND."""
        return (await self._connection.call("GET", _path(key), bytes)).decode()

    async def entries(self, key: str | None = None) -> EntryPage:
        """Return every entry, or those under one key, and the store's revision."""
        path = "/" if key is None else f"{_path(key)}/instances"
        return await self._connection.call("GET", path, EntryPage, headers={"Accept": "application/json"})

    async def watch(self, after: int, *, key: str | None = None, wait: float = 30.0) -> EntryPage:
        """Return the entries as soon as the store's revision is past `after`, or after `wait` seconds as they are."""
        path = "/" if key is None else f"{_path(key)}/instances"
        return await self._connection.call(
            "GET",
            path,
            EntryPage,
            params={"after": after, "wait": wait},
            headers={"Accept": "application/json"},
            wait=wait,
        )

    async def set(self, key: str, value: str, *, instance: str = "", ttl: float | None = None) -> Entry:
        """Set a value; without an instance it replaces all that stand under the key. `ttl` in seconds."""
        body = {"value": value, "instance": instance, "ttl": ttl}
        return await self._connection.call("PUT", _path(key), Entry, json=body)

    async def delete(self, key: str, *, instance: str | None = None) -> int:
        """Delete what stands under a key, or one instance of it; return how many entries went."""
        return await self._connection.call("DELETE", _path(key), int, params={"instance": instance})
