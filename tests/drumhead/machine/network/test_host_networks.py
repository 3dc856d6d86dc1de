"""Test cards on networks of the host: a real bridge and a real tap with a DHCP server, in a network namespace.

The tests need root and several programs; without these they are skipped with a reason.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from drumhead.machine.network import host
from support.guests import osv
from support.guests.machines import COMMAND, LIMIT, wait_log, wait_until
from support.guests.server import SERVER

pytestmark = pytest.mark.slow

LACKING = [
    *([] if os.geteuid() == 0 else ["root"]),
    *[program for program in ("ip", "dnsmasq", "unshare", "nsenter", "curl") if shutil.which(program) is None],
    *([] if Path("/dev/net/tun").exists() else ["/dev/net/tun"]),
]
# A bridge with a tap, one whose DHCP server checks for 3 s whether an address is in use before it offers it, and one
# whose server leases addresses alone, with a gateway that is in no network and small packets, as Calico does.
# QEMU's bridge helper reads /etc/qemu/bridge.conf, so the namespace gets its own /etc.
SET_UP = """
set -e
mount --make-rprivate / && mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs "$1" && mkdir "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" overlay /etc
mkdir -p /etc/qemu && echo "allow all" >/etc/qemu/bridge.conf
ip link set lo up
ip link add br0 type bridge && ip addr add 10.99.0.1/24 dev br0 && ip link set br0 up
ip link add br1 type bridge && ip addr add 10.98.0.1/24 dev br1 && ip link set br1 up
ip link add br2 type bridge && ip addr add 10.97.0.1/24 dev br2 && ip link set br2 up
ip addr add 169.254.1.1/32 dev br2
ip tuntap add tap0 mode tap && ip link set tap0 master br0 && ip link set tap0 up
dhcp="dnsmasq --keep-in-foreground --conf-file=/dev/null --bind-interfaces --no-hosts --no-resolv --log-facility=-"
$dhcp --user=root --pid-file --interface=br1 --except-interface=lo --port=0 --dhcp-range=10.98.0.50,10.98.0.99,2m \
  --dhcp-leasefile="$1/checked" &
$dhcp --user=root --pid-file --interface=br2 --except-interface=lo --port=0 --no-ping \\
  --dhcp-range=10.97.0.50,10.97.0.99,2m --dhcp-option-force=option:netmask,255.255.255.255 \\
  --dhcp-option=option:router,169.254.1.1 --dhcp-option=option:mtu,1450 --dhcp-leasefile="$1/alone" &
exec $dhcp --user=root --pid-file --interface=br0 --no-ping --dhcp-range=10.99.0.50,10.99.0.99,2m \
  --dhcp-option-force=option:T1,10 --dhcp-option=option:dns-server,10.99.0.1,10.99.0.2 \\
  --dhcp-option=option:classless-static-route,169.254.169.254/32,0.0.0.0,0.0.0.0/0,10.99.0.1 \\
  --dhcp-leasefile="$1/leases"
"""


class Namespace:
    """Run a network with a DHCP server, and keep the server's output."""

    def __init__(self, process, said):
        self._process = process
        self._said = said

    def run(self, *words, env=None):
        inside = ["nsenter", "-t", str(self._process.pid), "-n", "-m", *map(str, words)]
        return subprocess.run(inside, capture_output=True, text=True, timeout=LIMIT, env=env, check=False)

    def said(self):
        assert self._process.poll() is None, self._said.read_text()
        return self._said.read_text()


@pytest.fixture(scope="module")
def namespace(tmp_path_factory):
    if LACKING:
        pytest.skip(f"bridge and tap are not tried: this needs {', '.join(LACKING)}")
    root = tmp_path_factory.mktemp("namespace")
    (root / "own").mkdir()
    words = ["unshare", "-n", "-m", "sh", "-c", SET_UP, "sh", str(root / "own")]
    with (root / "said").open("wb") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said, start_new_session=True)
    with process:
        found = Namespace(process, root / "said")
        asyncio.run(wait_until(root, lambda: found.said().count("started") == 3))
        yield found
        os.killpg(process.pid, signal.SIGTERM)  # both servers


