"""Run a service: settings, address, registration, errors, health, metrics, authentication, clean stop.

A service is one process with one event loop. Its `__main__` names a `Config`, and a `build` function that opens what
the service needs and yields its `aiohttp` application; everything else is here.
"""

from __future__ import annotations

import asyncio
import atexit
import hmac
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Annotated, TypeVar

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta
from prometheus_client import CollectorRegistry

from safelight import http, logs, settings
from safelight.client.base import Connection, session
from safelight.client.directory import ENDPOINTS, Directory
from safelight.errors import Code, Error

log = logging.getLogger(__name__)

_TITLE = {"keyvaluestore": "server", "db": "Database", "storage": "Storage", "master": "Master"}
"""The names in the sentences of the classic protocol's services, "server is listening on 8000" first of all."""

Port = Annotated[int, Meta(ge=0, le=65535, description="TCP port to listen on; 0 takes a free one")]
DataDirectory = Annotated[str, Meta(description="directory for everything the service writes")]


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


C = TypeVar("C", bound=Config)
Check = Callable[[], Awaitable[None]]
"""Returns when a dependency answers; raises `Error` with a sentence when it does not."""


class Service:
    """What one running service knows of itself; `build` receives it."""

    def __init__(self, name: str, config: Config, session: aiohttp.ClientSession) -> None:
        self.name = name
        self.config = config
        self.session = session
        self.directory: Directory | None = None
        self.registry = CollectorRegistry()
        self.checks: dict[str, Check] = {}
        self.refreshers: list[Check] = []
        """Called before metrics are read, to bring up to date what is not counted as it happens."""
        self.stopping = asyncio.Event()
        self.authenticate: http.Authenticate = http.anyone
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
        if self.directory is None:
            settings.fail(f"{self.name} needs the key-value store: give its HOST:PORT as the argument.")
        connection = Connection(self.session, self.directory.address(service))

        async def check() -> None:
            await connection.call("GET", "/healthz", bytes, retry=False)

        self.checks[service] = check
        return connection


Build = Callable[[C, Service], AbstractAsyncContextManager[web.Application]]


def run(name: str, kind: type[C], build: Build[C], argv: Sequence[str] | None = None) -> None:
    """Be the program `python -m safelight.NAME`: run until SIGTERM, SIGINT or an authorised POST /shutdown."""
    config = settings.load(kind, argv, section=name, program=f"safelight {name}")
    logs.configure(name, config.log_format, config.log_level)
    _allow_many_connections()
    try:
        asyncio.run(_run(name, config, build))
    except Error as error:
        log.error("%s cannot start: %s", name, error.detail)  # noqa: TRY400 - the sentence says it all
        raise SystemExit(1) from None
    atexit.register(_end_at_once)


def _end_at_once() -> None:
    """End the process of a service that has stopped well, its contexts all closed.

    Python would first take every object apart, and so fetch back each page that a small machine has swapped: ten
    seconds and more.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one: each long poll holds a connection."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 - not on every platform

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _run(name: str, config: C, build: Build[C]) -> None:
    async with running(name, config, build) as service:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # A unikernel has no signals: there the request alone stops it.
            with suppress(NotImplementedError, RuntimeError, OSError):
                loop.add_signal_handler(number, service.stop)
        await service.stopping.wait()
        log.info("%s is stopping", service.title)


@asynccontextmanager
async def running(name: str, config: C, build: Build[C]) -> AsyncIterator[Service]:
    """Run a service while the context lasts; on leaving, requests under way end first."""
    async with AsyncExitStack() as stack:
        # Unlimited: what comes in is bounded, and long polls that are passed on must not starve the rest.
        service = Service(name, config, await stack.enter_async_context(session(limit=0)))
        if config.keyvaluestore is not None and name != "keyvaluestore":  # the store itself looks for nobody
            opened = Directory.open(service.session, config.keyvaluestore)
            service.directory = await stack.enter_async_context(opened)
        app = await stack.enter_async_context(build(config, service))
        app.router.add_post("/shutdown", _shutdown)
        http.prepare(app, service)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(_drain, runner, service)
        try:
            await web.TCPSite(runner, config.host, config.port, backlog=1024).start()
        except OSError as error:
            settings.fail(f"Cannot listen on {config.host}:{config.port}: {error.strerror}. Choose another --port.")
        service.port = runner.addresses[0][1]
        log.info("%s is listening on %d", service.title, service.port, extra={"address": service.url})
        if service.directory is not None and name in ENDPOINTS:
            await stack.enter_async_context(_registered(service, service.directory))
        try:
            yield service
        finally:
            service.stop()


async def _drain(runner: web.AppRunner, service: Service) -> None:
    """Take no new connections and let requests under way end.

    aiohttp's own clean-up drops what still arrives, so that an upload under way could never end.
    """
    for site in list(runner.sites):
        await site.stop()
    try:
        async with asyncio.timeout(service.config.drain):
            await service.quiet()
    except TimeoutError:
        log.warning("Requests under way did not end in %g s and are cancelled", service.config.drain)


@asynccontextmanager
async def _registered(service: Service, directory: Directory) -> AsyncIterator[None]:
    key, value = ENDPOINTS[service.name], service.advertised
    task = asyncio.create_task(_register(service, directory, key, value), name="registration")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(Error, TimeoutError):
            async with asyncio.timeout(1.0):
                await directory.store.delete(key, instance=value)


async def _register(service: Service, directory: Directory, key: str, value: str) -> None:
    registered = False
    while True:
        try:
            await directory.store.set(key, value, instance=value, ttl=service.config.registration_ttl)
        except Error as error:
            log.debug("Not registered: %s", error.detail)
            registered = False
            await asyncio.sleep(1.0)
            continue
        if not registered:
            log.info("%s endpoint registered", service.title, extra={key: value})
            registered = True
        await asyncio.sleep(service.config.registration_ttl / 3)


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


async def _shutdown(request: web.Request) -> web.Response:
    service: Service = request.app[http.SERVICE]
    token = service.config.shutdown_token
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token is None or not hmac.compare_digest(given.encode(), token.encode()):
        raise Error(Code.FORBIDDEN, "Start the service with --shutdown-token and send it as a bearer token.")
    asyncio.get_running_loop().call_soon(service.stop)
    return http.json_response({"stopping": True}, status=202)
