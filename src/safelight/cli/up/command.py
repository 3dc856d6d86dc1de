"""`safelight up`: every service and some workers on this machine, as child processes of this one."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import aiohttp
import msgspec
from msgspec import Meta

from safelight import imports, logs, serve, settings
from safelight.access import cluster_key
from safelight.access.settings import AccessSettings, CorsOrigins, PublicUrl
from safelight.cli.up import machines, plain
from safelight.cli.up.called import command_name
from safelight.cli.up.child import Child
from safelight.cli.up.forward import Forward
from safelight.cli.up.own import Own
from safelight.cli.up.plain import NoTls
from safelight.cli.up.ports import LAST_PORT, check_free, ports_of, refuse
from safelight.cli.up.sign_in import sign_in_link
from safelight.client.availability.instances import Several
from safelight.client.base import Connection, ServiceClient, session
from safelight.errors import EXIT_STATUS, FAILED, Code
from safelight.service import StandaloneConfig

log = logging.getLogger("up")

SERVICES = ("keyvaluestore", "db", "storage", "master")
STOPS = (("worker",), ("allinone",), ("master",), ("db", "storage"), ("keyvaluestore",))
"""The order of a stop: callers before the services that they call."""

_GRACE = 10.0
"""Seconds that a program may take to stop, in addition to its time to drain."""
_SAME_SIGNAL = 0.25
"""Seconds within which several signals are one: `timeout` sends each twice, to this program and to its group."""
_TOGETHER = "services"
"""The name of the one process in which the services run."""


class Config(AccessSettings, frozen=True, kw_only=True):
    """Run all services and some workers on this machine, with one data directory, and restart those that die.

    The settings file (--config) is passed on to every service; each has a table of its own in it.
    """

    workers: Annotated[int, Meta(ge=0, le=256, description="How many workers to run.")] = 1
    slots: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(description="How many photos each worker processes at once; by default one for each usable core."),
    ] = None
    masters: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="How many masters share the port of the master, to use more cores; several imply --separate.",
        ),
    ] = 1
    separate: Annotated[bool, Meta(description="Run each service in a process of its own, as on several machines.")] = (
        False
    )
    data: Annotated[
        str,
        Meta(
            pattern=".",
            description="The directory for all data.",
            extra={"metavar": "DIRECTORY", "words": "a directory"},
        ),
    ] = "data"
    host: Annotated[
        str,
        Meta(
            description="The address to listen on; 0.0.0.0 is every IPv4 network, :: every IPv6 network.",
            extra={"metavar": "ADDRESS"},
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="The first of four ports, for key-value store, db, storage and master; 0 takes free ones.",
        ),
    ] = 8000
    tls_certificate: NoTls = None
    tls_key: NoTls = None
    public_url: PublicUrl = None
    cors_origins: CorsOrigins = ""
    drain: Annotated[settings.Duration, Meta(description="How long photos in progress may take to end at a stop.")] = (
        20.0
    )
    json: Annotated[bool, Meta(description="Print the addresses as one line of JSON when everything is ready.")] = False
    vm: Annotated[bool, Meta(description="Run everything in virtual machines, as deploy/fleet.yaml describes.")] = False
    fleet: Annotated[str | None, Meta(description="The fleet file for --vm.", extra={"metavar": "FILE"})] = None
    guest: Annotated[
        Literal["linux", "osv"] | None,
        Meta(description="The guest that the machines of --vm run; by default what the fleet file says."),
    ] = None
    log_format: Annotated[
        logs.Format, Meta(description="How log lines look; auto is text on a terminal and JSON elsewhere.")
    ] = "auto"
    log_level: Annotated[logs.Level, Meta(description="The least severe messages to log.")] = "info"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `safelight up` and return its exit status."""
    imports.complete()
    arguments = list(sys.argv[1:] if argv is None else argv)
    config = settings.load(Config, arguments, section="up", program="safelight up")
    text = config.log_format == "text" or (config.log_format == "auto" and sys.stderr.isatty())
    forward = Forward(json=not text, color=sys.stderr.isatty())
    logging.basicConfig(level=config.log_level.upper(), handlers=[forward.handler()], force=True)
    if config.vm:
        # The variable may name a cluster key for commands; the fleet has its own.
        for name in _NOT_FOR_MACHINES:
            if getattr(config, name) != getattr(Config(), name):
                flag = name.replace("_", "-")
                settings.fail(f"--{flag} has no effect on machines: the fleet file describes them (--fleet FILE).")
        return machines.run(config.fleet, config.guest, as_json=config.json)
    passed = _passed(arguments)
    path = passed[-1].removeprefix("--config=") if passed else os.environ.get("SAFELIGHT_CONFIG")
    _check_readable_again(path)
    plain.check(config, path)
    os.umask(0o077)
    serve.keep_private(config.data)
    with _alone(Path(config.data)):
        if config.cluster_key_file is None:
            key = Path(config.data, "cluster.key")
            with _usable(Path(config.data)):
                cluster_key.ensure(key)
            config = msgspec.structs.replace(config, cluster_key_file=str(key))
        everything = Up(config, forward, passed, Own(path))
        check_free(config.host, everything.ports)
        return asyncio.run(everything.run())


