"""The key-value store over HTTP, with the methods of `keyvaluestore.store.KeyValueStore`."""

from __future__ import annotations

from urllib.parse import quote

from safelight.client.base import ServiceClient
from safelight.errors import Code, Error
from safelight.wire import Entry, EntryPage


def _path(key: str) -> str:
    return f"/{quote(key, safe='')}"


class ClassicStoreClient(ServiceClient):
    """A key-value store that speaks only the classic protocol: `GET` and `POST` of a key."""

    async def is_classic(self) -> bool:
        """Return whether the store is one: it has no health check, and answers that there is no such key."""
        try:
            await self._connection.call("GET", "/healthz", bytes, retry=False)
        except Error as error:
            return error.code in (Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED)
        return False

    async def get(self, key: str) -> str:
        """Return the value of a key. Raises NOT_FOUND."""
        return (await self._connection.call("GET", _path(key), bytes)).decode(errors="replace").strip()

    async def set(self, key: str, value: str) -> None:
        """Set a value forever, in place of any other."""
        await self._connection.call("POST", _path(key), bytes, json={"value": value})


class KeyValueStoreClient(ServiceClient):
    """Values under keys; see the store."""

    async def get(self, key: str) -> str:
        """Return the value of a key, each live instance's in turn. Raises NOT_FOUND."""
        return (await self._connection.call("GET", _path(key), bytes)).decode(errors="replace")

    async def entries(self, key: str | None = None) -> EntryPage:
        """Return the entries of one key, or of every key, and the revision of the store."""
        path = "/" if key is None else f"{_path(key)}/instances"
        return await self._connection.call("GET", path, EntryPage, headers={"Accept": "application/json"})

    async def watch(self, after: int, *, key: str | None = None, wait: float = 30.0) -> EntryPage:
        """Return the entries as soon as the revision of the store differs from `after`, or after `wait` seconds."""
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
        """Set a value, forever or for `ttl` seconds. Without an instance, it replaces every entry of the key."""
        body = {"value": value, "instance": instance, "ttl": ttl}
        return await self._connection.call("PUT", _path(key), Entry, json=body)

    async def delete(self, key: str, *, instance: str | None = None) -> int:
        """Delete the entries of a key, or one instance; return how many were deleted."""
        return await self._connection.call("DELETE", _path(key), int, params={"instance": instance})
