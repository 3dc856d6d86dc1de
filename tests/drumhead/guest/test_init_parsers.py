"""Test parts of init on the host: its parsers of DHCP replies and JSON, with sanitizers and a fuzzer, and its files."""

import ctypes
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from drumhead.guest.linux.program import INIT

FUZZ = Path(__file__).parent / "fuzz"
PARSE = INIT.sources / "parse"
SANITIZERS = "-fsanitize=fuzzer,address,undefined"
SECONDS = 4
ID, HARDWARE = 0x11223344, bytes([2, 1, 2, 3, 4, 5])
NONE, DISCOVER, OFFER, REQUEST, ACK, NAK = 0, 1, 2, 3, 5, 6


class Route(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("target", "netmask", "gateway")]


class Lease(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("address", "netmask", "gateway")),
        ("nameservers", ctypes.c_uint32 * 3),
        *((name, ctypes.c_uint32) for name in ("server", "seconds", "renew", "rebind", "route_count")),
        ("routes", Route * 16),
        ("mtu", ctypes.c_uint32),
    ]

    def shown(self):
        found = {name: dotted(getattr(self, name)) for name in ("address", "netmask", "gateway", "server")}
        return found | {"nameservers": [dotted(one) for one in self.nameservers if one]}

    def shown_routes(self):
        routes = self.routes[: self.route_count]
        return [f"{dotted(one.target)}/{dotted(one.netmask)} {dotted(one.gateway)}" for one in routes]


def dotted(address):
    return socket.inet_ntoa(struct.pack("=I", address))


@pytest.fixture(scope="module")
def dhcp(tmp_path_factory):
    library = tmp_path_factory.mktemp("dhcp") / "dhcp.so"
    build = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library]
    subprocess.run([*build, PARSE / "dhcp_message.c"], check=True, timeout=60)
    return ctypes.CDLL(str(library))


def packet(kind, *options, yours="10.0.2.15", hardware=HARDWARE, number=ID, operation=2):
    """Return a message in the format of RFC 2131, made without the code under test."""
    fixed = struct.pack("=BBBBIHHIIII", operation, 1, 6, 0, number, 0, 0, 0, address(yours), 0, 0)
    tail = b"".join(bytes([code, len(value)]) + value for code, value in ((53, bytes([kind])), *options))
    return fixed + hardware + bytes(10 + 64 + 128) + b"\x63\x82\x53\x63" + tail + b"\xff"


def address(text):
    return struct.unpack("=I", socket.inet_aton(text))[0]


def option(code, *addresses):
    return code, b"".join(map(socket.inet_aton, addresses))


def read(dhcp, data, lease=None):
    lease = lease or Lease()
    kind = dhcp.dhcp_read(data, ctypes.c_size_t(len(data)), ctypes.c_uint32(ID), HARDWARE, ctypes.byref(lease))
    return kind, lease


def test_an_offer_gives_a_lease(dhcp):
    options = (
        option(1, "255.255.0.0"),
        option(3, "10.0.0.1", "10.0.0.2"),
        option(6, "10.0.2.3"),
        option(54, "10.0.2.2"),
    )
    kind, lease = read(dhcp, packet(OFFER, (0, b""), *options, (51, struct.pack(">I", 86400))))
    assert kind == OFFER
    assert lease.seconds == 86400
    assert lease.shown() == {
        "address": "10.0.2.15",
        "netmask": "255.255.0.0",
        "gateway": "10.0.0.1",
        "nameservers": ["10.0.2.3"],
        "server": "10.0.2.2",
    }


@pytest.mark.parametrize(("sent", "kept"), [(2, 2), (3, 3), (4, 3), (63, 3)])
def test_a_lease_has_up_to_three_name_servers_in_their_order(dhcp, sent, kept):
    servers = [f"10.0.3.{number}" for number in range(1, sent + 1)]
    assert read(dhcp, packet(ACK, option(6, *servers)))[1].shown()["nameservers"] == servers[:kept]
    code, value = option(6, *servers)
    assert read(dhcp, packet(ACK, (code, value[:-1])))[1].shown()["nameservers"] == servers[: min(sent - 1, kept)]


