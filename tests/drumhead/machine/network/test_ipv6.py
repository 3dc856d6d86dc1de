"""Test IPv6: between machines, from `drumhead shell`, and in forwards from the host."""

import asyncio
import ipaddress
import os
import socket
import urllib.request
from pathlib import Path

import pytest

from drumhead.machine.network import relay
from drumhead.machine.records import PortForward
from support.guests.machines import LIMIT, find, wait_log

ASK = """
import socket, urllib.request
found = socket.getaddrinfo("six", 8000, type=socket.SOCK_STREAM)
print(*[address[0] for *_, address in found])
print(urllib.request.urlopen(f"http://[{found[-1][4][0]}]:8000/etc/hostname", timeout=60).read().decode())
"""
ASK_FROM_SHELL = """
cat /proc/net/if_inet6
curl -6 -sS --max-time 60 http://six:8000/etc/hostname || {
    status=$?
    ip -6 neigh >&2
    grep -E 'Neighbor|InReceives|OutRequests|InDiscards' /proc/net/snmp6 >&2
    exit $status
}
"""
"""Commands for after a failure: their output shows whether the machine's card was found, and what arrived."""


async def test_the_process_behind_an_ipv6_port_is_gone_after_the_machine():
    def children():
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    forward = PortForward(host_address="::1", host_port=0, guest_port=80)
    inner = PortForward(host_port=1, guest_port=80)
    machine = await asyncio.create_subprocess_exec("sleep", "600")
    with relay.doors((forward,), (inner,)) as found:
        before = children()
        relay.start_relay(machine.pid, found)
        (started,) = children() - before
    machine.kill()
    await machine.wait()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*relay._reaping)
    assert started not in children(), "a supervisor would collect one with each start of its machine"


@pytest.fixture(scope="module")
def six(drumhead, machine_image):
    """Run a machine whose server listens on IPv6 and IPv4 with the same socket."""
    words = ("run", "-d", "-m", "128M", "--private-network", "six", "-f", "[::1]:0:8000", "-f", "0:8000")
    drumhead(*words, "-e", "python3 -u -m http.server 8000 --bind ::", "-i", machine_image, "six")
    asyncio.run(wait_log(drumhead.home, "six", "Serving"))
    yield find(drumhead, "six")
    drumhead("delete", "--force", "six")


def get(port):
    with urllib.request.urlopen(f"http://[::1]:{port}/etc/hostname", timeout=LIMIT) as answer:
        return answer.read().decode()


@pytest.mark.slow
async def test_a_neighbour_finds_both_addresses_the_older_kind_first(drumhead, six, machine_image):
    launch = six["launch"]
    assert ipaddress.ip_address(launch["address6"]) in ipaddress.ip_network("fd00::/8")
    assert launch["address6"] in drumhead("instances")
    words = ("run", "-m", "96M", "--private-network", "six", "-i", machine_image, "six-asks")
    said = drumhead(*words, "-e", f"python3 -c '{ASK}'").splitlines()
    assert said[:2] == [f"{launch['address']} {launch['address6']}", "six"]


@pytest.mark.slow
async def test_a_shell_of_the_host_reaches_it(drumhead, six):
    *cards, said = drumhead("shell", "--private-network", "six", "--", "sh", "-c", ASK_FROM_SHELL).splitlines()
    assert said == "six"
    own = [words[4] for words in map(str.split, cards) if words[0].startswith("fd")]
    assert own == ["80"], "its address is permanent, and no longer tentative"


@pytest.mark.slow
async def test_the_host_reaches_it_from_an_ipv6_port_until_it_ends(drumhead, six, machine_image):
    port = next(one["host_port"] for one in six["launch"]["forwards"] if one["host_address"] == "::1")
    assert get(port) == "six"
    again = ("run", "-d", "-i", machine_image, "six-again", "-f", f"[::1]:{port}:8000")
    assert f"[::1]:{port} of this host cannot be used" in drumhead.refused(*again, status=5)
    drumhead("stop", "six")
    drumhead("start", "six")
    assert find(drumhead, "six")["launch"]["forwards"] == six["launch"]["forwards"]
    await wait_log(drumhead.home, "six", "Serving")
    with socket.create_connection(("::1", port), timeout=LIMIT):
        pass
