"""Test fleet files: how they are read, the machines that they describe, and the files that are refused."""

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet.file import read_fleet
from drumhead.fleet.plan import find_forward, machine_spec, planned_machines, start_order, with_guest
from drumhead.fleet.records import FleetState, HealthCheck, MachineState
from drumhead.fleet.supervisor import failures, is_settled, scaled
from drumhead.machine.records import PortForward, VolumeMount
from drumhead.records import Blob, Command, Image, Kernel

TEXT = """
name: shop
members:
  web:
    image: shop
    run: web
    after: [db]
    forward: ["8080:80"]
  db:
    image: shop
    run: db
    memory: 96M
    env: {LEVEL: 3}
    health: {port: 8001, path: /readyz, timeout: 30s, recheck: 5, failures: 0}
    volumes: ["data:/data:2G", "./seed.raw:/seed:ro"]
    restart: always
  worker:
    image: shop
    command: /worker --fast
    count: 3
    after: [db, web]
"""
IMAGE = Image(
    name="shop",
    title="",
    version="",
    guest="linux",
    kernel=Kernel(package="linux", version="6", vmlinux=Blob(digest="a", size=1), initrd=None),
    layers=(),
    commands={"web": Command(argv=("/web",)), "db": Command(argv=("/db",), env={"LEVEL": "1", "KEPT": "x"})},
)


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "fleet.yaml").write_text(text)
        return read_fleet(tmp_path / "fleet.yaml", "fleet.yaml")

    return read


def test_members_start_after_those_they_need(read):
    assert start_order(read(TEXT)) == ["db", "web", "worker"]
    assert list(planned_machines(read(TEXT))) == [
        "shop-db",
        "shop-web",
        "shop-worker",
        "shop-worker-2",
        "shop-worker-3",
    ]


def specs(fleet):
    return {name: machine_spec(fleet.name, wanted, IMAGE) for name, wanted in planned_machines(fleet).items()}


def test_machines_get_what_the_file_says(read):
    found = specs(read(TEXT))
    db = found["shop-db"]
    assert (db.memory, db.private_network, db.aliases) == (96, "shop", ("db",))
    assert db.command == Command(argv=("/db",), env={"LEVEL": "3", "KEPT": "x"})
    assert db.volumes == (
        VolumeMount(source="shop-data", path="/data", size=2 << 30),
        VolumeMount(source="./seed.raw", path="/seed", readonly=True),
    )
    assert found["shop-worker-2"].command == Command(argv=("/worker", "--fast"))
    assert found["shop-worker-2"].aliases == ()
    assert found["shop-web"].forwards == (PortForward(host_port=8080, guest_port=80),)


def test_members_reach_more_than_the_fleet_unless_the_file_says_no(read):
    found = specs(read(TEXT.replace("run: db", "run: db\n    outgoing: false")))
    assert {name for name, spec in found.items() if not spec.outgoing} == {"shop-db"}
    with pytest.raises(DrumheadError, match="outgoing must be true or false"):
        read(TEXT.replace("run: db", "run: db\n    outgoing: never"))
    with pytest.raises(DrumheadError, match="outgoing is false; forward TCP ports only"):
        read(TEXT.replace('["8080:80"]', '["5353:53/udp"]\n    outgoing: false'))


def test_members_receive_the_secrets_that_they_name(read):
    text = TEXT.replace("name: shop", "name: shop\nsecrets: [key, token]").replace(
        "run: web", "run: web\n    secrets: [key]"
    )
    fleet = read(text)
    assert fleet.secrets == ("key", "token")
    assert {name: spec.secrets for name, spec in specs(fleet).items() if spec.secrets} == {"shop-web": ("shop/key",)}


def test_health_check_gets_a_way_in(read):
    fleet = read(TEXT)
    assert fleet.members["db"].health == HealthCheck(port=8001, path="/readyz", timeout=30, recheck=5, failures=0)
    assert find_forward(specs(fleet)["shop-db"].forwards, 8001) == PortForward(host_port=0, guest_port=8001)


def test_a_fleet_or_a_member_says_its_guest(read):
    fleet = read(TEXT.replace("name: shop", "name: shop\nguest: osv").replace("run: web", "run: web\n    guest: linux"))
    assert {name: member.guest for name, member in fleet.members.items()} == {
        "web": "linux",
        "db": "osv",
        "worker": "osv",
    }
    assert {member.guest for member in with_guest(fleet, "linux").members.values()} == {"linux"}
    assert machine_spec("shop", planned_machines(fleet)["shop-db"], IMAGE).guest == "osv"


def test_members_may_share_what_one_of_them_leaves_or_only_reads(read):
    text = TEXT.replace("after: [db]", 'after: [db]\n    volumes: ["data:/data"]')
    assert read(text).members["web"].volumes, "a machine that ends for good leaves its volume"
    assert read(text.replace("restart: always", "restart: no")).members["web"].volumes
    disk = 'restart: always\n    volumes: ["./seed.raw:/seed:ro"]'
    assert read(TEXT.replace("after: [db]", disk)).members["web"].volumes


