"""Test safelight as a fleet of machines (`safelight up --vm`): its services, access control, and killed machines.

The cases for OSv need a kernel of OSv (``support.guests.osv``); without one, each is reported as skipped.
"""

import asyncio
import copy
import io
import json
import os
import signal
import subprocess
import threading
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image

from drumhead.fleet.store import FleetStore
from kills.clients import Uploads
from kills.history import History
from safelight.access.cluster_key import ClusterKey
from safelight.client.base import no_credentials
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import State
from support.guests import osv
from support.guests.machines import LIMIT, find, forwarded, restarts_of, wait_gone, wait_healthy_again
from support.photos import is_inverse, photo
from support.programs.command import COMMAND, environment

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
FLEET = yaml.safe_load((ROOT / "deploy/fleet.yaml").read_text())
MEMORY = {
    "linux": {"worker": "200M", "master": "112M"},
    "osv": {"keyvaluestore": "64M", "db": "64M", "storage": "64M", "master": "64M"},
}
"""The memory of machines for which a guest needs less than the fleet file gives, and of the one that boots."""
BOOTS = "master"
"""The member that boots on Linux. There is no snapshot for its memory; those of the others are created first, because a
machine that resumes takes a fifth of the processor time of a boot. The walk through machines.md
boots the key-value store and the worker."""
LARGE = (1500, 1000)
"""The width and height of a photo that a worker is still processing when it is destroyed."""
SURROUNDINGS = """
import locale, ssl
print(locale.setlocale(locale.LC_ALL, ""), len(ssl.create_default_context().get_ca_certs()) > 100)
"""
"""A program that prints its locale, and whether it would trust the certificates of other sites."""
LONGEST = 300.0
"""Seconds in which a restarted machine must be back: a boot, and the pauses before it, which grow with each restart."""


@pytest.fixture(scope="module", params=["linux", "osv"])
def up(request, drumhead, tmp_path_factory):
    """Run `safelight up --vm` with free ports of the host; its output is `told`."""
    if request.param == "osv":
        drumhead("kernel", "add", *osv.real_files())
    content = copy.deepcopy(FLEET) | {"name": "proof"}
    for name, member in content["members"].items():
        member["forward"] = [f"0:{member['health']['port']}"]
        member["memory"] = MEMORY[request.param].get(name, member["memory"])
    root = tmp_path_factory.mktemp("proof")
    file = root / "fleet.yaml"
    file.write_text(yaml.safe_dump(content))
    if request.param == "linux":
        drumhead("package", "compose", "-C", ROOT, "--guest", "linux", "safelight")
        for memory in {one["memory"] for name, one in content["members"].items() if name != BOOTS}:
            drumhead("snapshot", "create", "safelight", "-m", memory)
    words = [COMMAND, "up", "--vm", "--json", "--fleet", file, "--guest", request.param]
    with (root / "up.log").open("wb") as log:
        process = subprocess.Popen(
            words, env=environment(DRUMHEAD_HOME=str(drumhead.home.root)), stdout=subprocess.PIPE, stderr=log, text=True
        )
    impatience = threading.Timer(2 * LONGEST, process.kill)
    impatience.start()
    with process:
        process.guest = request.param
        process.told = process.stdout.readline()
        impatience.cancel()
        assert process.told, (root / "up.log").read_text()[-3000:]
        yield process
        process.terminate()
    drumhead.run("down", "proof")
    for volume in drumhead.home.volumes.glob("proof-*"):
        volume.unlink()


@pytest.fixture(scope="module")
def fleet(drumhead, up):
    """Return the fleet of machines of safelight's own image and fleet file."""
    return FleetStore(drumhead.home, "proof")


