"""Find services in the key-value store, follow changes there, and use their instances in turn."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp

from safelight import background
from safelight.client.availability.instances import Instances, Several, others
from safelight.client.availability.liveness import Liveness, UnresponsiveError
from safelight.client.base import Connection, Credentials, no_credentials
from safelight.client.keyvaluestore import ClassicStoreClient, KeyValueStoreClient
from safelight.errors import Code, Error

log = logging.getLogger(__name__)

REGISTRATION_KEYS = {"db": "dbendpoint", "storage": "storageendpoint", "master": "masterendpoint"}
"""The keys under which services are registered, as in the classic protocol, by their names."""

_ASKED_EVERY = 2.0
"""Seconds between two polls of a store that cannot be watched."""
_ANSWER_TIME = 8.0
"""Seconds that the key-value store has for an answer. After this, a request that the network lost is sent again."""
_WATCHED_FOR = 10.0
"""Seconds after which a watch that has seen no change starts again."""
_PAUSE = 0.1
"""Seconds before the next watch of a store that answered although nothing had changed, because it may be stopping."""
_SAID_AGAIN = 10.0
"""Seconds between two log lines that the key-value store does not answer."""
_ABSENT = 10.0
"""Seconds without any instance after which requests no longer wait for one."""


class Discovery:
    """The addresses that are registered in a key-value store, followed with a watch.

    They stay known while the key-value store is not available.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        keyvaluestore: str,
        credentials: Credentials = no_credentials,
        store: KeyValueStoreClient | None = None,
        liveness: Liveness | None = None,
    ) -> None:
        """`keyvaluestore` is its `HOST:PORT`, or several separated by commas.

        `store` is the key-value store itself if it runs in this process. `liveness` knows which instances answer.
        """
        self.keyvaluestore = keyvaluestore
        connection = Connection(
            http,
            Several(keyvaluestore),
            credentials=credentials,
            retry_for=0.0,
            idle_timeout=_ANSWER_TIME,
            service="keyvaluestore",
        )
        self.store = store or KeyValueStoreClient(connection)
        # Anybody in a classic network may have registered a classic entry, so the cluster key is not sent there.
        self._only_ours = credentials is not no_credentials
        # A store that speaks only the classic protocol cannot tell who registered either.
        self.classic_store = ClassicStoreClient(
            Connection(http, Several(keyvaluestore), retry_for=0.0, service="keyvaluestore")
        )
        self._classic = False
        self._known: dict[str, list[str]] = {}
        self._absent = dict.fromkeys(REGISTRATION_KEYS.values(), _Absence(time.monotonic(), []))
        self._liveness = liveness
        self.instances = Instances()
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        http: aiohttp.ClientSession,
        keyvaluestore: str,
        credentials: Credentials = no_credentials,
        store: KeyValueStoreClient | None = None,
        liveness: Liveness | None = None,
    ) -> AsyncIterator[Discovery]:
        """Follow the key-value store until the context ends."""
        discovery = cls(http, keyvaluestore, credentials, store, liveness)
        async with background.running(discovery._follow, "discovery"):
            yield discovery

    def address(self, service: str) -> DiscoveredAddress:
        """Return the address of a service, which is looked up for each request."""
        return DiscoveredAddress(self, service)

    async def wait_for(self, service: str) -> str:
        """Wait until a service is known; return its `host:port`."""
        key = REGISTRATION_KEYS[service]
        while not self._known.get(key):
            log.info("Waiting for %s to register at the key-value store %s", key, self.keyvaluestore)
            await self._wait_change(10.0)
        return self._known[key][0]

    def known(self, service: str) -> list[str]:
        """Return the `host:port` of each instance."""
        return sorted(self._known.get(REGISTRATION_KEYS[service], []))

    def lookup(self, service: str, apart: Collection[str] = ()) -> str | None:
        """Return the `host:port` of the instances in turn, avoiding those that are down; None if there is none.

        Raises UNAVAILABLE if all are in `apart`.
        """
        known = self._known.get(REGISTRATION_KEYS[service], [])
        if apart:
            known = others(known, apart)
        return self.instances.choose(known) if known else None

    def absence(self, service: str) -> Error:
        """Return the error of a request to a service without instances.

        The caller may retry while a dead instance may come back. If the known instances are suspended or cut off, or
        there has been none for long, the caller gets the error at once.
        """
        absent = self._absent[REGISTRATION_KEYS[service]]
        sentence = f"No {service} service is registered at the key-value store {self.keyvaluestore}"
        last = [url_of(value) for value in absent.last]
        if self._liveness is not None and last and all(map(self._liveness.is_down, last)):
            return UnresponsiveError(f"{sentence} any more, and {last[0]} answers nothing.")
        if time.monotonic() - absent.since > _ABSENT:
            return UnresponsiveError(f"{sentence}, and none has been for a while. Is one running?")
        return Error(Code.UNAVAILABLE, f"{sentence} yet.")

    async def found_classic(self) -> bool:
        """Return whether the key-value store speaks only the classic protocol, after it rejected a request.

        If so, values are set and read key by key. Raises nothing.
        """
        classic = await self.classic_store.is_classic()
        if classic and not self._classic:
            said = "The key-value store at %s speaks only the classic protocol: registrations there never expire, and "
            said += (
                "nothing is looked up, because it cannot tell who registered and requests carry the cluster key"
                if self._only_ours
                else "changes are seen with a delay"
            )
            log.warning(said, self.keyvaluestore)
        self._classic = classic
        return classic

    async def _follow_classic(self) -> None:
        """Poll each key until the store does not answer."""
        while True:
            known = {}
            for key in () if self._only_ours else REGISTRATION_KEYS.values():
                try:
                    known[key] = [await self.classic_store.get(key)]
                except Error as error:
                    if error.code is not Code.NOT_FOUND:
                        return
            self._learn({key: values for key, values in known.items() if _is_endpoint(values[0])})
            await asyncio.sleep(_ASKED_EVERY)

    def _learn(self, known: dict[str, list[str]]) -> None:
        for key in REGISTRATION_KEYS.values():
            if known.get(key):
                self._absent.pop(key, None)
            elif key not in self._absent:
                self._absent[key] = _Absence(time.monotonic(), self._known[key])
        self._known = known
        self.instances.keep([value for values in known.values() for value in values])
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_change(self, timeout: float) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), timeout)
        except TimeoutError:
            return

    async def _follow(self) -> None:
        revision = -1
        level, said = logging.INFO, -math.inf  # services start in any order, so the first failure is not a warning
        while True:
            try:
                page = await self.store.watch(revision, wait=_WATCHED_FOR)
            except Error as error:
                if may_be_classic(error) and await self.found_classic():
                    await self._follow_classic()
                    continue
                if time.monotonic() - said > _SAID_AGAIN:
                    log.log(level, "Waiting for the key-value store at %s: %s", self.keyvaluestore, error.detail)
                    level, said = logging.WARNING, time.monotonic()
                revision = -1
                await asyncio.sleep(1.0)
                continue
            if page.revision == revision:
                await asyncio.sleep(_PAUSE)  # a store in this process would otherwise block the event loop forever
            revision, level = page.revision, logging.WARNING
            known: dict[str, list[str]] = {}
            for entry in page.entries:
                if self._only_ours and not entry.instance:
                    continue
                values = known.setdefault(entry.key, [])
                if entry.value not in values:  # several processes may share a port
                    values.append(entry.value)
            self._learn(known)


