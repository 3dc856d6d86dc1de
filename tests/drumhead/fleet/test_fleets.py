"""Test a fleet of real machines: order, names, scaling, restarts, and a killed supervisor."""

import os
import signal
import subprocess

import pytest

from drumhead.fleet.deploy import SUPERVISOR_LOG
from drumhead.fleet.store import FleetStore
from drumhead.machine.instances import Instances
from drumhead.machine.qemu.channel import monitor
from support.guests.applications import get
from support.guests.machines import command, find, forwarded, restarts_of, wait_gone, wait_healthy_again, wait_until

pytestmark = pytest.mark.slow

FLEET = """
name: pair
members:
  client:
    image: test/pair-client
    memory: 96M
    command: sh -c 'wget -q -O - http://server:8000/etc/hostname; echo; exec sleep 9999'
    after: [server]
    restart: "no"
  server:
    image: test/pair
    memory: 112M
    command: sh -c 'echo $$ >/tmp/pid; exec busybox httpd -f -p 8000 -h /'
    health: {port: 8000, path: /etc/hostname, recheck: 1, failures: 3}
    volumes: ["data:/data:32M"]
"""


@pytest.fixture(scope="module")
def up(drumhead, tmp_path_factory):
    """Run the fleet in the background; yield the directory of its fleet file."""
    root = tmp_path_factory.mktemp("pair")
    (root / "meta").mkdir()
    (root / "meta/package.yaml").write_text("name: pair\ntitle: Pair\nauthor: a\nrequire: [cli]\n")
    (root / "fleet.yaml").write_text(FLEET)
    for image in ("test/pair", "test/pair-client"):
        drumhead("package", "compose", "-C", root, image)
    drumhead("up", "--detach", cwd=root)
    yield root
    drumhead.run("down", "pair", cwd=root)


def state(drumhead):
    return {name: one["health"] for name, one in drumhead.json("ps", "pair")["state"]["machines"].items()}


async def test_the_client_starts_when_the_server_is_healthy_and_finds_it_by_name(drumhead, up):
    assert state(drumhead) == {"pair-server": "healthy", "pair-client": "healthy"}
    server, client = find(drumhead, "pair-server"), find(drumhead, "pair-client")
    assert server["launch"]["started_at"] < client["launch"]["started_at"]
    with command(drumhead.home, "logs", "--follow", "pair") as process:
        for line in process.stdout:
            if line == b"pair-client | pair-server\n":
                break
        else:
            pytest.fail("the client did not reach the server")
    table = drumhead("ps", cwd=up).splitlines()
    assert [line.split()[:4] for line in table[1:]] == [
        ["pair-server", "server", "running", "healthy"],
        ["pair-client", "client", "running", "healthy"],
    ]


async def test_scaling_adds_and_removes_and_touches_nothing_else(drumhead, up):
    before = find(drumhead, "pair-server")["pid"], find(drumhead, "pair-client")["pid"]
    drumhead("scale", "client=2", "--fleet", "pair")
    assert find(drumhead, "pair-client-2")["state"] == "running"
    drumhead("scale", "client=1", cwd=up)
    assert "pair-client-2" not in [one["launch"]["spec"]["name"] for one in drumhead.json("instances")]
    assert (find(drumhead, "pair-server")["pid"], find(drumhead, "pair-client")["pid"]) == before
    assert "write MEMBER=NUMBER" in drumhead.refused("scale", "ghost=1", cwd=up, status=2)


async def test_a_machine_that_is_destroyed_comes_back_at_its_address(drumhead, up):
    before = find(drumhead, "pair-server")
    restarts = restarts_of(drumhead.home, "pair", "pair-server")
    assert before["pid"], "the server does not run"  # os.kill(0) would hit this process and its siblings
    os.kill(before["pid"], signal.SIGKILL)
    await wait_healthy_again(drumhead.home, "pair", "pair-server", restarts=restarts)
    after = find(drumhead, "pair-server")
    assert after["launch"]["address"] == before["launch"]["address"]


async def test_a_service_that_answers_no_more_is_started_again(drumhead, up):
    # On a slow host the supervisor may just have restarted the machine, and a booting machine starts no programs.
    await wait_healthy_again(drumhead.home, "pair", "pair-server", restarts=-1)
    restarts = restarts_of(drumhead.home, "pair", "pair-server")
    hung = find(drumhead, "pair-server")["pid"]
    drumhead("exec", "pair-server", "--", "sh", "-c", "kill -STOP $(cat /tmp/pid)")
    await wait_healthy_again(drumhead.home, "pair", "pair-server", restarts=restarts)
    assert find(drumhead, "pair-server")["pid"] not in {0, hung}
    assert (
        "did not answer 3 times in a row" in (FleetStore(drumhead.home, "pair").directory / SUPERVISOR_LOG).read_text()
    )