@pytest.mark.parametrize(
    ("value", "mtu"), [(b"\x05\xaa", 1450), (b"\x23\x28", 9000), (b"\x02\x40", 576), (b"\x02\x3f", 0), (b"\x05", 0)]
)
def test_a_lease_has_the_mtu_of_its_network_unless_that_is_impossible(dhcp, value, mtu):
    assert read(dhcp, packet(ACK, option(54, "10.0.2.2"), (26, value)))[1].mtu == mtu
    assert read(dhcp, packet(ACK, option(54, "10.0.2.2")))[1].mtu == 0


def test_a_renewal_without_a_server_keeps_it(dhcp):
    kind, lease = read(dhcp, packet(ACK), Lease(server=address("10.0.2.9")))
    assert (kind, lease.shown()["server"], lease.shown()["netmask"]) == (ACK, "10.0.2.9", "255.255.255.0")
    assert lease.seconds == 3600


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packet(ACK)[:239],
        packet(ACK, number=ID + 1),
        packet(ACK, hardware=bytes(6)),
        packet(ACK, operation=1),
        packet(ACK).replace(b"\x63\x82\x53\x63", b"\0\0\0\0"),
        packet(REQUEST),
        packet(OFFER),
        *[packet(ACK, yours=bad) for bad in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255")],
    ],
)
def test_what_is_no_reply_of_ours_changes_nothing(dhcp, data):
    kind, lease = read(dhcp, data, Lease(address=1, seconds=2))
    assert (kind, lease.address, lease.seconds) == (NONE, 1, 2)


def test_a_refusal_is_told_and_changes_nothing(dhcp):
    kind, lease = read(dhcp, packet(NAK, option(54, "10.0.2.2")), Lease(address=1))
    assert (kind, lease.address, lease.server) == (NAK, 1, 0)


def test_a_netmask_is_ones_and_then_zeros(dhcp):
    for odd in ("255.0.255.0", "0.0.0.0", "0.0.0.255"):
        assert read(dhcp, packet(ACK, option(1, odd)))[1].shown()["netmask"] == "255.255.255.0"
    assert read(dhcp, packet(ACK, option(1, "255.255.255.255")))[1].shown()["netmask"] == "255.255.255.255"


ROUTES = {
    "0.0.0.0/0.0.0.0": [0],
    "10.0.0.0/255.0.0.0": [8, 10],
    "10.0.0.0/255.255.255.0": [24, 10, 0, 0],
    "10.17.0.0/255.255.0.0": [16, 10, 17],
    "10.27.129.0/255.255.255.0": [24, 10, 27, 129],
    "10.229.0.128/255.255.255.128": [25, 10, 229, 0, 128],
    "10.198.122.47/255.255.255.255": [32, 10, 198, 122, 47],
}
"""The examples of RFC 3442: the target of a route, and how option 121 encodes it."""


def test_a_lease_has_routes_instead_of_a_router(dhcp):
    gateway = [10, 0, 2, 1]
    encoded = b"".join(bytes(target + gateway) for target in ROUTES.values())
    kind, lease = read(dhcp, packet(ACK, (121, encoded), option(3, "10.0.0.1")))
    assert (kind, lease.shown()["gateway"]) == (ACK, "0.0.0.0")
    assert lease.shown_routes() == [f"{target} 10.0.2.1" for target in ROUTES]
    (with_host_bits,) = read(dhcp, packet(ACK, (121, bytes([9, 10, 255, 0, 0, 0, 0]))))[1].shown_routes()
    assert with_host_bits == "10.128.0.0/255.128.0.0 0.0.0.0"


