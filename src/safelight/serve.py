"""Run a service: settings, address, registration, clean stop.

A service is one process with one event loop. Its `__main__` names a `Config`, and a `build` function that opens what
the service needs and yields its `aiohttp` application; everything else is here.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import aiohttp
from aiohttp import web

from safelight import __version__, background, http, imports, logs, settings, tracing
from safelight.access import route
from safelight.access.caller import Access
from safelight.access.connections import tls
from safelight.access.connections.listener import Site, listen
from safelight.access.policy import PolicyError
from safelight.client.availability.liveness import Liveness
from safelight.client.base import session
from safelight.client.discovery import REGISTRATION_KEYS, Discovery, may_be_classic
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.errors import EXIT_STATUS, Code, Error
from safelight.files.standard_streams import prepare_standard_streams
from safelight.service import (
    Config,
    DataDirectory,
    MaxPhoto,
    Neighbours,
    Port,
    PublicConfig,
    Service,
    StandaloneConfig,
    keep_private,
    reachable_host,
)
from safelight.start_failure import explained

__all__ = [
    "Config",
    "DataDirectory",
    "MaxPhoto",
    "Neighbours",
    "Port",
    "PublicConfig",
    "Service",
    "StandaloneConfig",
    "at_signals",
    "cancelled_at_signals",
    "end_at_once",
    "keep_private",
    "prepare",
    "reachable_host",
    "run",
    "running",
    "trace",
]

log = logging.getLogger(__name__)

_READ_AHEAD = 1 << 18
"""Bytes of a body to read ahead; with too few, a large upload keeps stopping and starting."""
_KEEP_ALIVE = 75.0
"""Seconds for which a connection may be idle between two requests; longer than our own clients keep one."""

_LOOKED_AT_AGAIN = 5.0
"""Seconds after which a classic key-value store is asked whether it still has a registration."""

C = TypeVar("C", bound=StandaloneConfig)
Build = Callable[[C, Service], AbstractAsyncContextManager[web.Application]]


def run(
    name: str, kind: type[C], build: Build[C], argv: Sequence[str] | None = None, *, loaded: C | None = None
) -> None:
    """Run the program `python -m safelight.NAME` until SIGTERM, SIGINT or an authorised POST /shutdown.

    `loaded` are its settings if it has looked at them, so that what is wrong with them is told once.
    """
    prepare_standard_streams()
    config = loaded or settings.load(kind, argv, section=name, program=f"safelight {name}")
    logs.configure(name, config.log_format, config.log_level)
    prepare(config)
    trace(name, config)
    try:
        with explained(name, config.data):
            asyncio.run(_run(name, config, build))
    finally:
        tracing.flush()
    atexit.register(end_at_once)


def prepare(*configs: StandaloneConfig) -> None:
    """Prepare this process to serve: private files, many connections, and Ctrl-C while it starts."""
    imports.complete()
    os.umask(0o077)
    for config in configs:
        keep_private(config.data)
        _warn_if_open(Path(config.data))
    _end_at_ctrl_c()
    _allow_many_connections()


def trace(name: str, *configs: StandaloneConfig) -> None:
    """Start tracing this process under a name, if any of its services asks for it."""
    if any(config.traces for config in configs):
        try:
            tracing.start(name, __version__)
        except ImportError as error:
            settings.fail(f"--traces: {error.name} is missing. Install it with: pip install 'safelight[tracing]'.")
        except ValueError as error:
            settings.fail(f"--traces: a variable OTEL_… has a value that cannot be used: {str(error).rstrip('.')}.")


def _warn_if_open(data: Path) -> None:
    """Warn about a data directory that could not be closed, because it belongs to somebody else."""
    with suppress(OSError):
        if data.stat().st_mode & 0o077:
            log.warning("Others on this machine can look into %s; close it with chmod 700.", data)


def _end_at_ctrl_c() -> None:
    """Let Ctrl-C end a service that is still starting, at once and without a traceback."""
    with suppress(ValueError):  # not the main thread, which receives no signals
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_at_once() -> None:
    """End the process of a service that has stopped cleanly.

    Python would otherwise destroy every object, and a small machine would have to read each page from swap, which takes
    ten seconds or more.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one, since each long poll has a connection."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 - not on every platform

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _run(name: str, config: C, build: Build[C]) -> None:
    with cancelled_at_signals():
        async with running(name, config, build) as service:
            at_signals(service.stop)
            await service.stopping.wait()
            log.info("%s is stopping", service.title)


