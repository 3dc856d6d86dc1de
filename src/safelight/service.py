"""The state of a running service: its settings, address, dependencies and end.

`serve` runs a service and `http` handles its requests; both build on this module.
"""

import asyncio
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import aiohttp
from msgspec import Meta
from prometheus_client import CollectorRegistry, Gauge

from safelight import logs, settings
from safelight.access.authenticate import Gate
from safelight.access.connections.idle import Connections
from safelight.access.policy import Policy, PolicyError, host_of
from safelight.access.route import Table
from safelight.access.settings import AccessSettings, CorsOrigins, PublicUrl
from safelight.client.availability.instances import first_of
from safelight.client.availability.liveness import Liveness
from safelight.client.availability.reachability import Reachability
from safelight.client.availability.retrying import Breaker
from safelight.client.base import Address, Connection, Credentials, ServiceClient, no_credentials
from safelight.client.discovery import Discovery

C = TypeVar("C", bound=ServiceClient)

_TITLE = {"keyvaluestore": "server", "db": "Database", "storage": "Storage", "master": "Master"}
"""Names of services in log messages, as the classic protocol's services have them ("server is listening on 8000")."""

EVERY_NETWORK = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound
"""Values of `host` that listen on every network."""

_USER_NETWORK = "10.0.2."
"""How addresses of QEMU's user network begin. It leads out of a virtual machine, never into it."""

_OF_THE_SYSTEM = frozenset(
    {"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/run", "/sbin", "/sys", "/usr"}
    | {"/media", "/mnt", "/srv", "/usr/local", "/var", "/var/cache", "/var/lib", "/var/log", "/var/spool"}
)
"""Directories that every user of a machine must be able to enter."""

_ADVERTISED = r"^(|(\[[^]/\s,]+\]|[^/:[\]@,\s]+):[1-9][0-9]{0,4}|https?://[^/@,?#\s]+(/[^,?#\s]*)?)$"
"""What `advertise` may be: nothing, a host and a port, or a URL."""

_ANSWER_TIMEOUT = 15.0
"""Seconds that another service has for an answer in JSON. A live service whose disk hangs does not answer."""

Port = Annotated[int, Meta(ge=0, le=65535, description="The TCP port to listen on; 0 takes a free one.")]
DataDirectory = Annotated[
    str,
    Meta(
        pattern=".",
        description="The directory for everything that the service writes.",
        extra={"metavar": "DIRECTORY", "words": "a directory"},
    ),
]


MaxPhoto = Annotated[int, Meta(ge=1, description="Refuse photos that are larger than this.", extra={"unit": "bytes"})]
"""A setting of the master and of workers. SAFELIGHT_MAX_PHOTO, or `max_photo` at a file's top level, sets both."""


class StandaloneConfig(AccessSettings, frozen=True, kw_only=True):
    """The settings that every service has."""

    host: Annotated[
        str,
        Meta(
            description="The address to listen on; 0.0.0.0 is every IPv4 network, :: every IPv6 network.",
            extra={"metavar": "ADDRESS"},
        ),
    ] = "127.0.0.1"
    port: Port = 0
    data: DataDirectory = "data"
    traces: Annotated[
        bool,
        Meta(
            description="Send traces of photos to an OpenTelemetry collector, by OTLP over HTTP; the OTEL_... "
            "variables say to which. It needs the extra safelight[tracing]."
        ),
    ] = False
    log_format: Annotated[
        logs.Format, Meta(description="How log lines look; auto is text on a terminal and JSON elsewhere.")
    ] = "auto"
    log_level: Annotated[logs.Level, Meta(description="The least severe messages to log.")] = "info"
    shutdown_token: Annotated[
        str | None, Meta(description="The bearer token that allows POST /shutdown, as the cluster key does.")
    ] = None
    drain: Annotated[
        settings.Duration, Meta(description="How long requests in progress may take to end at a stop.")
    ] = 10.0


class Config(StandaloneConfig, frozen=True, kw_only=True):
    """The settings of a service that registers at the key-value store and finds the others there."""

    keyvaluestore: Annotated[
        str | None,
        Meta(
            description="Where the key-value store listens; several of one cluster are separated by commas.",
            extra={"positional": "KEYVALUESTORE_HOST:PORT"},
        ),
    ] = None
    advertise: Annotated[
        Annotated[str, Meta(pattern=_ADVERTISED, extra={"words": "HOST:PORT (an IPv6 address in brackets) or a URL"})]
        | None,
        Meta(
            description="The address to register; by default this machine's address on the key-value store's network.",
            extra={"metavar": "HOST:PORT"},
        ),
    ] = None
    registration_ttl: Annotated[
        settings.Period, Meta(description="How long the registration of a service that died stays.")
    ] = 15.0