def test_two_machines_never_have_one_name(read):
    fleet = read(TEXT.replace("  worker:", "  web-2:\n    image: shop\n  worker:"))
    assert "shop-web-2" in planned_machines(fleet)
    with pytest.raises(DrumheadError, match="machine shop-web-2 belongs to web.* and to web.*; rename one"):
        planned_machines(scaled(fleet, {"web": 2}))


def test_scaling_changes_numbers_only(read):
    fleet = scaled(read(TEXT), {"worker": 1})
    assert list(planned_machines(fleet)) == ["shop-db", "shop-web", "shop-worker"]
    assert scaled(fleet, {"worker": 3}) == read(TEXT)


def test_a_fleet_is_settled_when_every_machine_is_and_the_supervisor_knows_the_latest(read):
    fleet = scaled(read(TEXT), {"worker": 0})
    machines = {name: MachineState(member="m", health="healthy") for name in planned_machines(fleet)}
    assert is_settled(FleetState(machines=machines), fleet)
    machines["shop-db"] = MachineState(member="db", health="starting")
    assert not is_settled(FleetState(machines=machines), fleet)
    machines["shop-db"] = MachineState(member="db", health="failed", reason="why")
    assert is_settled(FleetState(machines=machines), fleet)
    assert failures(FleetState(machines=machines)) == {"shop-db": "why"}
    assert not is_settled(FleetState(machines=machines), scaled(fleet, {"worker": 1}))


@pytest.mark.parametrize(
    ("change", "line", "told"),
    [
        (("after: [db]", "after: [store]"), 7, "there is no member named store"),
        (("after: [db]", "after: [worker]"), 3, "depend on one another"),
        (("memory: 96M", "memory: much"), 12, "'much' is not a valid amount of memory"),
        (("memory: 96M", "memroy: 96M"), 12, "has no key memroy"),
        (("count: 3", "count: many"), 20, "count must be a number"),
        (("count: 3", 'count: 3\n    forward: ["80:80"]'), 21, "cannot share a port"),
        (("count: 3", 'count: 3\n    volumes: ["./data.raw:/data"]'), 21, "cannot write to one disk"),
        (("count: 3", "run: web"), 19, "run and command both choose the command"),
        (('["8080:80"]', '["8080"]'), 8, "not a valid port forward"),
        (("restart: always", "restart: sometimes"), 16, "restart must be one of"),
        (("port: 8001", "port: 0"), 14, "port must be a number"),
        (("path: /readyz", "path: readyz"), 14, "must start with a slash"),
        (("timeout: 30s", "timeout: never"), 14, "not a duration in seconds"),
        (("recheck: 5", "recheck: 0"), 14, "not a duration in seconds"),
        (("failures: 0", "failures: none"), 14, "failures must be a number"),
        (("name: shop", "name: My Shop"), 2, "not a valid fleet name"),
        (("  worker:", "  Wor_ker:"), 17, "not a valid member name"),
        (("after: [db]", "secrets: [key]"), 7, "there is no secret named key"),
        (("name: shop", "name: shop\nsecrets: [../key]"), 3, "not a valid name of a secret"),
        (("env: {LEVEL: 3}", "env: {LE=VEL: 3}"), 13, "'LE=VEL' is not a valid name of an environment variable"),
        (("env: {LEVEL: 3}", 'env: {LEVEL: "3\\0"}'), 13, "holds a character that no text can hold"),
        (("path: /readyz", 'path: "/ready z"'), 14, "'/ready z' is not the path of a URL"),
        (("path: /readyz", 'path: "/x\\r\\nHost: y"'), 14, "is not the path of a URL"),
        (("path: /readyz", 'path: "/100%"'), 14, "is not the path of a URL"),
        (("port: 8001", "port: 65536"), 14, "port must be a number from 1 to 65535"),
        (("memory: 96M", 'forward: ["0.0.0.0:8080:80"]'), 12, "port 8080/tcp of the host is forwarded to web as well"),
        (("after: [db]", 'restart: always\n    volumes: ["data:/data"]'), 16, "data is a volume of web as well"),
        (("run: web", "run: web\n    count: 2\n  web-2:\n    image: shop"), 3, "machine shop-web-2 belongs to web"),
        (("  worker:", "  localhost:"), 17, "localhost is the name by which every machine knows itself"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(read, change, line, told):
    with pytest.raises(DrumheadError) as error:
        read(TEXT.replace(*change))
    assert error.value.code is ErrorCode.MANIFEST
    assert told in error.value.message
    assert error.value.message.startswith("fleet.yaml:")
    assert abs(int(error.value.message.split(":")[1]) - line) <= 3


def test_a_fleet_does_not_wait_for_machines_that_wait_for_one_that_has_failed(read):
    fleet = scaled(read(TEXT), {"worker": 1})

    def settled(**health):
        machines = {f"shop-{name}": MachineState(member=name, health=one) for name, one in health.items()}
        return is_settled(FleetState(machines=machines), fleet)

    assert settled(db="failed", web="waiting", worker="waiting")
    assert settled(db="ended", web="failed", worker="waiting")
    assert not settled(db="failed", web="starting", worker="waiting"), "it was changed while it ran"
    assert not settled(db="healthy", web="waiting", worker="failed")
    assert not settled(db="restarting", web="waiting", worker="waiting")
