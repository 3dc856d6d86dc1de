"""Test a supervisor's decisions without machines: silent services, the order of stopping, and pauses."""

import asyncio
import contextlib
import os
import subprocess
import sys

import msgspec
import pytest
from aiohttp import web

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet import health
from drumhead.fleet import supervisor as supervisor
from drumhead.fleet.deploy import check_fleet, wait_settled
from drumhead.fleet.lifetime import Lifetime
from drumhead.fleet.plan import planned_machines
from drumhead.fleet.records import Fleet, FleetState, HealthCheck, MachineState, Member
from drumhead.fleet.store import FleetStore
from drumhead.fleet.supervisor import MAX_RESTART_DELAY, MIN_RESTART_DELAY, next_restart_delay, stop_in_order
from drumhead.home import Home
from drumhead.machine.instances import Instances
from drumhead.machine.network import neighbour
from drumhead.machine.network.neighbour import Neighbour
from drumhead.machine.network.private import MulticastGroup
from drumhead.machine.records import Instance, PortForward
from support.guests.stubs import launched

FIRST = """
import signal, sys
from pathlib import Path
from drumhead.fleet.records import FleetState
from drumhead.fleet.store import CHANGED, FleetStore
from drumhead.home import Home

signal.pthread_sigmask(signal.SIG_BLOCK, [CHANGED])
store = FleetStore(Home(root=Path(sys.argv[1])), "f")
with store.supervising():
    print(flush=True)
    signal.sigwait([CHANGED])
    store.write_state(FleetState(revision=store.read().revision))
"""

LAUNCH = launched("f-web-2", fleet="f")


FOREGROUND = """
import os, signal, sys
from drumhead.cli import _run
from drumhead.cli import fleet
from drumhead.fleet.store import CHANGED, FleetStore
from drumhead.fleet.supervisor import Supervisor
from drumhead.home import find_home

class Told(Supervisor):
    def _publish(self):
        super()._publish()
        for name in signals.pop(0).split("+"):
            os.kill(os.getpid(), CHANGED if name == "CHANGED" else signal.Signals[name])

signals = sys.argv[1].split(",")
fleet.Supervisor = Told
store = FleetStore(find_home(), "f")
_run(fleet._supervise_here(store, store.read()))
print(len(signals))
"""
"""`drumhead up` in the foreground, which gets the next signals each time it has reported its state."""


@pytest.mark.parametrize(
    ("closed", "signals", "left"), [("", "CHANGED,SIGHUP,SIGTERM", 1), ("trap '' HUP;", "SIGHUP+CHANGED,SIGTERM", 0)]
)
def test_a_closed_terminal_stops_a_fleet_unless_nohup_ignores_it(tmp_path, closed, signals, left):
    FleetStore(Home(root=tmp_path), "f").write(Fleet(name="f", members={}))
    words = ["sh", "-c", f'{closed} exec "$@"', "sh", sys.executable, "-c", FOREGROUND, signals]
    env = {**os.environ, "DRUMHEAD_HOME": str(tmp_path)}
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"{left}\n")


@pytest.fixture
async def service():
    """Run a service that answers with the statuses that a test puts into `answers`; None means no answer."""
    answers, asked = [], asyncio.Event()

    async def answer(_request):
        status = answers.pop(0) if answers else None
        if status is None:
            asked.set()
            await asyncio.Event().wait()
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/readyz", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield PortForward(host_port=runner.addresses[0][1], guest_port=80), answers, asked
    await runner.cleanup()


@pytest.mark.slow
async def test_a_service_that_answers_that_it_is_not_ready_lives(service, monkeypatch):
    monkeypatch.setattr(health, "LIFE_TIME", 0.5)
    forward, answers, asked = service
    answers += [503, 404, None, 503, None]
    check = HealthCheck(port=80, path="/readyz", recheck=0.01, failures=2)
    async with asyncio.timeout(30):
        await health.wait_unresponsive(check, forward)
    assert asked.is_set()
    assert answers == [], "one silence, an answer and one silence are not two silences in a row"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"X-Slow: "])
