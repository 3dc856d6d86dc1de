"""Find the services that a command talks to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from safelight.access.cluster_key import ClusterKey
from safelight.client.base import Connection, Credentials, Fixed, bearer, no_credentials, session
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.master import Client
from safelight.errors import Code, Error

DEFAULT_STORE = "localhost:8000"


@Parameter(name="*", group="Where and how")
@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a command finds the system, and how it prints.

    Parameters
    ----------
    master:
        The HOST:PORT of the master.
    keyvaluestore:
        The HOST:PORT of the key-value store, which knows the master.
    cluster_key_file:
        The file with the cluster key, for programs that run beside the services. People show an API key
        (SAFELIGHT_API_KEY) instead.
    json:
        Print JSON for programs.
    """

    master: Annotated[str | None, Parameter(env_var="SAFELIGHT_MASTER")] = None
    keyvaluestore: Annotated[str, Parameter(env_var="SAFELIGHT_KEYVALUESTORE")] = DEFAULT_STORE
    cluster_key_file: Annotated[Path | None, Parameter(env_var="SAFELIGHT_CLUSTER_KEY_FILE")] = None
    json: Annotated[bool, Parameter(negative="")] = False


HERE = Where()


@asynccontextmanager
async def master(where: Where, *, retry_for: float = 2.0) -> AsyncIterator[Client]:
    """Find the master and open a client; retry transient failures for `retry_for` seconds."""
    async with session() as http:
        address = where.master or await _ask_store(where)
        yield Client(Connection(http, Fixed(address), credentials=api_credentials(where), retry_for=retry_for))


@asynccontextmanager
async def store(where: Where) -> AsyncIterator[KeyValueStoreClient]:
    """Open a client of the key-value store."""
    async with session() as http:
        connection = Connection(http, Fixed(where.keyvaluestore), credentials=cluster_credentials(where), retry_for=1.0)
        yield KeyValueStoreClient(connection)


def api_credentials(where: Where) -> Credentials:
    """Return what the command shows the master: an API key; without one, the cluster key; without both, nothing."""
    key = os.environ.get("SAFELIGHT_API_KEY", "").strip()
    return bearer(key) if key else cluster_credentials(where)


def cluster_credentials(where: Where) -> Credentials:
    """Return what the command shows the services behind the master. Raises `Error` for a file that cannot be used."""
    return ClusterKey(where.cluster_key_file).credentials if where.cluster_key_file else no_credentials


async def _ask_store(where: Where) -> str:
    address = where.keyvaluestore
    try:
        async with store(where) as client:
            return await client.get("masterendpoint")
    except Error as error:
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
