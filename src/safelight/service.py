"""What one running service knows of itself: its settings, its address, its callers, its end.

`serve` runs a service and `http` answers for it; both build on this.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta
from prometheus_client import CollectorRegistry

from safelight import logs, settings
from safelight.client.base import Connection
from safelight.client.discovery import Discovery

_TITLE = {"keyvaluestore": "server", "db": "Database", "storage": "Storage", "master": "Master"}
"""The names in the sentences of the classic protocol's services, "server is listening on 8000" first of all."""

Port = Annotated[int, Meta(ge=0, le=65535, description="TCP port to listen on; 0 takes a free one")]
DataDirectory = Annotated[str, Meta(description="directory for everything the service writes")]


MaxPhoto = Annotated[settings.Size, Meta(description="size of the largest photo accepted, in bytes")]
"""A setting of the master and of workers. SAFELIGHT_MAX_PHOTO, or `max_photo` at a file's top level, sets both."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that every service has."""

    keyvaluestore: Annotated[
        str | None,
        Meta(description="where the key-value store is", extra={"positional": "KEYVALUESTORE_HOST:PORT"}),
    ] = None
    host: Annotated[str, Meta(description="IPv4 address to listen on; 0.0.0.0 for every network")] = "127.0.0.1"
    port: Port = 0
    advertise: Annotated[
        str | None, Meta(description="HOST:PORT that others reach (default: this machine's address on their network)")
    ] = None
    data: DataDirectory = "data"
    log_format: Annotated[logs.Format, Meta(description="auto, text or json")] = "auto"
    log_level: Annotated[logs.Level, Meta(description="debug, info, warning or error")] = "info"
    shutdown_token: Annotated[
        str | None, Meta(description="bearer token that allows POST /shutdown; without one nobody may")
    ] = None
    registration_ttl: Annotated[
        settings.Period, Meta(description="how long a registration outlives a service that died")
    ] = 15.0
    drain: Annotated[settings.Duration, Meta(description="how long requests under way may take at a stop")] = 10.0


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request."""

    name: str = "anyone"


Authenticate = Callable[[web.Request], Awaitable[Caller]]
"""Says who sent a request, or raises UNAUTHENTICATED or FORBIDDEN: the one place where a request is authenticated."""


async def anyone(_request: web.Request) -> Caller:
    """Take every request: the network is trusted."""
    return Caller()


Check = Callable[[], Awaitable[None]]
"""Returns when a dependency answers; raises `Error` with a sentence when it does not."""


class Service:
    """What one running service knows of itself; `build` receives it."""

    def __init__(self, name: str, config: Config, session: aiohttp.ClientSession) -> None:
        self.name = name
        self.config = config
        self.session = session
        self.discovery: Discovery | None = None
        self.registry = CollectorRegistry()
        self.checks: dict[str, Check] = {}
        self.refreshers: list[Check] = []
        """Called before metrics are read, to bring up to date what is not counted as it happens."""
        self.stopping = asyncio.Event()
        self.authenticate: Authenticate = anyone
        self.port = 0
        self._wake: list[Callable[[], None]] = []
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def title(self) -> str:
        """The name that people read in the log."""
        return _TITLE.get(self.name, self.name.capitalize())

    @property
    def advertised(self) -> str:
        """`host:port` that others reach."""
        return self.config.advertise or f"{reachable_host(self.config)}:{self.port}"

    @property
    def url(self) -> str:
        """Where this service listens, for whoever runs on the same machine."""
        host = "127.0.0.1" if self.config.host in ("", "0.0.0.0") else self.config.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"

    def on_stop(self, wake: Callable[[], None]) -> None:
        """Call `wake` when the service stops, so that long polls answer at once."""
        self._wake.append(wake)

    def stop(self) -> None:
        """Take no more; let what is under way end."""
        if not self.stopping.is_set():
            self.stopping.set()
            for wake in self._wake:
                wake()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as under way, so that a stop waits for its end."""
        self._under_way += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no request is under way."""
        await self._quiet.wait()

    def needs(self, service: str) -> Connection:
        """Return a connection to another service; until that one answers, this one is not ready."""
        if self.discovery is None:
            settings.fail(f"{self.name} needs the key-value store: give its HOST:PORT as the argument.")
        connection = Connection(self.session, self.discovery.address(service))

        async def check() -> None:
            await connection.call("GET", "/healthz", bytes, retry=False)

        self.checks[service] = check
        return connection


def reachable_host(config: Config) -> str:
    """Return the address under which others on the key-value store's network reach this machine."""
    if config.host not in ("", "0.0.0.0"):  # noqa: S104 - compared, not bound
        return config.host
    target = (config.keyvaluestore or "").rpartition(":")[0] or "192.0.2.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))  # sends nothing: it only asks the routing table
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