@pytest.mark.parametrize("rest", [[33, 1, 2, 3, 4, 5, 10, 0, 2, 1], [8, 10, 10, 0, 2], [32], [0, 1, 2, 3]])
def test_what_follows_a_broken_route_is_left_out(dhcp, rest):
    _, lease = read(dhcp, packet(ACK, (121, bytes([8, 10, 10, 0, 2, 1, *rest]))))
    assert lease.shown_routes() == ["10.0.0.0/255.0.0.0 10.0.2.1"]
    _, lease = read(dhcp, packet(ACK, (121, bytes(rest)), option(3, "10.0.0.1")))
    assert (lease.shown()["gateway"], lease.shown_routes()) == ("10.0.0.1", [])


def test_a_lease_has_up_to_sixteen_routes(dhcp):
    _, lease = read(dhcp, packet(ACK, (121, bytes([8, 10, 10, 0, 2, 1] * 17))))
    assert lease.shown_routes() == ["10.0.0.0/255.0.0.0 10.0.2.1"] * 16


def field(size, *options):
    return b"".join(bytes([code, len(value)]) + value for code, value in options).ljust(size, b"\0")


def test_options_may_continue_in_the_fields_of_file_and_server_name(dhcp):
    """Read what RFC 2132 (9.3) puts into other fields, and only if option 52 says so."""
    name = field(64, option(54, "10.0.2.2"), (255, b""))
    file = field(128, option(3, "10.0.0.1"), option(1, "255.255.0.0"))
    for overload, shown in (
        (None, {"gateway": "0.0.0.0", "netmask": "255.255.255.0", "server": "0.0.0.0"}),
        (1, {"gateway": "10.0.0.1", "netmask": "255.255.0.0", "server": "0.0.0.0"}),
        (2, {"gateway": "0.0.0.0", "netmask": "255.255.255.0", "server": "10.0.2.2"}),
        (3, {"gateway": "10.0.0.1", "netmask": "255.255.0.0", "server": "10.0.2.2"}),
    ):
        data = packet(ACK, *([(52, bytes([overload]))] if overload else []))
        kind, lease = read(dhcp, data[:44] + name + file + data[236:])
        assert kind == ACK
        assert {known: lease.shown()[known] for known in shown} == shown


def test_a_long_option_is_in_several_parts(dhcp):
    """Join the parts in the order of RFC 3396: the options, the file's field, then the name's."""
    encoded = b"".join(bytes([*target, 10, 0, 2, 1]) for target in ROUTES.values())
    data = packet(ACK, (52, b"\3"), (121, encoded[:7]), option(3, "10.0.0.1"), (121, encoded[7:20]))
    name, file = field(64, (121, encoded[33:])), field(128, (121, encoded[20:33]))
    _, lease = read(dhcp, data[:44] + name + file + data[236:])
    assert lease.shown_routes() == [f"{target} 10.0.2.1" for target in ROUTES]


SELECT, RENEW, REBIND = 0, 1, 2


def written(dhcp, kind, purpose, elapsed=0, name=b"one"):
    """Return a message that the client sends, as its fixed fields and its options by code."""
    message = ctypes.create_string_buffer(548)
    lease = Lease(address=address("10.0.2.15"), server=address("10.0.2.2"))
    words = (ctypes.c_uint32(ID), HARDWARE, ctypes.byref(lease), purpose, ctypes.c_uint16(elapsed), name)
    dhcp.dhcp_write(message, kind, *words)
    sent, options = message.raw, {}
    assert sent[236:240] == b"\x63\x82\x53\x63"
    at = 240
    while sent[at] != 255:
        options[sent[at]] = sent[at + 2 : at + 2 + sent[at + 1]]
        at += 2 + sent[at + 1]
    return sent, options