class Inside:
    """Run the drumhead command in the namespace."""

    def __init__(self, home, namespace):
        self._home, self._namespace = home, namespace

    def done(self, *words):
        return self._namespace.run(*COMMAND, *words, env={**os.environ, "DRUMHEAD_HOME": str(self._home.root)})

    def said(self, *words):
        """Run a command that must succeed; return its standard error."""
        done = self.done(*words)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def __call__(self, *words):
        done = self.done(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def inside(drumhead, namespace):
    return Inside(drumhead.home, namespace)


async def address_of(drumhead, inside, name):
    """Return the address that a machine's first card got."""
    await wait_log(drumhead.home, name, "serving")
    known = next(one for one in json.loads(inside("instances", "--json")) if one["launch"]["spec"]["name"] == name)
    return known["addresses"].get("eth0")


@pytest.fixture(scope="module", params=["linux", "osv"])
def guest(request, drumhead, tmp_path_factory):
    """Return a guest for which an image `onhost` exists."""
    if request.param == "osv":
        drumhead("kernel", "add", *osv.real_files())
    root = tmp_path_factory.mktemp("on-host-networks")
    (root / "meta").mkdir()
    (root / "meta/package.yaml").write_text("name: onhost\ntitle: O\nauthor: a\nrequire: [python, cli]\n")
    (root / "meta/run.yaml").write_text("runtime: python\nconfig_set:\n  serve:\n    main: /server.py\n")
    (root / "server.py").write_text(SERVER)
    drumhead("package", "compose", "-C", root, "--guest", request.param, "onhost")
    return request.param


@contextlib.contextmanager
def machine(inside, guest, name, network):
    inside("run", "-d", "--guest", guest, "-i", "onhost", name, "-m", "128M", "-n", network)
    try:
        yield
    finally:
        inside("delete", "--force", name)


def links(namespace):
    return {one["ifname"] for one in json.loads(namespace.run("ip", "-j", "link").stdout)}


@pytest.mark.parametrize("network", ["bridge", "tap"])
async def test_a_machine_gets_an_address_and_is_reached(drumhead, namespace, inside, network, guest):
    before = links(namespace)
    with machine(inside, guest, f"on-{network}", network):
        address = await address_of(drumhead, inside, f"on-{network}")
        assert address
        assert address.startswith("10.99.0.")
        answer = namespace.run("curl", "-sS", "--retry", "20", "--retry-connrefused", f"http://{address}:8000/")
        assert json.loads(answer.stdout)["host"] == f"on-{network}", answer.stderr
        if guest == "linux":
            resolvers = inside("exec", f"on-{network}", "--", "cat", "/etc/resolv.conf")
            assert resolvers == "nameserver 10.99.0.1\nnameserver 10.99.0.2\n"
            routes = [line.split() for line in inside("exec", f"on-{network}", "--", "ip", "route").splitlines()]
            assert ["default", "via", "10.99.0.1", "dev", "eth0"] in routes
            assert ["169.254.169.254", "dev", "eth0", "scope", "link"] in routes
            names = inside("exec", f"on-{network}", "--", "cat", "/etc/hosts")
            assert names == f"127.0.0.1 localhost\n{address} on-{network}\n", "and no machines of a private network"
    assert links(namespace) == before, "what was made for the machine went with it"


@pytest.mark.parametrize(
    "guest", ["linux"], indirect=True
)  # for OSv, the test above runs two machines one after another
async def test_five_machines_at_once_get_an_address_each(drumhead, namespace, inside, guest):
    """Use a server that checks for 3 s whether an address is in use; every machine prints the address that it got."""
    names = [f"among-{number}" for number in range(5)]
    program = ("-e", "sh -c 'echo serving; exec busybox httpd -f -p 8000 -h /etc'")
    run = ("run", "-d", "--guest", guest, "-i", "onhost", "-m", "96M", "-n", "bridge", "-b", "br1", *program)
    try:
        said = await asyncio.gather(*(asyncio.to_thread(inside.said, *run, name) for name in names))
        printed = [re.findall(r"^eth0: (10\.98\.0\.\d+)$", one, re.MULTILINE) for one in said]
        addresses = [address for (address,) in printed]
        assert len(set(addresses)) == len(names)
        for name, address in zip(names, addresses, strict=True):
            await wait_log(drumhead.home, name, "serving")
            # Its program says that it serves a moment before it listens.
            url = f"http://{address}:8000/hostname"
            answer = namespace.run("curl", "-sS", "--retry", "20", "--retry-connrefused", url)
            assert answer.stdout.strip() == name, answer.stderr
        for neighbour, name in zip(addresses[1:], names[1:], strict=True):
            answer = inside("exec", names[0], "--", "wget", "-qO-", f"http://{neighbour}:8000/hostname")
            assert answer.strip() == name
        asked = namespace.said().count("DHCPDISCOVER(br1)")
        assert asked < 10 * len(names), "each asks every few seconds, not all the time"
    finally:
        inside("delete", "--force", *names)


@pytest.mark.parametrize("guest", ["linux"], indirect=True)
async def test_a_gateway_outside_the_network_of_the_address_and_the_mtu_are_used(drumhead, namespace, inside, guest):
    words = ("-m", "128M", "-n", "bridge", "-b", "br2")
    inside("run", "-d", "--guest", guest, "-i", "onhost", "alone", *words)
    try:
        address = await address_of(drumhead, inside, "alone")
        assert address.startswith("10.97.0.")
        # Without a route to the gateway there is no way back to the client.
        answer = namespace.run("curl", "-sS", "--retry", "20", "--retry-connrefused", f"http://{address}:8000/")
        assert json.loads(answer.stdout)["host"] == "alone", answer.stderr
        assert "cannot set a route" not in inside("logs", "--console", "alone")
        assert inside("exec", "alone", "--", "cat", "/sys/class/net/eth0/mtu") == "1450\n"
    finally:
        inside("delete", "--force", "alone")


@pytest.mark.parametrize("guest", ["linux"], indirect=True)
@pytest.mark.skipif(host.VHOST.exists(), reason="this host has vhost-net")
def test_without_vhost_net_the_command_says_what_is_missing(namespace, inside, guest):
    refused = inside.done("run", "-d", "--guest", guest, "-i", "onhost", "vhosted", "-n", "vhost", "-b", "br0")
    assert refused.returncode == 5
    assert refused.stderr == (
        "drumhead: -n vhost does not work on this host: /dev/vhost-net is missing or cannot be opened (as root: "
        "modprobe vhost_net). The default network (without -n) needs none of this\n"
    )


def test_qemu_takes_the_card_of_a_host_with_vhost_net(namespace, monkeypatch):
    """QEMU gets a tap on the bridge from its helper and then opens the device; QEMU 7.2 ends where there is none."""
    has_device = host.VHOST.exists()
    monkeypatch.setattr(host, "VHOST", host.TUN)
    monkeypatch.setattr(host, "_find_bridge", lambda _mode, device: device)
    monkeypatch.setattr(host, "_find_helper", lambda _mode, _bridge: next(filter(Path.is_file, host.HELPERS)))
    card = ("-netdev", f"{host.host_netdev('vhost', 'br0')},id=net0", "-device", "virtio-net-pci,netdev=net0,romfile=")
    monitor = "ulimit -c 0; printf 'info network\nquit\n' | exec qemu-system-x86_64 \"$@\" -monitor stdio"
    plain = ("-machine", "q35", "-nodefaults", "-display", "none", "-S")
    done = namespace.run("sh", "-c", monitor, "sh", *plain, *card)
    if has_device:
        assert done.returncode == 0, done.stderr
        assert "type=tap,helper=" in done.stdout
    else:
        # QEMU 7.2 calls this a warning, and QEMU 10 does not.
        failed = r"(warning: )?tap: open vhost char device failed: No such file or directory"
        assert re.search(rf"-netdev tap,br=br0,helper=/\S+,vhost=on,id=net0: {failed}", done.stderr)


@pytest.mark.parametrize("guest", ["linux"], indirect=True)  # OSv asks only once, as docs/internals/osv.md documents
async def test_a_lease_is_renewed_before_it_ends(drumhead, namespace, inside, guest):
    with machine(inside, guest, "renewing", "bridge"):
        address = await address_of(drumhead, inside, "renewing")
        directory = namespace._said.parent
        await wait_until(directory, lambda: namespace.said().count(f"DHCPACK(br0) {address} ") >= 2)
