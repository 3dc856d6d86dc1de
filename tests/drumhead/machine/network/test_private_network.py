"""Test addresses and names on the private network, which are computed from names alone."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.machine.instances import Instances
from drumhead.machine.launch import record_start
from drumhead.machine.network import private
from support.guests.stubs import launched

NETWORK = ipaddress.ip_network("10.64.0.0/10")


def on_network(name, *, on="one", aliases=(), mac=""):
    mac = mac or private.derive_mac(on, name)
    return launched(name, mac=mac, address=private.derive_address(mac), private_network=on, aliases=aliases)


@pytest.mark.slow
@given(st.text(), st.text())
def test_every_name_has_a_usable_mac_and_address(on, name):
    mac = private.derive_mac(on, name)
    assert mac.startswith("02:")
    assert len(mac) == 17
    assert ipaddress.ip_address(private.derive_address(mac)) in NETWORK


@pytest.mark.parametrize("mac", ["02:00:00:00:00:00", "02:00:00:3f:ff:ff", "fe:ff:ff:ff:ff:ff"])
def test_the_edges_of_the_network_belong_to_nobody(mac):
    address = ipaddress.ip_address(private.derive_address(mac))
    assert address not in {NETWORK.network_address, NETWORK.broadcast_address}


def test_a_mac_has_the_same_address_at_every_launch():
    assert private.derive_address("a2:13:15:00:80:01") == "10.64.128.1"


def test_names_and_aliases_of_one_link_only():
    worker, second = on_network("f-worker", aliases=("worker",)), on_network("f-worker-2")
    db, stranger = on_network("db.one", aliases=("worker",)), on_network("stranger", on="other")
    names = {
        "db-one": db.address,
        "db.one": db.address,
        "f-worker": worker.address,
        "f-worker-2": second.address,
        "worker": db.address,
    }
    on_both_sides = {f"{name}.localhost": address for name, address in names.items()}
    assert private.network_hosts([worker, second, db, stranger], "one") == names | on_both_sides


@pytest.mark.parametrize("name", ["my_db", "my.db", "my-db"])
def test_a_machine_is_reached_by_the_name_that_it_was_given(name):
    names = private.network_hosts([on_network(name)], "one")
    assert next(iter(names)) == "my-db", "the first one is what an address is translated to"
    assert {name, f"{name}.localhost"} <= names.keys()


def test_two_machines_with_one_address_are_refused():
    first, again = on_network("first", mac="02:00:00:00:00:07"), on_network("again", mac="02:00:40:00:00:07")
    with pytest.raises(DrumheadError) as refused:
        private.refuse_taken_address([first], again)
    assert refused.value.code is ErrorCode.CONFLICT
    assert "first" in refused.value.message


def test_of_two_machines_that_start_at_once_one_has_the_address(tmp_path):
    instances = Instances(Home(root=tmp_path))
    first, again = (on_network(name, mac="02:00:00:00:00:07") for name in ("first", "again"))
    with instances.lock("first"), instances.lock("again"):  # both have found the address free
        record_start(instances, first)
        with pytest.raises(DrumheadError, match=r"first already has the address 10\.64\.0\.7"):
            record_start(instances, again)
        record_start(instances, first)
    assert instances.launches() == [first]


def test_of_two_machines_that_start_at_once_on_a_network_of_the_host_one_has_the_mac(tmp_path):
    instances = Instances(Home(root=tmp_path))
    first, again, private_one = (
        launched(name, address="", network=network)
        for name, network in (("first", "bridge"), ("again", "tap"), ("third", "nat"))
    )
    with instances.lock("again"):
        with instances.lock("first"):
            record_start(instances, first)  # QEMU has not started yet
            with pytest.raises(DrumheadError, match="first already has the MAC 02:00:00:00:00:01"):
                record_start(instances, again)
            record_start(instances, private_one)
        record_start(instances, again)  # the first did not start, or has ended


@pytest.mark.parametrize("name", ["web.1", "WEB-1", "web_1"])
def test_two_machines_with_one_host_name_are_refused(name):
    with pytest.raises(DrumheadError, match=r"web-1 has the host name .* on this network; give .* another name"):
        private.refuse_taken_address([on_network("web-1")], on_network(name))
    private.refuse_taken_address([on_network("web-1", on="other"), on_network(name)], on_network(name))


def test_homes_and_links_have_groups_of_their_own():
    groups = {private.multicast_group(Home(root=Path(home)), name) for home in ("/a", "/b") for name in ("x", "y")}
    assert len(groups) == 4
    assert all(ipaddress.ip_address(group.address).is_multicast for group in groups)
