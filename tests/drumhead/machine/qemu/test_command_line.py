"""Test QEMU's command line."""

from pathlib import Path

import msgspec
import pytest

from drumhead.errors import ErrorCode
from drumhead.guest.contract import BootPlan, Channel, Drive, exec_channel
from drumhead.machine.network.private import MulticastGroup
from drumhead.machine.qemu.command_line import Card, command_line, private_netdev, user_netdev, user_nic
from drumhead.machine.qemu.spawn import start_failure
from drumhead.machine.records import PortForward

STATE = Path("/state")
BOOT = BootPlan(
    kernel=Path("/blobs/kernel"),
    initrd=Path("/state/initrd"),
    cmdline="console=ttyS0 quiet",
    drives=(
        Drive(path=Path("/blobs/a,b"), format="raw", serial="layer-0", readonly=True),
        Drive(path=Path("/volumes/data.qcow2"), format="qcow2", serial="volume-0", readonly=False),
        Drive(path=Path("/volumes/osv.raw"), format="raw", serial="volume-1", readonly=False, writethrough=True),
    ),
    channels=(
        Channel(name="org.drumhead.log", kind="file", path=STATE / "log"),
        Channel(name="org.drumhead.control", kind="socket", path=STATE / "control.sock"),
        exec_channel(STATE, 0),
    ),
)
CARDS = (
    Card(netdev="tap,ifname=t", mac="02:00:00:00:00:01"),
    Card(netdev="user", mac="02:00:00:00:00:02", has_channels=True),
)


def words(accelerator="tcg", cpus=2):
    return command_line(BOOT, name="a,b", memory=96, cpus=cpus, accelerator=accelerator, cards=CARDS, state=STATE)


def after(flag):
    line = words()
    return [line[number + 1] for number, word in enumerate(line) if word == flag]


def test_machine_has_what_was_asked_for_and_no_more():
    assert after("-m") == ["96M"]
    assert after("-smp") == ["2"]
    assert after("-append") == ["console=ttyS0 quiet"]
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(words())
    assert after("-boot") == ["strict=on"]


def test_disks_are_known_by_serial_number_and_layers_cannot_be_written():
    assert [part for part in after("-drive")[0].split(",") if part in {"readonly=on", "format=raw"}] == [
        "format=raw",
        "readonly=on",
    ]
    assert after("-drive")[0].startswith("file=/blobs/a,,b,")
    assert "readonly=off" in after("-drive")[1]
    assert "virtio-blk-pci,drive=disk1,serial=volume-0" in after("-device")


def test_sockets_are_named_from_the_directory_as_their_paths_are_short():
    assert all("/state" not in value for value in after("-chardev"))
    assert "file,path=log,append=on,id=org.drumhead.log" in after("-chardev")
    assert "virtserialport,chardev=org.drumhead.control,name=org.drumhead.control" in after("-device")


def test_a_port_that_is_used_on_demand_has_a_socket_only():
    assert "socket,path=exec.0.sock,server=on,wait=off,id=org.drumhead.exec.0" in after("-chardev")
    assert not any("exec" in device for device in after("-device"))


def test_cards_keep_their_order():
    assert after("-netdev") == ["tap,ifname=t,id=net0", "user,id=net1"]
    assert "virtio-net-pci,netdev=net1,mac=02:00:00:00:00:02,romfile=" in after("-device")


def test_acceleration():
    assert after("-accel") == ["tcg,thread=multi"]
    line = words("kvm")
    assert line[line.index("-accel") + 1 : line.index("-accel") + 4] == ["kvm", "-cpu", "host"]


@pytest.mark.parametrize(("accelerator", "expected"), [("tcg", "1,maxcpus=2"), ("kvm", "1")])
def test_one_emulated_cpu_has_room_beside_it_so_that_barriers_are_kept(accelerator, expected):
    line = words(accelerator, cpus=1)
    assert line[line.index("-smp") + 1] == expected


def test_a_disk_is_written_through_where_the_guest_never_flushes():
    drives = after("-drive")
    assert "cache=writethrough" in drives[2].split(",")
    assert not any("cache=" in drive for drive in drives[:2])


def test_networks_of_users():
    forwards = (
        PortForward(host_port=8080, guest_port=80),
        PortForward(host_port=5353, guest_port=53, protocol="udp", host_address="0.0.0.0"),
    )
    assert user_netdev(forwards) == "user,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:5353-:53"
    closed = user_netdev(forwards[:1], outgoing=False)
    assert closed == "user,restrict=on,hostfwd=tcp:127.0.0.1:8080-:80"
    assert user_nic("02:00:00:00:00:01", outgoing=True).nameserver == "10.0.2.3"
    assert user_nic("02:00:00:00:00:01", outgoing=False).nameserver == ""
    assert private_netdev(MulticastGroup("239.1.2.3", 20001)) == "socket,mcast=239.1.2.3:20001,localaddr=127.0.0.1"


def test_channels_of_a_guest_without_serial_ports_are_addresses_of_qemus_own_network():
    status = Channel(name="status", kind="file", path=STATE / "status", port=2)
    control = Channel(name="control", kind="socket", path=STATE / "control.sock", port=3)
    boot = msgspec.structs.replace(BOOT, channels=(status, control), console="log")
    line = command_line(boot, name="a", memory=96, cpus=1, accelerator="tcg", cards=CARDS, state=STATE)
    ways = ",guestfwd=tcp:10.0.2.100:2-chardev:status,guestfwd=tcp:10.0.2.100:3-chardev:control"
    assert [line[n + 1] for n, word in enumerate(line) if word == "-netdev"] == [
        "tap,ifname=t,id=net0",
        f"user{ways},id=net1",
    ]
    assert "serial-pci" not in " ".join(line)
    assert "virtserialport" not in " ".join(line)
    assert "logfile=log," in " ".join(line)


def test_a_disk_that_two_machines_start_with_at_once_is_named():
    said = 'qemu-system-x86_64: -device virtio-blk-pci,serial=volume-0: Failed to get "write" lock Is another process '
    error = start_failure("one", f"{said}using the image [/home/ann/.drumhead/volumes/data.raw]?")
    assert error.code is ErrorCode.CONFLICT
    assert error.message.endswith("another program uses the disk /home/ann/.drumhead/volumes/data.raw; stop it first")
    assert start_failure("one", "no such card").message == "QEMU could not start one: no such card"


def test_memory_that_the_host_does_not_have_is_told():
    said = "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory"
    assert start_failure("one", said).message.endswith("this host does not have that much memory; give less (-m)")