def test_the_addresses_are_said_when_every_machine_is_healthy(drumhead, up, fleet):
    addresses = json.loads(up.told)
    key = Path(addresses.pop("cluster_key_file"))
    assert key == fleet.secret_files(fleet.read())["cluster-key"]
    assert "#/sign-in/" in addresses.pop("sign_in")
    assert addresses.keys() == {"keyvaluestore", "db", "storage", "master", "worker"}
    assert addresses["master"] == f"127.0.0.1:{forwarded(find(drumhead, 'proof-master'), 8003)}"
    assert {one.health for one in fleet.read_state().machines.values()} == {"healthy"}


@asynccontextmanager
async def connected(drumhead, credentials=None):
    port = forwarded(find(drumhead, "proof-master"), 8003)
    store = FleetStore(drumhead.home, "proof")
    key = ClusterKey(store.secret_files(store.read())["cluster-key"])
    async with Client.connect(f"127.0.0.1:{port}", credentials=credentials or key.credentials) as client:
        yield client


@pytest.mark.parametrize("member", FLEET["members"])
def test_every_service_answers(drumhead, fleet, member):
    health = FLEET["members"][member]["health"]
    machine = find(drumhead, f"proof-{member}")
    url = f"http://127.0.0.1:{forwarded(machine, health['port'])}{health['path']}"
    with urllib.request.urlopen(url, timeout=LIMIT) as answer:
        assert answer.status == 200
    assert machine["state"] == "running"
    assert "is listening on" in drumhead("logs", f"proof-{member}")


def test_the_cluster_key_reaches_the_machines_and_nobody_else(drumhead, up, fleet):
    key = fleet.secret_files(fleet.read())["cluster-key"].read_text().strip().encode()
    for member in FLEET["members"]:
        machine = find(drumhead, f"proof-{member}")
        directory = drumhead.home.instances / f"proof-{member}"
        assert key not in Path(f"/proc/{machine['pid']}/cmdline").read_bytes()
        holders = {path for path in directory.iterdir() if path.is_file() and key in path.read_bytes()}
        given = {"config.rofs"} if up.guest == "osv" else {"initrd"} if member == BOOTS else set()
        assert {path.name for path in holders} == given, "a machine that resumes is told by its control channel"
        assert not any(path.stat().st_mode & 0o77 for path in holders)
    assert not [path for path in fleet.directory.iterdir() if key in path.read_bytes()]
    for words in (("ps", "proof", "--json"), ("instances", "--json")):
        assert key.decode() not in drumhead(*words)
    if up.guest == "linux":
        look = "import os; print(oct(os.stat('/run/secrets/cluster-key').st_mode))"
        assert drumhead("exec", "proof-db", "--", "python3", "-c", look) == "0o100600\n"


async def test_without_a_key_nothing_gets_in(drumhead, fleet):
    async with connected(drumhead, credentials=no_credentials) as stranger:
        with pytest.raises(Error) as refused:
            await stranger.upload(photo(1), filename="1.png")
    assert refused.value.code is Code.UNAUTHENTICATED


def test_a_program_runs_beside_a_service_or_is_refused_with_the_reason(drumhead, up, fleet):
    words = ("exec", "proof-master", "--", "python3", "-c", SURROUNDINGS)
    if up.guest == "osv":
        assert "OSv is one process" in drumhead.refused(*words, status=5)
    else:
        assert drumhead(*words) == "C.UTF-8 True\n"


