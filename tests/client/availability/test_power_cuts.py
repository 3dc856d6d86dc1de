"""Test requests that wait at a machine which loses its power: nothing tells the client, unless its kernel asks."""

import asyncio
import os
import sys

import pytest

from safelight.client.availability import sockets
from safelight.client.availability.instances import Several
from safelight.client.base import Connection, session
from safelight.errors import Code, Error
from support.servers.places import namespaces

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

SILENT_SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 8000))
print("listening", flush=True)
connection, _ = server.accept()
connection.recv(1000)
print("asked", flush=True)
connection.recv(1000)
"""
"""A server that receives a request and never answers."""


async def test_a_request_that_waits_fails_once_the_machine_there_has_started_anew(monkeypatch):
    monkeypatch.setattr(sockets, "_IDLE", 1)
    with namespaces() as places:
        host = places.host("service")
        server = await asyncio.create_subprocess_exec(
            *places.prefix("service"), sys.executable, "-c", SILENT_SERVER, host, stdout=asyncio.subprocess.PIPE
        )
        assert await server.stdout.readline() == b"listening\n"
        async with session() as http:
            connection = Connection(http, Several(f"{host}:8000"), retry_for=0.0)
            request = asyncio.create_task(connection.call("GET", "/events", bytes, wait=60.0))
            assert await server.stdout.readline() == b"asked\n"
            places.unplug("service")
            server.kill()
            await server.wait()
            places.restart("service")
            async with asyncio.timeout(30):  # the request is repeated once, at a machine where no server runs yet
                with pytest.raises(Error, match="connection refused") as failed:
                    await request
        assert failed.value.code is Code.UNAVAILABLE