def _check_readable_again(path: str | None) -> None:
    """End with an error if the settings file can be read only once: each program reads it by itself."""
    if path and path != os.devnull and (not Path(path).is_file() or path.startswith(_OPENED)):
        settings.fail(f"the settings file {path} is a pipe or a device, and each service reads it too. Name a file.")


class Up:
    """The programs of one system, and where they are."""

    def __init__(self, config: Config, forward: Forward, passed: list[str], own: Own) -> None:
        self._config = config
        self._forward = forward
        self._passed = passed
        self._own = own
        otherwise = max(config.drain, StandaloneConfig().drain)
        self._drain = {kind: own.drain(kind, otherwise) for kind in (*SERVICES, "worker")}
        self._drain["allinone"] = sum(self._drain[name] for name in SERVICES)  # one after another
        workers = [f"worker-{number}" for number in range(1, config.workers + 1)]
        masters = [f"master-{number}" for number in range(1, config.masters + 1)] if config.masters > 1 else []
        ports = ports_of(config.port, config.workers, len(masters))
        if max(ports) > LAST_PORT:
            settings.fail(
                f"--port {config.port} leaves too few ports: {len(ports)} are needed, the last of which would be "
                f"{max(ports)}. Give a smaller one."
            )
        self.ports = dict(zip([*SERVICES, *workers, *masters], ports, strict=True))
        """By name of a service or worker, and of each of several masters, whose own port this is then."""
        self.children = self._children(workers)
        self._status = 0
        self._stopping = asyncio.Event()
        self._last_signal = float("-inf")

    async def run(self) -> int:
        """Run everything until a signal, and return the exit status."""
        serve.at_signals(self._signalled, hangup=True)
        supervisors = [asyncio.create_task(child.supervise(self._give_up), name=child.name) for child in self.children]
        announcement = asyncio.create_task(self._announce())
        self._own.warn()
        try:
            await self._stopping.wait()
        finally:
            announcement.cancel()
            await self._stop()
            await asyncio.gather(announcement, *supervisors, return_exceptions=True)
        log.info("Stopped")
        return self._status

    @property
    def addresses(self) -> dict[str, str]:
        """`host:port` of everything, as others reach it."""
        host = _reachable(self._config.host)
        return {name: f"{host}:{port}" for name, port in self.ports.items()}

    def _children(self, workers: list[str]) -> list[Child]:
        separate = self._config.separate or self._config.masters > 1
        masters = [name for name in self.ports if name.startswith("master-")] or ["master"]
        children = [
            Child(
                name, kind := name.partition("-")[0], ["-m", f"safelight.{kind}", *self._argv(name)], self._forward.line
            )
            for name in ([*SERVICES[:-1], *masters, *workers] if separate else workers)
        ]
        if separate:
            return children
        argv = [argument for name in SERVICES for argument in ("--", name, *self._argv(name))][1:]
        services = Child(_TOGETHER, "allinone", ["-m", "safelight.allinone", *argv], self._forward.several)
        return [services, *children]

    def _argv(self, name: str) -> list[str]:
        """Return the arguments of a service or worker."""
        kind = name.partition("-")[0]
        config = self._config
        argv = [*self._passed]
        if kind != "keyvaluestore":
            argv.append(f"{_reachable(config.host)}:{self.ports['keyvaluestore']}")
        port = self.ports["master" if kind == "master" else name]
        argv += ["--host", config.host, "--port", str(port), "--data", str(self._own.data(kind, name, config.data))]
        argv += ["--share-port", "--own-port", str(self.ports[name])] if name.startswith("master-") else []
        argv += ["--log-format", "json" if self._forward.json else "text"]
        argv += [f"--cluster-key-file={config.cluster_key_file}"]
        passed = {"log_level": config.log_level} | _access_settings(config, kind)
        if kind == "worker":
            passed["drain"] = str(config.drain)
            passed |= {} if config.slots is None else {"slots": str(config.slots)}
        return argv + self._own.flags(kind, passed)

    def _signalled(self) -> None:
        before, self._last_signal = self._last_signal, time.monotonic()
        if self._last_signal - before < _SAME_SIGNAL:
            return
        if self._stopping.is_set():
            log.warning("Killing everything")
            self._status = self._status or FAILED
            for child in self.children:
                child.kill()
        else:
            log.info("Stopping; the next Ctrl-C or SIGTERM kills")
            self._stopping.set()

    def _give_up(self, status: int) -> None:
        self._status = status
        self._stopping.set()

    async def _stop(self) -> None:
        for kinds in STOPS:
            timeout = _GRACE + max(self._drain[kind] for kind in kinds)
            await asyncio.gather(*(child.stop(timeout) for child in self.children if child.kind in kinds))

    async def _announce(self) -> None:
        """Wait until everything is ready, then print the addresses."""
        start = time.monotonic()
        async with session() as http:
            waiting = {name: self._ready(http, name) for name in self.ports}
            tasks = {asyncio.create_task(each): name for name, each in waiting.items()}
            pending = set(tasks)
            try:
                while pending:
                    _, pending = await asyncio.wait(pending, timeout=10.0)
                    if pending:
                        log.info("Still waiting for %s", ", ".join(sorted(tasks[task] for task in pending)))
            finally:  # everything may be stopped before it is ready
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
        sign_in = await sign_in_link(self.addresses["master"], Path(self._config.cluster_key_file or ""))
        if self._config.json:
            print(json.dumps(self.addresses | ({"sign_in": sign_in} if sign_in else {})), flush=True)
        else:
            print(self._where(time.monotonic() - start, sign_in), flush=True)

    async def _ready(self, http: aiohttp.ClientSession, name: str) -> None:
        client = ServiceClient(Connection(http, Several(self.addresses[name])))
        while not await client.is_ready(wait=10.0):  # noqa: ASYNC110 - nothing listens yet that could wake us
            await asyncio.sleep(0.05)

    def _where(self, seconds: float, sign_in: str | None) -> str:
        at, program = self.addresses, command_name()
        page = self._config.public_url or f"http://{at['master']}"
        store = "" if at["keyvaluestore"].endswith(":8000") else f" --keyvaluestore {at['keyvaluestore']}"
        key = ""
        if sign_in:  # people need a key
            create = f"SAFELIGHT_CLUSTER_KEY_FILE={self._config.cluster_key_file} {program} keys create NAME{store}"
            key = f"  key      {create}; then {program} login --master {page.removeprefix('http://')}\n"
            store = ""  # the command goes to the master of its login
        return (
            f"\nsafelight is ready after {seconds:.1f} s; data is in {Path(self._config.data).resolve()}\n"
            + (f"  sign in  {sign_in} (works once, within an hour)\n" if sign_in else "")
            + f"  page     {page.rstrip('/')}/\n"
            f"  API      {page.rstrip('/')}/docs\n"
            f"{key}"
            f"  upload   {program} upload PHOTO --output results{store}\n"
            f"  watch    {program} top{store}\n"
        )