def large_photo(number):
    """Return a photo of LARGE pixels as JPEG."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(photo(number))) as small:
        small.resize(LARGE).save(buffer, "JPEG")
    return buffer.getvalue()


def machine_of(worker):
    """Return the machine of a worker. A worker's id consists of its host's name and a random part."""
    return worker.rpartition("-")[0]


async def destroy(drumhead, *machines):
    """Kill the QEMU processes of several machines at once, like a power failure."""
    pids = [pid_of(drumhead, machine) for machine in machines]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        await wait_gone(pid)


def pid_of(drumhead, machine):
    pid = find(drumhead, machine)["pid"]
    assert pid, f"{machine} does not run"  # os.kill(0) would hit this process and its siblings
    return pid


async def until_event(client, after, ready):
    """Return the first event after number `after` for which `ready` is true."""
    async with asyncio.timeout(LONGEST):
        while True:
            page = await client.changes(after, wait=5.0)
            if found := next(filter(ready, page.events), None):
                return found
            after = page.last


async def test_a_photo_goes_in_and_its_inverse_comes_out(drumhead, fleet):
    async with connected(drumhead) as client:
        task = await client.upload(photo(1), filename="one.png")
        task = await client.wait(task.id, timeout=LIMIT)
        assert task.state is State.FINISHED
        async with client.result(task.id) as response:
            assert is_inverse(photo(1), await response.read())


async def test_another_worker_finishes_the_task_of_one_that_is_destroyed(drumhead, fleet):
    await asyncio.to_thread(drumhead, "scale", "worker=2", "--fleet", "proof")
    workers = ("proof-worker", "proof-worker-2")
    pids = {worker: pid_of(drumhead, worker) for worker in workers}
    restarts = {worker: restarts_of(drumhead.home, "proof", worker) for worker in workers}
    async with connected(drumhead) as client:
        task = await client.upload(large_photo(2), filename="two.jpg")
        leased = await until_event(client, task.seq, lambda event: (event.task, event.kind) == (task.id, "leased"))
        victim = machine_of(leased.worker)
        os.kill(pids[victim], signal.SIGKILL)
        await wait_gone(pids[victim])
        task = await client.wait(task.id, timeout=LONGEST)
        assert task.state is State.FINISHED
        assert task.attempts == 2
        assert (task.outputs[0].width, task.outputs[0].height) == LARGE
        page = await client.changes(leased.seq, task=task.id)
        finisher = next(event.worker for event in page.events if event.kind == "finished")
        assert finisher != leased.worker  # on the other machine, or on this one after its restart
    await wait_healthy_again(drumhead.home, "proof", victim, restarts=restarts[victim])
    await asyncio.to_thread(drumhead, "scale", "worker=1", "--fleet", "proof")
    assert "proof-worker-2" not in drumhead("instances")


async def test_destroyed_stores_lose_nothing_that_was_acknowledged(drumhead, up, fleet):
    history = History()
    async with connected(drumhead) as client, Uploads.running(client, history, clients=2, first=10) as uploads:
        for victims in (("proof-storage",), ("proof-db", "proof-keyvaluestore"), ("proof-storage", "proof-db")):
            await uploads.more(2, time_limit=LONGEST)
            restarts = {victim: restarts_of(drumhead.home, "proof", victim) for victim in victims}
            await destroy(drumhead, *victims)
            for victim in victims:
                await wait_healthy_again(drumhead.home, "proof", victim, restarts=restarts[victim])
        await uploads.more(1, time_limit=LONGEST)
        await uploads.end()
        await uploads.judge(time_limit=LONGEST)


async def test_a_stop_ends_all_machines_in_order_and_down_leaves_nothing_but_volumes(drumhead, up, fleet):
    running = fleet.instances()
    supervisor = fleet.supervisor()
    assert len(running) == 5
    up.terminate()
    assert await asyncio.to_thread(up.wait, LIMIT) == 0
    for pid in (supervisor, *[one.pid for one in running]):
        await wait_gone(pid)
    stopped = {one.launch.spec.name.removeprefix("proof-"): one for one in fleet.instances()}
    assert {name: one.exit_status for name, one in stopped.items()} == dict.fromkeys(stopped, 0), "none was killed"
    ended = {name: one.ended_at for name, one in stopped.items()}
    assert ended["worker"] < ended["master"] < min(ended["db"], ended["storage"])
    assert max(ended, key=ended.__getitem__) == "keyvaluestore"
    await asyncio.to_thread(drumhead, "down", "proof")
    assert fleet.instances() == []
    assert not fleet.directory.exists()
    assert sorted(path.name for path in drumhead.home.volumes.glob("proof-*")) == [
        "proof-db.raw", "proof-keyvaluestore.raw", "proof-storage.raw",
    ]  # fmt: skip