async def test_a_service_whose_answer_never_ends_is_silent(monkeypatch, answer):
    """Send one more byte again and again, so that no single read takes long."""
    monkeypatch.setattr(health, "LIFE_TIME", 0.3)

    async def drip(_reader, writer):
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            writer.write(answer)
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        forward = PortForward(host_port=server.sockets[0].getsockname()[1], guest_port=80)
        check = HealthCheck(port=80, path="/readyz", recheck=0.01, failures=2)
        async with asyncio.timeout(10):
            assert await health.wait_unresponsive(check, forward) == "did not answer 2 times in a row"


async def test_a_port_that_nobody_listens_on_is_silent(service):
    forward, _, _ = service
    check = HealthCheck(port=80, recheck=0.01, failures=3)
    waiting = asyncio.create_task(health.wait_unresponsive(check, PortForward(host_port=1, guest_port=80)))
    async with asyncio.timeout(30):
        await waiting
    assert await health.is_alive(check, forward)


@pytest.mark.parametrize(
    ("path", "listens", "reason"),
    [
        ("/readyz", True, "answered GET /readyz with status 503"),
        ("/readyz", False, "gave no answer to GET /readyz on port 80; a program that listens on 127.0.0.1 only"),
        ("", False, "accepted no connection on port 80; a program that listens on 127.0.0.1 only cannot be reached"),
    ],
)
async def test_it_is_said_why_a_service_did_not_become_healthy(service, path, listens, reason):
    forward, answers, _ = service
    answers.append(503)
    check = HealthCheck(port=80, path=path, interval=30, timeout=1.0)
    said = await health.wait_healthy(check, forward if listens else PortForward(host_port=1, guest_port=80))
    assert said.startswith(f"did not become healthy: it {reason}")


NOBODY = Neighbour(group=MulticastGroup("239.1.2.3", 23999), address="10.64.0.1", port=80)


@pytest.mark.slow
async def test_a_service_that_no_neighbour_reaches_is_told_from_a_silent_one(service, monkeypatch):
    monkeypatch.setattr(neighbour, "ANSWER_TIME", 0.2)
    forward, answers, _ = service
    answers += [503, 200, 200]
    check = HealthCheck(port=80, path="/readyz", recheck=0.01, failures=2, interval=30, timeout=5)
    async with asyncio.timeout(30):
        said = await health.wait_unresponsive(check, forward, NOBODY)
        assert said == "answered this host, but no neighbour on its network 2 times in a row"
        assert (await health.wait_healthy(check, forward, NOBODY)).startswith("did not become healthy: it answered")


def test_a_network_of_the_host_that_is_down_is_no_machine_s_fault():
    asking = "from drumhead.machine.network.neighbour import *; from drumhead.machine.network.private import *; "
    asking += f"print(reach({NOBODY!r}, time_limit=0.2))"
    alone = ["unshare", "--net", "--map-root-user", sys.executable, "-c", asking]
    assert subprocess.run(alone, capture_output=True, text=True, check=True).stdout == "unknown\n"
    assert neighbour.reach(NOBODY, time_limit=0.2) == "silent"


async def test_machines_stop_when_nobody_needs_them_and_beside_those_that_nobody_waits_for(monkeypatch):
    stopping, allowed = (
        asyncio.Queue(),
        {name: asyncio.Event() for name in ("f-store", "f-db", "f-blobs", "f-web", "f-web-2")},
    )

    async def stop_machine(_instances, name):
        stopping.put_nowait(name)
        await allowed[name].wait()

    class Instances:
        def find(self, _name):
            return Instance(launch=LAUNCH, state="running")

    monkeypatch.setattr(supervisor, "stop_machine", stop_machine)
    after = {"store": (), "db": ("store",), "blobs": ("store",), "web": ("db", "blobs")}
    fleet = Fleet(name="f", members={name: Member(image="i", after=others) for name, others in after.items()})
    machines = {name: name.split("-")[1] for name in allowed}
    whole = asyncio.create_task(stop_in_order(Instances(), fleet, machines))
    for expected in (["f-web", "f-web-2"], ["f-blobs", "f-db"], ["f-store"]):
        async with asyncio.timeout(60):
            assert sorted([await stopping.get() for _ in expected]) == expected
        assert stopping.empty()
        for name in expected:
            allowed[name].set()
    await whole