async def test_a_machine_that_only_the_host_reaches_is_started_again(drumhead, up):
    await wait_healthy_again(drumhead.home, "pair", "pair-server", restarts=-1)
    restarts, deaf = restarts_of(drumhead.home, "pair", "pair-server"), find(drumhead, "pair-server")
    async with monitor(Instances(drumhead.home).directory("pair-server")) as qemu:
        await qemu.execute("set_link", {"name": "net0", "up": False})
    assert get(forwarded(deaf, 8000), "/etc/hostname") == "pair-server", "the host still reaches it"
    await wait_healthy_again(drumhead.home, "pair", "pair-server", restarts=restarts)
    said = (FleetStore(drumhead.home, "pair").directory / SUPERVISOR_LOG).read_text()
    assert "pair-server: answered this host, but no neighbour on its network 3 times in a row; stopping it" in said


async def test_up_after_an_update_replaces_the_machines_of_that_image_only(drumhead, up):
    before = {name: find(drumhead, name) for name in ("pair-server", "pair-client")}
    (up / "added.txt").write_text("new\n")
    assert "/added.txt: added" in drumhead("package", "compose", "--update", "-C", up, "test/pair")
    drumhead("up", "--detach", cwd=up)
    after = {name: find(drumhead, name) for name in before}
    assert after["pair-client"]["pid"] == before["pair-client"]["pid"]
    assert after["pair-server"]["pid"] != before["pair-server"]["pid"]
    assert after["pair-server"]["launch"]["image_digest"] != before["pair-server"]["launch"]["image_digest"]
    assert drumhead("exec", "pair-server", "--", "cat", "/added.txt") == "new\n"
    drumhead("up", "--detach", cwd=up)
    assert {name: find(drumhead, name)["pid"] for name in before} == {name: one["pid"] for name, one in after.items()}


async def test_machines_outlive_their_supervisor_and_the_next_one_takes_them_over(drumhead, up):
    store = FleetStore(drumhead.home, "pair")
    pids = {name: find(drumhead, name)["pid"] for name in ("pair-server", "pair-client")}
    supervisor = store.supervisor()
    assert supervisor
    os.kill(supervisor, signal.SIGKILL)
    await wait_gone(supervisor)
    assert "Fleet pair has no supervisor" in drumhead.run("ps", "pair").stderr
    assert "has no supervisor" in drumhead.refused("scale", "client=2", cwd=up, status=5)
    drumhead("up", "--detach", cwd=up)
    assert {name: find(drumhead, name)["pid"] for name in pids} == pids
    assert store.supervisor() not in {0, supervisor}


async def test_down_takes_only_what_is_the_fleet_s(drumhead, up):
    drumhead("run", "-d", "-i", "test/pair", "pair-stranger", "-m", "96M", "-e", "sleep 9999")
    told = drumhead.run("down", cwd=up)
    assert told.returncode == 0
    assert sorted(told.stderr.splitlines()) == ["Deleted instance: pair-client", "Deleted instance: pair-server"]
    assert find(drumhead, "pair-stranger")["state"] == "running"
    assert (drumhead.home.volumes / "pair-data.raw").is_file()
    assert "there is no fleet pair" in drumhead.refused("ps", "pair", status=3)
    drumhead("delete", "--force", "pair-stranger")


async def test_a_fleet_in_the_foreground_dies_with_its_command(drumhead, up, tmp_path):
    (tmp_path / "fleet.yaml").write_text(FLEET.replace("name: pair", "name: brief"))
    with command(drumhead.home, "up", cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        store = FleetStore(drumhead.home, "brief")
        store.directory.mkdir(parents=True, exist_ok=True)
        await wait_until(store.directory, lambda: [one for one in store.instances() if one.pid])
        process.send_signal(signal.SIGKILL)
        for pid in {one.pid for one in store.instances()} - {0}:  # of one, or of two if the first was healthy by then
            await wait_gone(pid)
    assert store.supervisor() == 0
    drumhead("down", "brief", cwd=tmp_path)
    assert "brief" not in drumhead("instances")