def test_a_request_for_an_offer_names_address_server_client_and_machine(dhcp):
    sent, options = written(dhcp, REQUEST, SELECT, elapsed=7)
    assert sent[:4] == b"\1\1\6\0"
    assert sent[4:8] == struct.pack("=I", ID)
    assert sent[8:10] == b"\0\7"
    assert sent[10:12] == b"\x80\0", "the answer is to be broadcast"
    assert sent[12:16] == bytes(4)
    assert sent[28:34] == HARDWARE[:6]
    assert options[53] == b"\3"
    assert (options[50], options[54]) == (socket.inet_aton("10.0.2.15"), socket.inet_aton("10.0.2.2"))
    assert (options[61], options[12]) == (b"\1" + HARDWARE[:6], b"one")
    assert {1, 3, 6, 26, 51, 58, 59, 121} <= set(options[55])
    assert options[55].index(121) < options[55].index(3), "RFC 3442"


@pytest.mark.parametrize("purpose", [RENEW, REBIND])
def test_a_lease_is_asked_for_again_from_its_address(dhcp, purpose):
    sent, options = written(dhcp, REQUEST, purpose, name=b"")
    assert sent[10:12] == b"\0\0"
    assert sent[12:16] == socket.inet_aton("10.0.2.15")
    assert not {50, 54, 12} & set(options), "RFC 2131, table 5"


def test_times_of_a_lease_are_the_server_s_or_half_and_seven_eighths(dhcp):
    def times(*options):
        _, lease = read(dhcp, packet(ACK, option(54, "10.0.2.2"), *options))
        return lease.seconds, lease.renew, lease.rebind

    def seconds(code, value):
        return code, struct.pack(">I", value)

    assert times(seconds(51, 800)) == (800, 400, 700)
    assert times(seconds(51, 800), seconds(58, 10), seconds(59, 20)) == (800, 10, 20)
    assert times(seconds(51, 800), seconds(58, 900), seconds(59, 1000)) == (800, 400, 700), "after its end"
    assert times(seconds(51, 0xFFFFFFFF))[0] == 0xFFFFFFFF
    assert times(seconds(51, 0)) == (3600, 1800, 3150), "no lease ends at once"


@pytest.fixture(scope="module", params=["json", "dhcp"])
def fuzzer(request, tmp_path_factory):
    """Return the program that libFuzzer drives, and its corpus."""
    program = tmp_path_factory.mktemp("fuzz") / request.param
    parser = PARSE / {"json": "json.c", "dhcp": "dhcp_message.c"}[request.param]
    build = ["clang", "-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", SANITIZERS, "-fno-sanitize-recover=all", f"-I{PARSE}"]
    subprocess.run([*build, "-o", program, FUZZ / f"{request.param}.c", parser], check=True, timeout=120)
    return program, FUZZ / "corpus" / request.param


def fuzz(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=SECONDS + 100, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


@pytest.mark.slow
def test_the_corpus_passes_under_sanitizers(fuzzer):
    program, corpus = fuzzer
    files = sorted(corpus.iterdir())
    assert len(files) > 10
    assert "Executed" in fuzz(program, *files)


@pytest.mark.slow
def test_fuzzing_finds_nothing(fuzzer, tmp_path):
    program, corpus = fuzzer
    found = shutil.copytree(corpus, tmp_path / "corpus")
    told = fuzz(program, f"-max_total_time={SECONDS}", "-max_len=1024", f"-artifact_prefix={tmp_path}/", found)
    assert "DONE" in told


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    library = tmp_path_factory.mktemp("files") / "files.so"
    build = ["cc", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library]
    subprocess.run([*build, INIT.sources / "base/files.c"], check=True, timeout=60)
    return ctypes.CDLL(str(library))


def test_a_program_that_reads_names_while_they_change_reads_all_of_the_old_ones(files, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    with hosts.open() as reading:
        files.replace_file(bytes(hosts), b"127.0.0.1 localhost\n10.64.0.1 web\n")
        assert reading.read() == "127.0.0.1 localhost\n"
    assert hosts.read_text() == "127.0.0.1 localhost\n10.64.0.1 web\n"
    assert [path.name for path in tmp_path.iterdir()] == ["hosts"]
