"""Copy the lasting entries of a key-value store (not registrations) between SQLite and etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from safelight import settings
from safelight.cli.backup import owners
from safelight.client.discovery import REGISTRATION_KEYS
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.errors import Code, Error
from safelight.keyvaluestore.__main__ import Config, etcd_access, etcd_prefix
from safelight.keyvaluestore.store import KeyValueStore
from safelight.wire import Entry

ETCD = ("etcd", "etcds")
_ANSWERS = 15.0
"""Seconds within which a member of etcd must answer."""


@asynccontextmanager
async def opened(url: str, *, made: bool = False) -> AsyncIterator[KeyValueStore]:
    """Open the store that a URL of ``safelight keyvaluestore --store`` names. Raises INVALID_REQUEST, UNAVAILABLE.

    TLS and credentials of etcd come from the variables of the service (`SAFELIGHT_KEYVALUESTORE_ETCD_USER`). A missing
    file is an error unless it may be `made`.
    """
    scheme, _, place = url.partition("://")
    if scheme in ETCD:
        from safelight.keyvaluestore.etcd import EtcdStore, Gateway  # noqa: PLC0415 - only what is chosen

        access = etcd_access(settings.load(Config, [], section="keyvaluestore", program="safelight migrate"))
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_ANSWERS):
                    gateway = await stack.enter_async_context(Gateway.open(url, access))
                    store = await stack.enter_async_context(EtcdStore.open(gateway, prefix=etcd_prefix(url)))
            except TimeoutError:
                raise Error(Code.UNAVAILABLE, f"No member of {url} answers. Is etcd running there?") from None
            yield store
        return
    path = Path(place)
    if scheme != "sqlite" or not path.is_absolute() or not (made or await asyncio.to_thread(path.is_file)):
        detail = f"{url} is not a key-value store. Write etcd://HOST:PORT,HOST:PORT or sqlite:///FILE."
        raise Error(Code.INVALID_REQUEST, detail)
    from safelight.keyvaluestore.sqlite import SqliteStore  # noqa: PLC0415 - as above

    if new := not await asyncio.to_thread(path.exists):
        owners.make(path.parent)
    async with SqliteStore.open(path, foreign=True) as file:
        if new:
            owners.give_file(path)
        yield file


async def copy(source: KeyValueStore | KeyValueStoreClient, target: KeyValueStore) -> dict[str, int]:
    """Copy the lasting entries and compare them; return how many there are and how many were new or different.

    Another call copies what has changed since. Entries that only the target has are left there. Raises CONFLICT if the
    target lacks a copied value because something else writes there.
    """
    wanted = await _lasting(source)
    known = await _lasting(target)
    new = {name: entry for name, entry in wanted.items() if name not in known or known[name].value != entry.value}
    for entry in new.values():
        await target.set(entry.key, entry.value, instance=entry.instance)
    found = await _lasting(target)
    for (key, instance), entry in wanted.items():
        if (key, instance) not in found or found[key, instance].value != entry.value:
            detail = f"The new store does not have the value of {key} that was copied. Does something else write there?"
            raise Error(Code.CONFLICT, detail)
    return {"entries": len(wanted), "copied": len(new)}


async def _lasting(store: KeyValueStore | KeyValueStoreClient) -> dict[tuple[str, str], Entry]:
    page = await store.entries()
    # The registration of an instance expires. A copied one would not, and could lead requests with the cluster key to
    # anybody.
    registered = REGISTRATION_KEYS.values()
    return {
        (entry.key, entry.instance): entry
        for entry in page.entries
        if entry.expires is None and not (entry.instance and entry.key in registered)
    }