_OPENED = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""Where the files are that this process has open; the services do not have them."""
_NOT_FOR_MACHINES = (
    *("workers", "slots", "masters", "separate", "data", "host", "port", "open", "public_url"),
    *("tls_certificate", "tls_key"),
)
_FOR_MASTER = ("public_url", "cors_origins", "trusted_proxies")
"""Settings that only the service that browsers and proxies call has."""


def _access_settings(config: Config, kind: str) -> dict[str, str | None]:
    """Return the settings of access control for a service, except those with default values. None stands for true."""
    passed: dict[str, str | None] = {}
    for name in (*AccessSettings.__struct_fields__, "public_url", "cors_origins"):
        value = getattr(config, name)
        if value == getattr(Config(), name) or name == "cluster_key_file" or (name in _FOR_MASTER and kind != "master"):
            continue
        passed[name] = None if value is True else str(value)
    return passed


def _reachable(host: str) -> str:
    """Return the address at which a service that listens on `host` is reached."""
    return serve.reachable_host(host)


@contextmanager
def _usable(data: Path) -> Iterator[None]:
    """End with an error if the data directory cannot be written, as on a full disk."""
    try:
        yield
    except OSError as error:
        sentence = f"{data} cannot be used as the data directory: {error.strerror}."
        settings.fail(sentence, status=EXIT_STATUS[Code.UNAVAILABLE])


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Lock the data directory. The lock ends with the process, however that ends."""
    with _usable(data):
        data.mkdir(parents=True, exist_ok=True)
        file = (data / "up.lock").open("ab+", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            refuse(
                f"Another safelight up (process {file.read().decode().strip()}) uses the data directory {data}. Stop "
                "it first, or give another --data."
            )
        with _usable(data):
            file.truncate(0)
            file.write(b"%d\n" % os.getpid())
        yield


def _passed(arguments: list[str]) -> list[str]:
    """Return the flag that names the settings file, for the children; a variable reaches them by itself."""
    for index, argument in enumerate(arguments):
        if argument == "--config":
            return arguments[index : index + 2]
        if argument.startswith("--config="):
            return [argument]
    return []