class _Absence(NamedTuple):
    """The absence of a service: since when (monotonic clock) it has had no instance, and its last instances."""

    since: float
    last: list[str]


def may_be_classic(error: Error) -> bool:
    """Return whether a store that answers a request like this may speak only the classic protocol.

    Nothing says how such a store refuses what it does not know: by any status, by text instead of JSON, or by closing
    the connection.
    """
    return error.code is not Code.UNAVAILABLE or isinstance(error.__cause__, aiohttp.ServerDisconnectedError)


def url_of(value: str) -> str:
    """Return the base URL of a registered instance, which is a `host:port` or a URL."""
    return value if "://" in value else f"http://{value}"


def _is_endpoint(value: str) -> bool:
    """Return whether a value is a `host:port`, as services register it; a classic store accepts any value."""
    host, colon, port = value.rpartition(":")
    return bool(host and colon and port.isascii() and port.isdigit()) and not set(value) & set(" /?#@\\")


class DiscoveredAddress:
    """An `Address` that is looked up by discovery."""

    def __init__(self, discovery: Discovery, service: str) -> None:
        self._discovery = discovery
        self._service = service

    async def resolve(self, apart: Collection[str] = ()) -> str:
        """Return the base URL of an instance that is not in `apart`. Raises UNAVAILABLE while none is registered."""
        value = self._discovery.lookup(self._service, [url.removeprefix("http://") for url in apart])
        if value is None:
            raise self._discovery.absence(self._service)
        return url_of(value)

    def failed(self, url: str) -> None:
        """Avoid this instance for a while."""
        self._discovery.instances.failed(url.removeprefix("http://"))

    def answered(self, url: str) -> None:
        """Use this instance again."""
        self._discovery.instances.answered(url.removeprefix("http://"))
