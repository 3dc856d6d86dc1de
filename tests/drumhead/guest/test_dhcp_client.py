"""Test init's DHCP client with real servers and with a misbehaving one, each in its own network namespace."""

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from drumhead.guest.linux.program import INIT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces with a DHCP server need root"),
]

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
SERVER, LEASED = "10.99.0.1", "10.99.0.77"
LIMIT = 60.0
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
NAMES = {DISCOVER: "DISCOVER", REQUEST: "REQUEST"}
UDHCPD = (
    "start 10.99.0.50\nend 10.99.0.99\ninterface s0\nlease_file {0}/leases\npidfile {0}/pid\nopt subnet 255.255.255.0\n"
)
NETWORKD = (
    "[Match]\nName=s0\n[Network]\nAddress=10.99.0.1/24\nDHCPServer=yes\n[DHCPServer]\nPoolOffset=50\nEmitDNS=no\n"
)
RUN_NETWORKD = (
    "ip address flush dev s0 && mount --make-rprivate / && "
    "mount -t sysfs -o ro sysfs /sys && mount -t tmpfs tmpfs /run && "
    "mkdir -p /run/systemd/network /run/systemd/netif /run/dbus && cp {0}/s0.network /run/systemd/network/ && "
    "export SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console && exec /lib/systemd/systemd-networkd"
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Return the client, compiled as a program."""
    program = tmp_path_factory.mktemp("client") / "client"
    names = ("network/dhcp.c", "network/announce.c", "parse/dhcp_message.c", "base/files.c")
    sources = [INIT.sources / name for name in names]
    build = ["cc", "-std=gnu11", "-D_GNU_SOURCE", "-g", "-fsanitize=address,undefined", f"-I{INIT.sources}"]
    words = [*build, "-o", program, Path(__file__).with_name("dhcp_client.c"), *sources, "-lm"]
    subprocess.run(words, check=True, timeout=120)
    return program


class Wire:
    """Connect two network namespaces: c0 is the client's end, s0 (10.99.0.1) the servers'."""

    def __init__(self, server, client):
        self.server, self.client = server, client

    def popen(self, namespace, *words, **more):
        inside = ["nsenter", "-t", str(namespace.pid), "-n", *map(str, words)]
        return subprocess.Popen(inside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)

    @contextlib.contextmanager
    def running(self, namespace, *words):
        with self.popen(namespace, *words) as process:
            try:
                yield process
            finally:
                process.terminate()

    def socket(self):
        """Return a socket on the servers' side, which receives what clients send."""
        made = []

        def make():
            handle = os.open(f"/proc/{self.server.pid}/ns/net", os.O_RDONLY)
            assert LIBC.setns(handle, CLONE_NEWNET) == 0
            os.close(handle)
            link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"s0")
            link.bind(("", 67))
            made.append(link)

        thread = threading.Thread(target=make)  # a thread can have its own namespace
        thread.start()
        thread.join()
        return made[0]