class PublicConfig(Config, frozen=True, kw_only=True):
    """The settings of a service that browsers call."""

    public_url: PublicUrl = None
    cors_origins: CorsOrigins = ""
    share_port: Annotated[
        bool,
        Meta(description="Let several of these services on this machine listen on the same port, to use more cores."),
    ] = False
    own_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(
            description="A second port, which no other service shares, for metrics and probes; 0 takes a free one.",
        ),
    ] = None


Check = Callable[[], Awaitable[None]]
"""Returns when a dependency answers; raises `Error` with a sentence when it does not."""


class Neighbours:
    """The stores of the services that run in one process, which call one another directly.

    A store has the methods of its client. A service that is alone in its process has no neighbours.
    """

    def __init__(self) -> None:
        self._stores: dict[type[ServiceClient], Any] = {}

    def offer(self, client: type[ServiceClient], store: Any) -> None:
        """Let the other services of this process use a store instead of a client of this kind."""
        self._stores[client] = store

    def find(self, client: type[C]) -> C | None:
        """Return the store that replaces a client of this kind, or None if its service runs elsewhere."""
        found: C | None = self._stores.get(client)
        return found


class Service:
    """The state of a running service; `build` receives it."""

    def __init__(
        self,
        name: str,
        config: StandaloneConfig,
        session: aiohttp.ClientSession,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.name = name
        self.neighbours = neighbours or Neighbours()
        self.config = config
        self.session = session
        self.liveness: Liveness | None = None
        self.discovery: Discovery | None = None
        self.registry = CollectorRegistry()
        self.checks: dict[str, Check] = {}
        self.refreshers: list[Check] = []
        """Called before metrics are read, to update those that are not counted continuously."""
        self.stopping = asyncio.Event()
        self.gate = Gate(policy(config), shutdown_token=config.shutdown_token)
        self.connections = Connections(
            self.registry,
            self.gate.policy.proxies,
            header_timeout=config.header_timeout,
            per_address=config.connections,
        )
        self.routes: Table = {}
        """The routes with the access that each asks for, once the service runs."""
        self.port = 0
        self.registered = ""
        """The address that is registered at the key-value store, or that the next attempt registers."""
        self.may_register: Callable[[bool], Awaitable[None]] | None = None
        """Called before each registration, with whether the service is registered; raises CONFLICT if it may not be."""
        self._wake: list[Callable[[], None]] = []
        self._in_progress = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def title(self) -> str:
        """The name of the service in log messages."""
        return _TITLE.get(self.name, self.name.capitalize())

    @property
    def keyvaluestore(self) -> str | None:
        """`host:port` of the key-value store that this service uses, if any; several are separated by commas."""
        return self.config.keyvaluestore if isinstance(self.config, Config) else None

    @property
    def credentials(self) -> Credentials:
        """The credentials that identify this service to the others of the system."""
        cluster = self.gate.policy.cluster
        return no_credentials if cluster is None else cluster.credentials

    async def advertised(self) -> str:
        """Return `host:port` at which others reach this service, or a URL if it uses TLS."""
        address = self.config.advertise if isinstance(self.config, Config) else None
        if not address:
            # Names are looked up, which may take as long as a name server takes to answer.
            host = await asyncio.to_thread(reachable_host, self.config.host, self.keyvaluestore)
            address = f"{host}:{self.port}"
        return f"https://{address}" if self.config.tls_certificate and "://" not in address else address

    @property
    def url(self) -> str:
        """URL at which programs on this machine reach this service."""
        host = _loopback(self.config.host) if self.config.host in EVERY_NETWORK else self.config.host
        return f"{'https' if self.config.tls_certificate else 'http'}://{in_url(host)}:{self.port}"

    def on_stop(self, wake: Callable[[], None]) -> None:
        """Call `wake` when the service stops, so that long polls answer at once."""
        self._wake.append(wake)

    def stop(self) -> None:
        """Begin to stop: wake long polls, and let requests in progress end."""
        if not self.stopping.is_set():
            self.stopping.set()
            for wake in self._wake:
                wake()

    def begin(self) -> None:
        """Count a request as in progress until `end`, so that a stop waits for it."""
        if not self._in_progress:
            self._quiet.clear()
        self._in_progress += 1

    def end(self) -> None:
        """Count a request as answered."""
        self._in_progress -= 1
        if not self._in_progress:
            self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no request is in progress."""
        await self._quiet.wait()

    def uses(self, client: type[C], service: str, *, retry_for: float = 15.0, breaks: bool = False) -> C:
        """Return a client of another service, or the store itself where that service runs in this process.

        This service is not ready until the other one answers. If it `breaks`, calls do not wait for a service that has
        failed for `retry_for` seconds already.
        """
        found = self.neighbours.find(client)
        if found is not None:
            return found
        connection = self.needs(service)
        connection.retry_for = retry_for
        connection.breaker = Breaker() if breaks else None
        return client(connection)

    def needs(self, service: str) -> Connection:
        """Return a connection to another service. This service is not ready until that one answers."""
        if self.discovery is None:
            settings.fail(f"{self.name} needs the key-value store: give its HOST:PORT as the argument.")
        connection = self.connection(self.discovery.address(service))

        async def check() -> None:
            await connection.call("GET", "/healthz", bytes, retry=False)

        self.checks[service] = check
        return connection

    def depends_on(self, backend: Reachability) -> None:
        """Report in readiness and metrics whether the backend of this service can be reached."""
        self.checks[backend.name] = backend.check
        text = "Whether the backend of this service answers (1) or does not (0)"
        gauge = Gauge("safelight_backend_reachable", text, ["backend"], registry=self.registry)
        gauge.labels(backend.name).set_function(lambda: backend.is_reachable)

    def connection(self, address: Address, *, retry_for: float = 15.0) -> Connection:
        """Return a connection to another service of this system."""
        return Connection(
            self.session,
            address,
            credentials=self.credentials,
            retry_for=retry_for,
            answer_timeout=_ANSWER_TIMEOUT,
            liveness=self.liveness,
        )


def policy(config: StandaloneConfig) -> Policy:
    """Return the access policy that the settings describe; an invalid setting ends the program with a message."""
    advertised = config.advertise if isinstance(config, Config) else None
    public: dict[str, Any] = {}
    if isinstance(config, PublicConfig):
        public = {"public_url": config.public_url or None, "cors_origins": config.cors_origins}
    try:
        return Policy.of(config, host=config.host, advertised=advertised, **public)
    except PolicyError as error:
        settings.fail(str(error))


def keep_private(directory: str) -> None:
    """Make a data directory that its owner alone can enter, or close one that others can.

    A directory with the sticky bit, such as /tmp, stays as it is, since it belongs to all programs. One of the system
    itself ends the program with a message: closed, it would lock all other users out of the machine.
    """
    path = Path(directory)
    if str(path.resolve()) in _OF_THE_SYSTEM:
        settings.fail(f"--data: {path.resolve()} belongs to the system. Name a directory for safelight alone.")
    with suppress(OSError):  # the first write into the directory reports the error
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO) and not mode & stat.S_ISVTX:
            path.chmod(0o700)


def in_url(host: str) -> str:
    """Return a host as it is written before a port: an IPv6 address has brackets."""
    return f"[{host}]" if ":" in host else host


def reachable_host(host: str, keyvaluestore: str | None = None) -> str:
    """Return the address at which others reach a service that listens on `host`.

    For a service that listens on every network, it is this machine's address on the network of the key-value store, or
    that of the default route if there is none or its name is unknown. If this leads through QEMU's user network, it is
    that of the machine's name.
    """
    if host not in EVERY_NETWORK:
        return in_url(host)
    store = host_of(first_of(keyvaluestore or ""))
    target = store or ("2001:db8::1" if ":" in host else "192.0.2.1")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))  # sends nothing: it only asks the routing table
            address = str(probe.getsockname()[0])
        except (OSError, UnicodeError):  # or it cannot be a name
            return reachable_host(host) if store else in_url(_loopback(host))
    if not store and address.startswith(_USER_NETWORK):
        return _own_address() or address
    return in_url(address)


def _loopback(host: str) -> str:
    return "::1" if ":" in host else "127.0.0.1"


def _own_address() -> str:
    """Return the IPv4 address that this machine's own name has, or an empty string if it has none that others reach."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""
    return "" if address.startswith("127.") else address