@contextmanager
def cancelled_at_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT end a start cleanly, which may wait for a database, until `at_signals` is called again."""
    task, signals = asyncio.current_task(), list[None]()
    assert task is not None

    def cancel() -> None:
        signals.append(None)
        task.cancel()

    at_signals(cancel)
    try:
        yield
    except asyncio.CancelledError:
        if not signals:
            raise
        log.info("Stopped before the start was complete")


def at_signals(stop: Callable[[], None], *, hangup: bool = False) -> None:
    """Call `stop` at SIGTERM and SIGINT, and with `hangup` when the terminal is closed, unless nohup ignores that."""
    loop = asyncio.get_running_loop()
    hangup = hangup and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    for number in (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hangup else [])):
        # A unikernel has no signals; only a request stops it.
        with suppress(NotImplementedError, RuntimeError, OSError):
            loop.add_signal_handler(number, stop)


def _session(config: StandaloneConfig) -> aiohttp.ClientSession:
    try:
        # Unlimited: incoming requests are limited, and forwarded long polls must not starve others.
        return session(limit=0, authorities=config.tls_authorities)
    except OSError as error:
        settings.fail(f"--tls-authorities: {config.tls_authorities} cannot be used: {error.strerror or error}.")


def _certificate(config: StandaloneConfig) -> tls.Certificate | None:
    try:
        return tls.certificate(config)
    except PolicyError as error:
        settings.fail(str(error))


@asynccontextmanager
async def running(
    name: str, config: C, build: Build[C], neighbours: Neighbours | None = None
) -> AsyncIterator[Service]:
    """Run a service until the context ends; requests in progress may end first.

    `neighbours` are the services of the same process, which it calls directly.
    """
    async with AsyncExitStack() as stack:
        service = Service(name, config, await stack.enter_async_context(_session(config)), neighbours)
        service.liveness = await stack.enter_async_context(Liveness.open(service.session))
        if service.keyvaluestore is not None:
            store = service.neighbours.find(KeyValueStoreClient)
            known = (service.credentials, store, service.liveness)
            opened = Discovery.open(service.session, service.keyvaluestore, *known)
            service.discovery = await stack.enter_async_context(opened)
        app = await stack.enter_async_context(build(config, service))
        route.add(app, route.post("/shutdown", _shutdown, Access.SHUTDOWN))
        http.prepare(app, service)
        await stack.enter_async_context(_listening(app, config, service))
        address = await service.advertised()
        url = address if "://" in address else f"http://{address}"
        log.info("%s is listening on %d", service.title, service.port, extra={"address": url})
        if config.open:
            log.warning("Everybody who reaches %s may do everything there (--open)", service.title)
        if service.discovery is not None and isinstance(config, Config) and name in REGISTRATION_KEYS:
            await stack.enter_async_context(_registered(service, service.discovery, config.registration_ttl))
        try:
            yield service
        finally:
            service.stop()


@asynccontextmanager
async def _listening(app: web.Application, config: StandaloneConfig, service: Service) -> AsyncIterator[None]:
    """Accept requests until the context ends; those in progress may end first. Sets the service's port."""
    certificate = _certificate(config)
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=1.0,
        auto_decompress=False,
        keepalive_timeout=_KEEP_ALIVE,
        read_bufsize=_READ_AHEAD,
    )
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(_drain, runner, service)
        context = certificate.context if certificate else None
        listeners = []
        for flag, port, shared in _ports(config):
            try:
                listeners += (opened := await listen(config.host, port, shared=shared))
                for listener in opened:
                    await Site(runner, listener, context=context, handshake=config.header_timeout).start()
            except OSError as error:
                refused = error.errno in (errno.EADDRINUSE, errno.EACCES)
                advice = f"Choose another {flag if refused else '--host'}."
                sentence = f"Cannot listen on {config.host}:{port}: {error.strerror}. {advice}"
                settings.fail(sentence, status=EXIT_STATUS[Code.CONFLICT] if refused else 2)
        service.port = runner.addresses[0][1]
        if isinstance(config, PublicConfig) and config.own_port is not None:
            log.info("Only this process listens on %d", runner.addresses[-1][1])
        assert runner.server is not None
        await stack.enter_async_context(service.connections.watching(runner.server, listeners))
        if certificate is not None:
            await stack.enter_async_context(certificate.watching())
        yield


