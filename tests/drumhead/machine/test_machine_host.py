"""Test features that depend on the host: the trial of accelerators, networks that may be missing, and disks."""

import asyncio
import subprocess
from pathlib import Path

import msgspec
import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.home import Home
from drumhead.image.store import ImageStore
from drumhead.machine.network import host as host_network
from drumhead.machine.network.host import host_netdev
from drumhead.machine.qemu import acceleration
from drumhead.machine.qemu.acceleration import find_acceleration, try_boot
from drumhead.machine.records import VolumeMount
from drumhead.machine.volume.volumes import open_volumes, volume_path


@pytest.fixture(scope="module")
def probe(drumhead, machine_image):
    """Return the boot plan with which accelerators are tried."""
    images = ImageStore(drumhead.home)
    return find_guest("linux").probe(images.files(images.find(machine_image)))


@pytest.mark.slow
async def test_emulation_boots_the_probe(probe):
    assert await try_boot(probe, "tcg", 60) == ""


async def test_a_machine_that_hangs_is_given_up(probe):
    assert "does not boot on it within 0 s" in await try_boot(probe, "tcg", 0.2)


async def test_a_machine_that_ends_without_the_sign_does_not_count(probe):
    silent = msgspec.structs.replace(probe, kernel=Path("/dev/null"))
    assert "does not boot on it" in await try_boot(silent, "tcg", 30)


@pytest.mark.slow
async def test_the_answer_is_remembered_until_the_host_boots_again(probe, tmp_path, monkeypatch):
    home = Home(root=tmp_path)
    first = await find_acceleration(home, probe)
    monkeypatch.setattr(acceleration, "TIME_LIMIT", 0.0)  # a second trial would fail at once
    assert await find_acceleration(home, probe) == first
    if first.accelerator == "tcg":
        assert str(acceleration.DEVICE) in first.reason


async def test_a_host_without_the_device_emulates_and_says_so(probe, tmp_path, monkeypatch):
    monkeypatch.setattr(acceleration, "DEVICE", tmp_path / "kvm")
    found = await find_acceleration(Home(root=tmp_path), probe)
    assert found.accelerator == "tcg"
    assert found.reason.endswith("kvm is missing")


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Set up a host that has everything; the tests remove parts of it."""
    for name, place in {"TUN": "tun", "VHOST": "vhost-net"}.items():
        (tmp_path / place).touch()
        monkeypatch.setattr(host_network, name, tmp_path / place)
    (tmp_path / "net/br0/bridge").mkdir(parents=True)
    (tmp_path / "helper").touch(0o755)
    (tmp_path / "helper").chmod(0o4755)
    (tmp_path / "bridge.conf").write_text("allow br0\n")
    monkeypatch.setattr(host_network, "INTERFACES", tmp_path / "net")
    monkeypatch.setattr(host_network, "HELPERS", (tmp_path / "helper",))
    monkeypatch.setattr(host_network, "ALLOWED_BRIDGES", tmp_path / "bridge.conf")
    return tmp_path


def add_tap(host, name, carrier):
    (host / "net" / name).mkdir()
    (host / "net" / name / "tun_flags").touch()
    (host / "net" / name / "carrier").write_text(f"{carrier}\n")


def test_each_machine_takes_a_free_tap(host):
    for name, carrier in {"tap0": 1, "tap10": 0, "tap2": 0, "vpn": 0}.items():
        add_tap(host, name, carrier)
    assert host_netdev("tap", "") == "tap,ifname=tap2,script=no,downscript=no"
    assert host_netdev("tap", "vpn") == "tap,ifname=vpn,script=no,downscript=no"
    with pytest.raises(DrumheadError, match="tap0 is in use by another machine"):
        host_netdev("tap", "tap0")
    for name in ("tap2", "tap10"):
        (host / "net" / name / "carrier").write_text("1\n")
    with pytest.raises(DrumheadError, match="no free tap device .*ip tuntap add tap1 mode tap"):
        host_netdev("tap", "")


def test_networks_of_the_host(host):
    add_tap(host, "tap7", 0)
    assert host_netdev("tap", "tap7") == "tap,ifname=tap7,script=no,downscript=no"
    assert host_netdev("bridge", "") == f"tap,br=br0,helper={host}/helper"
    assert host_netdev("vhost", "br0") == f"tap,br=br0,helper={host}/helper,vhost=on"


@pytest.mark.parametrize(
    ("mode", "device", "missing", "told"),
    [
        ("tap", "", "", "ip tuntap add tap0 mode tap"),
        ("tap", "tap3", "", "there is no tap device tap3"),
        ("bridge", "br9", "", "there is no bridge br9"),
        ("bridge", "", "tun", "modprobe tun"),
        ("bridge", "", "helper", "qemu-bridge-helper is not installed"),
        ("bridge", "", "bridge.conf", "does not allow it"),
        ("vhost", "", "vhost-net", "modprobe vhost_net"),
    ],
)
def test_what_the_host_lacks_is_said_with_what_to_do(host, mode, device, missing, told):
    if missing:
        (host / missing).unlink()
    with pytest.raises(DrumheadError, match=f"-n {mode} does not work on this host") as error:
        host_netdev(mode, device)
    assert error.value.code is ErrorCode.UNSUPPORTED
    assert told in error.value.message


async def test_a_volume_is_made_once_and_takes_no_room_yet(tmp_path):
    home, volume = Home(root=tmp_path), VolumeMount(source="data", path="/data", size=64 << 20)
    (drive,), (mount,) = await open_volumes(home, (volume,), find_guest("linux"))
    assert (mount.serial, mount.path) == (drive.serial, "/data")
    found = drive.path.stat()
    assert found.st_size == 64 << 20
    assert found.st_blocks * 512 < 8 << 20
    await asyncio.to_thread(subprocess.run, ["e2fsck", "-fn", drive.path], capture_output=True, check=True)
    await open_volumes(home, (volume,), find_guest("linux"))
    assert drive.path.stat().st_mtime_ns == found.st_mtime_ns
    assert list(drive.path.parent.glob("*.raw")) == [volume_path(home, volume)]


async def test_disks_that_cannot_be(tmp_path):
    with pytest.raises(DrumheadError) as error:
        await open_volumes(Home(root=tmp_path), (VolumeMount(source="./none.raw", path="/x"),), find_guest("linux"))
    assert error.value.code is ErrorCode.NOT_FOUND
    with pytest.raises(DrumheadError) as error:
        await open_volumes(
            Home(root=tmp_path), (VolumeMount(source="tiny", path="/x", size=1000),), find_guest("linux")
        )
    assert error.value.code is ErrorCode.USAGE
