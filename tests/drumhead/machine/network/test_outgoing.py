"""Test what a machine reaches beyond its private network: the host by default, and nothing with --no-outgoing."""

import asyncio
import json
import urllib.request

import pytest

from support.guests.machines import LIMIT, find, forwarded, wait_log

ASK = """
import socket, sys
host, port = "10.0.2.2", int(sys.argv[1])
try:
    with socket.create_connection((host, port), timeout=60) as one:
        print("tcp", one.recv(10).decode())
except OSError as error:
    print("tcp", type(error).__name__)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.sendto(b"from " + sys.argv[2].encode(), (host, port))
"""
"""A program that connects to a port on the host's loopback address, and sends a datagram there."""


class Listener(asyncio.DatagramProtocol):
    """A service of the host on its loopback address, by TCP and UDP."""

    def __init__(self):
        self.heard = asyncio.Queue()

    def datagram_received(self, data, _address):
        self.heard.put_nowait(data.decode())

    async def answer(self, _reader, writer):
        writer.write(b"the host")
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def host():
    """Run a service of the host; yield it with its port."""
    listener = Listener()
    server = await asyncio.start_server(listener.answer, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: listener, ("127.0.0.1", listener.port))
    yield listener
    transport.close()
    server.close()


@pytest.fixture(scope="module")
def closed(drumhead, machine_image):
    words = (
        "run",
        "-d",
        "-m",
        "128M",
        "--no-outgoing",
        "--private-network",
        "closing",
        "-f",
        "0:8000",
    )
    drumhead(*words, "-i", machine_image, "closed")
    asyncio.run(wait_log(drumhead.home, "closed", "serving"))
    yield find(drumhead, "closed")
    drumhead("delete", "--force", "closed")


def ask(drumhead, machine, port):
    return drumhead("exec", machine, "--", "/usr/bin/python3", "-c", ASK, str(port), machine).strip()


@pytest.mark.slow
async def test_a_machine_without_outgoing_traffic_does_not_reach_the_host(drumhead, closed, machine_image, host):
    words = ("run", "-d", "-m", "128M", "--private-network", "closing", "-i", machine_image, "open")
    await asyncio.to_thread(drumhead, *words)
    try:
        await wait_log(drumhead.home, "open", "serving")
        assert await asyncio.to_thread(ask, drumhead, "closed", host.port) == "tcp ConnectionRefusedError"
        assert await asyncio.to_thread(ask, drumhead, "open", host.port) == "tcp the host"
        async with asyncio.timeout(LIMIT):
            assert await host.heard.get() == "from open"
        for machine, other in (("open", "closed"), ("closed", "open")):
            words = ("exec", machine, "--", "wget", "-q", "-O", "-", f"http://{other}:8000/")
            assert json.loads(await asyncio.to_thread(drumhead, *words))["host"] == other
    finally:
        await asyncio.to_thread(drumhead, "delete", "--force", "open")


@pytest.mark.slow
def test_forwards_reach_a_machine_without_outgoing_traffic(closed):
    with urllib.request.urlopen(f"http://127.0.0.1:{forwarded(closed, 8000)}", timeout=LIMIT) as answer:
        assert json.load(answer)["host"] == "closed"


def test_outgoing_traffic_is_not_promised_away_where_it_is_needed(empty):
    refused = empty.refused("run", "--no-outgoing", "-n", "bridge", "image", status=2)
    assert "--no-outgoing: it cannot close a network of the host; leave out -n bridge" in refused
    refused = empty.refused("run", "--no-outgoing", "-f", "0:53/udp", "image", status=2)
    assert "--no-outgoing: forward TCP ports only" in refused
