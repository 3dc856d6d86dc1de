"""safelight's services and its worker as machines, the same tests for every guest.

OSv's half needs a kernel of OSv, which DRUMHEAD_OSV_KERNEL names (a directory with its files, or the kernel alone,
which has no volumes); without it every case of it is reported as not run.
"""

import asyncio
import os
import signal
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from drumhead.fleet.store import FleetStore
from drumhead.machine.process import wait_process
from safelight.access.cluster_key import ClusterKey
from safelight.client.base import no_credentials
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import State
from support.guests import osv
from support.guests.machines import LIMIT, find, forwarded, restarts_of, wait_gone, wait_healthy_again
from support.photos import is_inverse, photo

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
FLEET = yaml.safe_load((ROOT / "deploy/fleet.yaml").read_text())
MEMORY = {
    "linux": {"worker": "200M"},
    "osv": {"keyvaluestore": "64M", "db": "64M", "storage": "64M", "master": "64M"},
}
"""Where a guest has to do with less than the fleet file gives."""


class Running:
    """safelight on one guest."""

    def __init__(self, drumhead, store, directory):
        self.drumhead, self.store, self.directory = drumhead, store, directory

    def machine(self, member):
        return find(self.drumhead, f"{self.store.name}-{member}")

    @property
    def key_file(self):
        return self.store.secret_files(self.store.read())["cluster-key"]

    @asynccontextmanager
    async def client(self, **more):
        shown = more or {"credentials": ClusterKey(self.key_file).credentials}
        async with Client.connect(f"127.0.0.1:{forwarded(self.machine('master'), 8003)}", **shown) as client:
            yield client

    async def photo(self, number):
        """Send a photo in; its task when that is finished."""
        async with self.client() as client:
            task = await client.upload(photo(number), filename=f"{number}.png")
            return await client.wait(task.id, timeout=LIMIT)

    async def is_right(self, task, number):
        async with self.client() as client, client.result(task.id) as response:
            return is_inverse(photo(number), await response.read())


@pytest.fixture(scope="module", params=["linux", "osv"])
def fleet(request, drumhead, tmp_path_factory):
    if request.param == "osv":
        drumhead("kernel", "add", *osv.real_files())
    drumhead("package", "compose", "-C", ROOT, "--guest", request.param, "safelight")
    name = f"on-{request.param}"
    content = FLEET | {"name": name}
    for member_name, member in content["members"].items():
        member["forward"] = [f"0:{member['health']['port']}"]
        member["memory"] = MEMORY[request.param].get(member_name, member["memory"])
    directory = tmp_path_factory.mktemp(name)
    (directory / "fleet.yaml").write_text(yaml.safe_dump(content))
    drumhead("up", "--detach", "--guest", request.param, cwd=directory)
    yield Running(drumhead, FleetStore(drumhead.home, name), directory)
    drumhead.run("down", cwd=directory)
    for volume in drumhead.home.volumes.glob(f"{name}-*"):
        volume.unlink()


@pytest.mark.parametrize("member", FLEET["members"])
def test_it_boots_and_answers(fleet, member):
    health = FLEET["members"][member]["health"]
    machine = fleet.machine(member)
    url = f"http://127.0.0.1:{forwarded(machine, health['port'])}{health['path']}"
    with urllib.request.urlopen(url, timeout=LIMIT) as answer:
        assert answer.status == 200
    assert machine["state"] == "running"
    assert "is listening on" in fleet.drumhead("logs", machine["launch"]["spec"]["name"])


def test_the_cluster_key_reaches_the_machines_and_nobody_else(fleet):
    key = fleet.key_file.read_text().strip().encode()
    for member in FLEET["members"]:
        machine = fleet.machine(member)
        directory = fleet.drumhead.home.instances / machine["launch"]["spec"]["name"]
        assert key not in Path(f"/proc/{machine['pid']}/cmdline").read_bytes()
        holders = {path for path in directory.iterdir() if path.is_file() and key in path.read_bytes()}
        assert {path.name for path in holders} == {"config.rofs" if guest_of(fleet) == "osv" else "initrd"}
        assert {path.stat().st_mode & 0o77 for path in holders} == {0}
    assert not [path for path in fleet.store.directory.iterdir() if key in path.read_bytes()]
    for words in (("ps", fleet.store.name, "--json"), ("instances", "--json")):
        assert key.decode() not in fleet.drumhead(*words)
    if guest_of(fleet) == "linux":
        words = ("exec", f"{fleet.store.name}-db", "--", "python3", "-c")
        look = "import os; print(oct(os.stat('/run/secrets/cluster-key').st_mode))"
        assert fleet.drumhead(*words, look) == "0o100600\n"


async def test_without_a_key_nothing_gets_in(fleet):
    async with fleet.client(credentials=no_credentials) as stranger:
        with pytest.raises(Error) as refused:
            await stranger.upload(photo(1), filename="1.png")
    assert refused.value.code is Code.UNAUTHENTICATED


def test_a_program_runs_beside_a_service_or_is_refused_with_the_reason(fleet):
    words = ("exec", f"{fleet.store.name}-master", "--", "python3", "--version")
    if guest_of(fleet) == "osv":
        assert "OSv is one process" in fleet.drumhead.refused(*words, status=5)
    else:
        assert "Python 3" in fleet.drumhead(*words)


async def test_a_photo_goes_in_and_its_inverse_comes_out(fleet):
    task = await fleet.photo(1)
    assert task.state is State.FINISHED
    assert await fleet.is_right(task, 1)


async def test_what_was_acknowledged_outlives_machines_that_are_killed(fleet):
    tasks = {number: await fleet.photo(number) for number in (2, 3, 4)}
    victims = [f"{fleet.store.name}-{member}" for member in ("storage", "db", "keyvaluestore")]
    restarts = {name: restarts_of(fleet.drumhead.home, fleet.store.name, name) for name in victims}
    for name in victims:
        pid = find(fleet.drumhead, name)["pid"]
        os.kill(pid, signal.SIGKILL)
        await wait_gone(pid)
    for name in victims:
        await wait_healthy_again(fleet.drumhead.home, fleet.store.name, name, restarts=restarts[name])
    for number, task in tasks.items():
        assert await fleet.is_right(task, number)
    assert (await fleet.photo(5)).state is State.FINISHED


async def test_every_service_stops_in_order(fleet):
    """The last test of a fleet: it goes down, and comes up again with what it had."""
    before = await fleet.photo(6)
    supervisor = fleet.store.supervisor()
    os.kill(supervisor, signal.SIGTERM)
    async with asyncio.timeout(LIMIT):
        await wait_process(supervisor)
    statuses = {name: fleet.machine(name)["exit_status"] for name in FLEET["members"]}
    assert statuses == dict.fromkeys(FLEET["members"], 0)
    await asyncio.to_thread(fleet.drumhead, "up", "--detach", "--guest", guest_of(fleet), cwd=fleet.directory)
    assert await fleet.is_right(before, 6)


def guest_of(fleet):
    return fleet.machine("master")["launch"]["guest"]