@pytest.fixture
def wire():
    with contextlib.ExitStack() as stack:
        ends = []
        for _ in range(2):
            process = stack.enter_context(subprocess.Popen(["unshare", "-n", "sleep", "600"]))
            stack.callback(process.kill)
            while Path(f"/proc/{process.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
                assert process.poll() is None
            ends.append(process)
        found = Wire(*ends)
        inside = ["nsenter", "-t", str(found.server.pid), "-n", "ip"]
        link = ["link", "add", "s0", "type", "veth", "peer", "name", "c0", "netns", str(found.client.pid)]
        subprocess.run([*inside, *link], check=True)
        subprocess.run([*inside, "address", "add", f"{SERVER}/24", "dev", "s0"], check=True)
        subprocess.run([*inside, "link", "set", "s0", "up"], check=True)
        subprocess.run(["nsenter", "-t", str(found.client.pid), "-n", "ip", "link", "set", "c0", "up"], check=True)
        while b"state UP" not in subprocess.check_output([*inside, "link", "show", "s0"], timeout=LIMIT):
            pass  # the kernel drops what s0 sends until it has noticed that c0 is up
        yield found


def said(process, text):
    """Read a program's output until it contains `text`; return the output."""
    lines = []
    limit = threading.Timer(LIMIT, process.kill)
    limit.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if text in line:
                return "".join(lines)
    finally:
        limit.cancel()
    raise AssertionError(f"{text!r} was not said: {''.join(lines)[-4000:]}")


def dnsmasq(directory):
    words = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--interface=s0", "--bind-interfaces", "--no-hosts"]
    words += ["--no-resolv", "--user=root", "--log-facility=-", f"--dhcp-leasefile={directory}/leases"]
    return [*words, "--dhcp-range=10.99.0.50,10.99.0.99,2m"], "started"


def udhcpd(directory):
    (directory / "udhcpd.conf").write_text(UDHCPD.format(directory))
    (directory / "leases").touch()
    return ["udhcpd", "-f", directory / "udhcpd.conf"], "started"


def networkd(directory):
    (directory / "s0.network").write_text(NETWORKD)
    directory.chmod(0o755)
    return ["unshare", "-m", "sh", "-c", RUN_NETWORKD.format(directory)], "DHCPv4 server: STARTED"


@pytest.mark.parametrize("server", [dnsmasq, udhcpd, networkd], ids=lambda one: one.__name__)
def test_a_lease_of_a_real_server(server, client, wire, tmp_path):
    """Get a lease from dnsmasq and udhcpd, which first check for up to 3 s whether the address is in use."""
    words, started = server(tmp_path)
    if shutil.which(str(words[0])) is None:
        pytest.skip(f"{words[0]} is not on this host")
    with wire.running(wire.server, *words) as process:
        said(process, started)
        with wire.running(wire.client, client, "c0", "15") as asking:
            assert " from 10.99.0.1" in said(asking, "has 10.99.0.")


def test_a_lease_is_released_at_the_end(client, wire, tmp_path):
    words, started = dnsmasq(tmp_path)
    with wire.running(wire.server, *words) as process:
        said(process, started)
        with wire.running(wire.client, client, "c0", "15", "release") as asking:
            said(asking, "released")
        assert "DHCPRELEASE(s0) 10.99.0." in said(process, "DHCPRELEASE")


class Server:
    """Run a server that a test controls. It records the messages that it got as (seconds, kind, id, ciaddr)."""

    def __init__(self, link):
        self.link, self.heard, self.sent = link, [], b""
        self.began = time.monotonic()

    def receive(self, seconds):
        """Return the next message, or None if none arrives in time."""
        self.link.settimeout(max(seconds, 0.001))
        try:
            message, (source, _) = self.link.recvfrom(2048)
        except TimeoutError:
            return None
        kind = message[message.index(b"\x35\x01", 240) + 2]
        at = time.monotonic() - self.began
        self.heard.append((at, NAMES[kind], message[4:8], socket.inet_ntoa(message[12:16]), source))
        return kind, message

    def expect(self, kind):
        """Return the next message, which is of this kind. Answer an earlier one again, as a server does."""
        got, message = self.receive(30)
        while got != kind and len(self.heard) > 1 and self.heard[-1][1:3] == self.heard[-2][1:3]:
            del self.heard[-1]  # on a busy host, the client repeated its message before it got the answer
            self.broadcast(self.sent)
            got, message = self.receive(30)
        assert got == kind
        return message

    def send(self, request, kind, *, yours=LEASED, server=SERVER, number=None, lease=600):
        fixed = struct.pack("!4B4sHH4s4s4s4s", 2, 1, 6, 0, number or request[4:8], 0, 0x8000, bytes(4),
                            socket.inet_aton(yours), bytes(4), bytes(4))  # fmt: skip
        options = bytes([53, 1, kind, 54, 4]) + socket.inet_aton(server) + bytes([51, 4]) + struct.pack("!I", lease)
        packet = fixed + request[28:44] + bytes(192) + b"\x63\x82\x53\x63" + options + b"\x01\x04\xff\xff\xff\0\xff"
        self.sent = packet
        self.broadcast(packet)

    def broadcast(self, packet):
        self.link.sendto(packet, ("255.255.255.255", 68))

    def kinds(self):
        return [kind for _, kind, *_ in self.heard]


@pytest.fixture
def server(wire):
    with wire.socket() as link:
        yield Server(link)


def test_a_late_second_offer_does_not_put_it_out_of_step(client, wire, server):
    with wire.running(wire.client, client, "c0", "15") as asking:
        discover = server.expect(DISCOVER)
        server.send(discover, OFFER)
        request = server.expect(REQUEST)
        server.send(request, OFFER, yours="10.99.0.88", server="10.99.0.2")
        server.send(request, ACK, yours="10.99.0.88", server="10.99.0.2")  # for the offer of another server
        server.send(request, NAK, number=b"1234")  # an answer to another exchange
        server.send(request, ACK)
        assert said(asking, "has ") == f"has {LEASED} from {SERVER}\n"
    assert server.kinds() == ["DISCOVER", "REQUEST"]
    assert discover[4:8] == request[4:8]


def test_a_lost_answer_is_asked_for_again(client, wire, server):
    with wire.running(wire.client, client, "c0", "20") as asking:
        server.expect(DISCOVER)
        server.send(server.expect(DISCOVER), OFFER)
        server.expect(REQUEST)
        server.send(server.expect(REQUEST), ACK)
        said(asking, f"has {LEASED}")
    assert len({number for _, _, number, *_ in server.heard}) == 1, "one exchange has one id"
    first, second, third, fourth = [at for at, *_ in server.heard]
    assert 1 < second - first < 4
    assert 1 < fourth - third < 4


@pytest.mark.parametrize("answer", ["silence", "refusal"])
def test_it_takes_its_time_between_rounds(client, wire, server, answer):
    with wire.running(wire.client, client, "c0", "10") as asking:
        while (got := server.receive(11 - (time.monotonic() - server.began))) is not None:
            if answer == "refusal":
                server.send(got[1], OFFER if got[0] == DISCOVER else NAK)
        assert said(asking, "none")
    rounds = [(at, number) for at, kind, number, *_ in server.heard if kind == "DISCOVER"]
    assert 2 <= len(rounds) <= 4, server.heard
    gaps = [later - sooner for (sooner, _), (later, _) in zip(rounds, rounds[1:], strict=False)]
    assert all(later > sooner for sooner, later in zip(gaps, gaps[1:], strict=False)), "the waits grow"
    assert len({number for _, number in rounds}) == (1 if answer == "silence" else len(rounds))


def test_a_lease_is_renewed_then_asked_of_all_then_given_up(client, wire, server):
    with wire.running(wire.client, client, "c0", "15") as asking:
        server.send(server.expect(DISCOVER), OFFER, lease=24)
        server.send(server.expect(REQUEST), ACK, lease=24)
        said(asking, f"has {LEASED}")
        server.send(server.expect(REQUEST), ACK, lease=24)
        assert server.heard[-1][3:] == (LEASED, LEASED), "renewed from its own address"
        said(asking, f"has {LEASED}")
        while server.receive(30)[0] == REQUEST:
            pass
        assert said(asking, "lost ")
    renewed, *unanswered, begun_anew = server.heard[2:]
    since = [at - renewed[0] for at, *_ in (*unanswered, begun_anew)]
    assert 11 < since[0] < 15, "half of the lease"
    assert 2 <= len(unanswered) <= 5
    assert begun_anew[1] == "DISCOVER"
    assert 23 < since[-1] < 28, "not before its end"


def test_a_short_lease_is_renewed_before_it_ends(client, wire, server):
    with wire.running(wire.client, client, "c0", "15") as asking:
        server.send(server.expect(DISCOVER), OFFER, lease=6)
        server.send(server.expect(REQUEST), ACK, lease=6)
        said(asking, f"has {LEASED}")
        server.expect(REQUEST)
    assert server.heard[-1][3:] == (LEASED, LEASED), "renewed from its own address"
    assert server.heard[-1][0] - server.heard[-2][0] < 6


def test_neighbours_learn_who_has_an_address_now(client, wire, server):
    """Lease an address that a neighbour still knows as that of another machine."""
    neighbour = ["nsenter", "-t", str(wire.server.pid), "-n", "ip", "neighbour"]
    subprocess.run([*neighbour, "add", LEASED, "lladdr", "02:00:00:00:00:01", "dev", "s0"], check=True)
    subprocess.run([*neighbour, "change", LEASED, "dev", "s0", "nud", "stale"], check=True)
    with wire.running(wire.client, client, "c0", "15") as asking:
        server.send(server.expect(DISCOVER), OFFER)
        server.send(server.expect(REQUEST), ACK)
        said(asking, f"has {LEASED}")
    known = subprocess.run([*neighbour, "show", LEASED], check=True, capture_output=True, text=True)
    assert "02:00:00:00:00:01" not in known.stdout