@pytest.mark.parametrize("owner", ["", "f-web"])
async def test_a_fleet_leaves_a_machine_alone_that_has_the_name_of_one_of_its_own(tmp_path, monkeypatch, owner):
    store = FleetStore(Home(root=tmp_path), "f")
    fleet = store.write(Fleet(name="f", members={"web": Member(image="i", count=2)}))
    stranger = msgspec.structs.replace(LAUNCH, fleet=owner)
    with Instances(store.home).lock("f-web-2"):
        Instances(store.home).write(stranger)

    async def stop_machine(_instances, name):
        raise AssertionError(f"{name} was stopped")

    monkeypatch.setattr(supervisor, "stop_machine", stop_machine)
    with pytest.raises(DrumheadError, match="there is a machine f-web-2 already, which belongs to") as refused:
        check_fleet(store, msgspec.structs.replace(fleet, members={"web-2": Member(image="i")}))
    assert refused.value.code is ErrorCode.CONFLICT
    keeper = supervisor.Supervisor(store, attached=False)
    _, second = planned_machines(fleet).values()
    await keeper._supervise(second)
    assert "f-web-2 already" in keeper._states["f-web-2"].reason
    await keeper._stop_all()
    await keeper._remove("f-web-2")
    assert Instances(store.home).read("f-web-2").launch == stranger


@pytest.mark.parametrize(
    ("fleet", "members", "said"),
    [
        ("f" * 32, {"m" * 30: 1}, ""),
        ("f" * 32, {"m" * 30: 2}, "65 characters, and 63 are possible"),
        ("f" * 32, {"m" * 31: 1}, "64 characters, and 63 are possible"),
        ("f", {"web": 1, "f-web": 0}, "member f-web has the name of a machine of web"),
        ("f", {"web": 2, "f-web-2": 1}, "member f-web-2 has the name of a machine of web"),
    ],
)
def test_each_machine_has_a_host_name_of_its_own(tmp_path, fleet, members, said):
    store = FleetStore(Home(root=tmp_path), fleet)
    records = {name: Member(image="i", count=count) for name, count in members.items()}
    with pytest.raises(DrumheadError, match=said or "there is no image i"):
        check_fleet(store, Fleet(name=fleet, members=records))


async def test_a_machine_that_somebody_deletes_while_the_fleet_shrinks_ends_nothing_else(tmp_path, monkeypatch):
    store = FleetStore(Home(root=tmp_path), "f")
    store.write(Fleet(name="f", members={}))
    instances = Instances(store.home)
    with instances.lock("f-web-2"):
        instances.write(LAUNCH)

    async def stop_machine(known, name):
        known.delete(name)
        known.read(name)

    monkeypatch.setattr(supervisor, "stop_machine", stop_machine)
    await supervisor.Supervisor(store, attached=False)._remove("f-web-2")


async def test_a_machine_that_somebody_deletes_is_started_again(tmp_path, monkeypatch):
    store = FleetStore(Home(root=tmp_path), "f")
    (machine,) = planned_machines(store.write(Fleet(name="f", members={"web": Member(image="i")}))).values()
    instances = Instances(store.home)
    life = Lifetime(store.home, "f", machine, attached=False)

    async def start():
        with instances.lock("f-web"):
            instances.write(launched("f-web", fleet="f"))
        found = instances.read("f-web")
        instances.delete("f-web")  # before the supervisor looks why the machine has ended
        return found

    monkeypatch.setattr(life, "_start", start)
    end = await life.run(starting=lambda: None, healthy=lambda: None, remark=lambda _: None)
    assert end.failed and end.reason == "another command has deleted it"


async def test_a_change_is_not_applied_while_a_machine_that_it_removes_is_stopping(tmp_path, monkeypatch):
    store = FleetStore(Home(root=tmp_path), "f")
    fleet = store.write(Fleet(name="f", members={"job": Member(image="new")}))
    with Instances(store.home).lock("f-web-2"):
        Instances(store.home).write(LAUNCH)
    keeper, seen = supervisor.Supervisor(store, attached=False), []
    (job,) = planned_machines(fleet).values()

    async def stop_machine(instances, name):
        keeper._note(job, "ended")  # that of before the change
        seen.append(supervisor.is_settled(store.read_state(), fleet))
        instances.delete(name)

    async def supervise(machine):
        keeper._note(machine, "healthy")

    monkeypatch.setattr(supervisor, "stop_machine", stop_machine)
    monkeypatch.setattr(keeper, "_supervise", supervise)
    await keeper._reconcile()
    await asyncio.gather(*keeper._tasks.values())
    seen.append(supervisor.is_settled(store.read_state(), fleet))
    assert seen == [False, True]