def _ports(config: StandaloneConfig) -> list[tuple[str, int, bool]]:
    """Return the ports to listen on: the flag, the number, and whether other processes share it."""
    ports = [("--port", config.port, _shares_port(config))]
    if isinstance(config, PublicConfig) and config.own_port is not None:
        ports.append(("--own-port", config.own_port, False))
    return ports


def _shares_port(config: StandaloneConfig) -> bool:
    return isinstance(config, PublicConfig) and config.share_port


async def _drain(runner: web.AppRunner, service: Service) -> None:
    """Accept no more connections and let requests in progress end.

    aiohttp's own clean-up discards data that still arrives, so an upload in progress could never end.
    """
    for site in list(runner.sites):
        await site.stop()
    try:
        async with asyncio.timeout(service.config.drain):
            await service.quiet()
    except TimeoutError:
        log.warning("Requests in progress did not end within %g s and are cancelled", service.config.drain)


@asynccontextmanager
async def _registered(service: Service, discovery: Discovery, ttl: float) -> AsyncIterator[None]:
    key = REGISTRATION_KEYS[service.name]
    try:
        async with background.running(lambda: _register(service, discovery, key, ttl), "registration"):
            yield
    finally:
        with suppress(Error, TimeoutError):  # a classic store keeps it
            async with asyncio.timeout(1.0):
                await discovery.store.delete(key, instance=_instance(service))


async def _register(service: Service, discovery: Discovery, key: str, ttl: float) -> None:
    registered = False
    while True:
        if not registered:
            # The address depends on the key-value store's, and its name may be unknown until it has started.
            service.registered = await service.advertised()
        value = service.registered
        if not await _may_register(service, discovery, key, registered=registered):
            registered = False
            await asyncio.sleep(1.0)
            continue
        try:
            await discovery.store.set(key, value, instance=_instance(service), ttl=ttl)
        except Error as error:
            if may_be_classic(error) and await discovery.found_classic():
                await _register_classic(service, discovery, key, value)
                continue
            log.debug("Not registered: %s", error.detail)
            registered = False
            await asyncio.sleep(1.0)
            continue
        if not registered:
            log.info("%s endpoint registered", service.title, extra={key: value})
            registered = True
        await asyncio.sleep(ttl / 3)


async def _may_register(service: Service, discovery: Discovery, key: str, *, registered: bool) -> bool:
    """Return whether the service may be registered; if it may not be any more, remove its entry."""
    if service.may_register is None:
        return True
    try:
        await service.may_register(registered)
    except Error:
        if registered:
            with suppress(Error):  # then it expires
                await discovery.store.delete(key, instance=_instance(service))
        return False
    return True


def _instance(service: Service) -> str:
    """Return the instance of an entry. Services that share a port have one address, which the last to end removes."""
    return f"{service.registered} ({os.getpid()})" if _shares_port(service.config) else service.registered


async def _register_classic(service: Service, discovery: Discovery, key: str, value: str) -> None:
    """Register at a store that keeps values forever, and again whenever it has lost them. Ends if it is replaced.

    Another instance of the service may take the key over: the store holds one value for each.
    """
    store = discovery.classic_store
    registered = False
    while True:
        try:
            if not registered:
                await store.set(key, value)
                log.info("%s endpoint registered", service.title, extra={key: value})
                registered = True
            await asyncio.sleep(_LOOKED_AT_AGAIN)
            await store.get(key)
        except Error as error:
            registered = False
            if error.code is not Code.NOT_FOUND:
                await asyncio.sleep(1.0)
                if not await discovery.found_classic():
                    return


async def _shutdown(request: web.Request) -> web.Response:
    service: Service = request.app[http.SERVICE]
    asyncio.get_running_loop().call_soon(service.stop)
    return http.json_response({"stopping": True}, status=202)
