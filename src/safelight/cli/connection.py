"""Find the services that a command talks to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import aiohttp
from cyclopts import Parameter

from safelight.access.cluster_key import ClusterKey
from safelight.cli import service_time
from safelight.cli.access import kept_keys
from safelight.cli.groups import WHERE
from safelight.cli.printing import Waiting
from safelight.cli.proxies import ProxiedConnector
from safelight.client.access import AccessClient
from safelight.client.availability.instances import Several, first_of
from safelight.client.availability.liveness import Liveness, while_waiting
from safelight.client.base import Connection, Credentials, bearer, no_credentials, session
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.master import Client
from safelight.errors import Code, Error

DEFAULT_STORE = "localhost:8000"


@Parameter(name="*", group=WHERE)
@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a command finds the system, and how it prints.

    Parameters
    ----------
    master:
        The HOST:PORT of the master, or several separated by commas.
    keyvaluestore:
        The HOST:PORT of the key-value store, where the masters are registered, or several separated by commas.
    cluster_key_file:
        The file with the cluster key, for programs that run beside the services. People use an API key
        (SAFELIGHT_API_KEY) instead.
    tenant:
        The tenant to act for, if you are an administrator of the system; by default your own.
    json:
        Print JSON for programs.
    """

    master: Annotated[str | None, Parameter(env_var="SAFELIGHT_MASTER")] = None
    keyvaluestore: Annotated[str, Parameter(env_var="SAFELIGHT_KEYVALUESTORE")] = DEFAULT_STORE
    cluster_key_file: Annotated[Path | None, Parameter(env_var="SAFELIGHT_CLUSTER_KEY_FILE")] = None
    tenant: Annotated[str | None, Parameter(env_var="SAFELIGHT_TENANT")] = None
    json: Annotated[bool, Parameter(negative="")] = False

    def __post_init__(self) -> None:
        """Take an empty variable of the environment, as compose files and shells set it, for none."""
        for field in fields(self):
            if getattr(self, field.name) == "":
                object.__setattr__(self, field.name, field.default)


HERE = Where()


@asynccontextmanager
async def master(where: Where, *, retry_for: float = 2.0) -> AsyncIterator[Client]:
    """Find the master and open a client; retry transient failures for `retry_for` seconds."""
    async with _session() as (http, liveness):
        address = await _address(where)
        shown = api_credentials(where, address)
        with _asking_for_a_key(where, address):
            yield Client(_connection(http, address, "master", shown, retry_for, liveness))


@asynccontextmanager
async def access(where: Where, *, credentials: Credentials | None = None) -> AsyncIterator[tuple[AccessClient, str]]:
    """Find the master and open a client for keys and tenants; yield it and the master's address."""
    async with _session() as (http, liveness):
        address = first_of(await _address(where))
        shown = credentials or api_credentials(where, address)
        with _asking_for_a_key(where, address):
            yield AccessClient(_connection(http, address, "master", shown, 2.0, liveness)), address


@asynccontextmanager
async def store(where: Where) -> AsyncIterator[KeyValueStoreClient]:
    """Open a client of the key-value store."""
    async with _session() as (http, liveness):
        address, shown = where.keyvaluestore, cluster_credentials(where)
        yield KeyValueStoreClient(_connection(http, address, "keyvaluestore", shown, 1.0, liveness))


def _connection(
    http: aiohttp.ClientSession, address: str, service: str, shown: Credentials, retry_for: float, liveness: Liveness
) -> Connection:
    where = Several(address)
    return Connection(http, where, credentials=shown, retry_for=retry_for, liveness=liveness, service=service)


@asynccontextmanager
async def _session() -> AsyncIterator[tuple[aiohttp.ClientSession, Liveness]]:
    """Open a session that notices within seconds when a service does not answer."""
    while_waiting.set(Waiting())
    async with session(trace=_listening(), connector=ProxiedConnector) as http, Liveness.open(http) as liveness:
        yield http, liveness


def _listening() -> aiohttp.TraceConfig:
    """Return the configuration of a session by which the time is learned from every answer."""

    async def answered(_session: aiohttp.ClientSession, _context: object, end: aiohttp.TraceRequestEndParams) -> None:
        service_time.learn(end.response.headers.get("Date", ""))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(answered)
    return trace


def api_credentials(where: Where, address: str) -> Credentials:
    """Return the credentials for the master at an address.

    They are the first of: the API key in SAFELIGHT_API_KEY, the key of `safelight login`, the cluster key, nothing.
    """
    key = _key(address)
    shown = bearer(key) if key else cluster_credentials(where)
    if where.tenant is None:
        return shown
    acting = {"Safelight-Tenant": where.tenant}
    return lambda method, path: {**shown(method, path), **acting}


@contextmanager
def _asking_for_a_key(where: Where, address: str) -> Iterator[None]:
    """Say how a command gets a key, if it has none and the master requires one."""
    try:
        yield
    except Error as error:
        if error.code is not Code.UNAUTHENTICATED or _key(address) or where.cluster_key_file not in (None, Path()):
            raise
        at = first_of(address)
        detail = f"The master at {at} requires a key. Run `safelight login --master {at}`, or set SAFELIGHT_API_KEY."
        raise Error(Code.UNAUTHENTICATED, detail) from None


def _key(addresses: str) -> str:
    return os.environ.get("SAFELIGHT_API_KEY", "").strip() or _kept_key(addresses)


def _kept_key(addresses: str) -> str:
    kept = kept_keys.load().keys
    return next((kept[address] for address in addresses.split(",") if address in kept), "")


async def _address(where: Where) -> str:
    """Return the master's address: the one given, the one of `safelight login`, or the one in the key-value store."""
    if where.master is not None:
        return where.master
    if where.keyvaluestore == DEFAULT_STORE and (kept := kept_keys.load().master):
        return kept
    return await _ask_store(where)


def cluster_credentials(where: Where) -> Credentials:
    """Return the credentials for the services behind the master. Raises `Error` for a file that cannot be used.

    An empty variable, as compose files and shells set it, names no file.
    """
    if where.cluster_key_file in (None, Path()):
        return no_credentials
    return ClusterKey(where.cluster_key_file).credentials


async def _masters(client: KeyValueStoreClient) -> str:
    """Return the addresses of all masters, separated by commas, or of one if the store tells only one."""
    try:
        entries = (await client.entries("masterendpoint")).entries
        found = list(dict.fromkeys(entry.value for entry in entries))
    except Error as error:
        if error.code not in (Code.UNAUTHENTICATED, Code.FORBIDDEN):
            raise
        found = []
    return ",".join(found) or await client.get("masterendpoint")


async def _ask_store(where: Where) -> str:
    address = where.keyvaluestore
    cluster_credentials(where)  # so that a key file that cannot be used is not taken for a silent store
    try:
        async with store(where) as client:
            return await _masters(client)
    except Error as error:
        if error.code is Code.UNAUTHENTICATED and where.cluster_key_file in (None, Path()):
            detail = (
                f"The key-value store {address} tells only services of this system where the master is. Sign in with "
                "`safelight login --master HOST:PORT`, or give --master."
            )
            raise Error(Code.UNAUTHENTICATED, detail) from None
        if error.code in (Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.MISDIRECTED):
            raise
        if error.code is Code.NOT_FOUND:
            detail = f"No master is registered at the key-value store {address} yet. Start one, or give --master."
        else:
            detail = (
                f"Nothing answers at {address}, where the key-value store should be. Start the system with "
                "`safelight up`, or say where it is with --keyvaluestore HOST:PORT or --master HOST:PORT."
            )
        raise Error(Code.UNAVAILABLE, detail) from None