async def test_a_deleted_image_ends_neither_the_supervision_nor_a_machine(tmp_path, monkeypatch):
    store = FleetStore(Home(root=tmp_path), "f")
    store.write(Fleet(name="f", members={"web": Member(image="i")}))
    keeper, begun = supervisor.Supervisor(store, attached=False), []

    async def supervise(machine):
        begun.append(machine.name)
        keeper._note(machine, "healthy")

    monkeypatch.setattr(keeper, "_supervise", supervise)
    monkeypatch.setattr(supervisor, "image_digest", lambda _: "a digest")
    with monkeypatch.context() as present:
        present.setattr(supervisor.ImageStore, "find", lambda *_: None)
        await keeper._reconcile()
        await asyncio.gather(*keeper._tasks.values())
    await keeper._reconcile()
    await asyncio.gather(*keeper._tasks.values())
    assert begun == ["f-web"]


def test_pauses_grow_until_a_machine_was_healthy_for_a_while():
    pauses = [MIN_RESTART_DELAY]
    for _ in range(6):
        pauses.append(next_restart_delay(pauses[-1], healthy_for=MAX_RESTART_DELAY / 2))
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert next_restart_delay(30, healthy_for=MAX_RESTART_DELAY + 1) == MIN_RESTART_DELAY


def test_a_supervisor_that_asks_who_keeps_the_fleet_goes_on_keeping_it(tmp_path):
    store = FleetStore(Home(root=tmp_path), "f")
    asking = "import sys, pathlib; from drumhead.home import Home; from drumhead.fleet.store import FleetStore; "
    asking += "print(FleetStore(Home(root=pathlib.Path(sys.argv[1])), 'f').supervisor())"

    def others_say():
        done = subprocess.run([sys.executable, "-c", asking, tmp_path], capture_output=True, text=True, check=True)
        return int(done.stdout)

    with store.supervising():
        assert store.supervisor() == os.getpid()
        assert others_say() == os.getpid()
    assert store.supervisor() == others_say() == 0


def test_the_second_of_two_commands_that_bring_a_fleet_up_waits_for_the_supervisor_of_the_first(tmp_path):
    store = FleetStore(Home(root=tmp_path), "f")
    store.write(Fleet(name="f", members={}))

    def up():
        asyncio.run(wait_settled(store, ended.pid, time_limit=60, show=lambda _: None))

    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    with pytest.raises(DrumheadError, match="the supervisor of f ended; see"):
        up()
    with subprocess.Popen([sys.executable, "-c", FIRST, tmp_path], stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"\n"
        up()


async def test_a_fleet_that_is_not_up_in_time_names_only_what_is_not(tmp_path):
    store = FleetStore(Home(root=tmp_path), "f")
    fleet = store.write(Fleet(name="f", members={name: Member(image="i") for name in ("job", "db", "web")}))
    health_of = {"job": "ended", "db": "healthy", "web": "starting"}
    machines = {f"f-{name}": MachineState(member=name, health=one) for name, one in health_of.items()}
    store.write_state(FleetState(revision=fleet.revision, machines=machines))
    with pytest.raises(DrumheadError, match="not up within 0 s: f-web; the supervisor"):
        await wait_settled(store, os.getpid(), time_limit=0.1, show=lambda _: None)


async def test_who_waits_for_a_fleet_that_another_command_scales_waits_for_the_new_one(tmp_path):
    store = FleetStore(Home(root=tmp_path), "f")
    store.write(Fleet(name="f", members={"web": Member(image="i")}))
    shown = asyncio.Event()

    def write_state(revision, *names):
        machines = {name: MachineState(member="web", health="healthy") for name in names}
        store.write_state(FleetState(revision=revision, machines=machines))

    waiting = asyncio.create_task(wait_settled(store, os.getpid(), time_limit=10, show=lambda _: shown.set()))
    await shown.wait()
    store.write(Fleet(name="f", members={"web": Member(image="i", count=2)}))
    write_state(2, "f-web", "f-web-2")
    await waiting
