"""Test what a fleet's supervisor does about starts that fail, without machines."""

import asyncio
import errno
import inspect

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet import supervisor
from drumhead.fleet.lifetime import End
from drumhead.fleet.plan import planned_machines
from drumhead.fleet.records import Fleet, Member
from drumhead.fleet.store import FleetStore
from drumhead.home import Home
from drumhead.machine.instances import Instances
from drumhead.machine.spec.options import read_volumes
from support.guests.stubs import launched


@pytest.fixture
def lives(monkeypatch):
    """Let machines live as the functions in this dict say (name of the machine → what ``Lifetime.run`` does)."""
    lives = {}

    class Lifetime:
        def __init__(self, _home, _fleet, machine, **_flags):
            self.machine = machine

        async def run(self, *, starting, healthy, remark):
            await asyncio.sleep(0)  # as a start does, during which others begin to wait
            end = lives[self.machine.name](starting, healthy)
            return await end if inspect.isawaitable(end) else end

    monkeypatch.setattr(supervisor, "Lifetime", Lifetime)
    monkeypatch.setattr(supervisor, "MIN_RESTART_DELAY", 0.0)
    monkeypatch.setattr(supervisor, "MAX_RESTART_DELAY", 0.0)
    return lives


@pytest.fixture
def store(tmp_path):
    return FleetStore(Home(root=tmp_path), "f")


async def supervise(store, **members):
    """Supervise a fleet of `members` until each of its machines has ended for good; return their states."""
    fleet = store.write(Fleet(name="f", members=members))
    keeper = supervisor.Supervisor(store, attached=False)
    machines = planned_machines(fleet).values()
    for machine in machines:
        keeper._note(machine, "waiting")
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for machine in machines:
            tasks.create_task(keeper._supervise(machine))
    return keeper._states


def raising(errors):
    """Return a life that raises the next of `errors`; None makes the machine healthy and ends it."""
    left = iter(errors)

    def live(_starting, healthy):
        error = next(left)
        if error is not None:
            raise error
        healthy()
        return End(reason="it ended", failed=True, healthy_for=1.0)

    return live


def error(code, message="this"):
    return DrumheadError(code, message)


LAST = error(ErrorCode.NOT_FOUND, "the last start")


@pytest.mark.parametrize("policy", ["always", "on-failure", "no"])
async def test_a_full_disk_of_the_host_ends_one_start_and_not_the_supervision(store, lives, policy):
    runs = iter([OSError(errno.ENOSPC, "No space left on device", "state.json"), None])

    def live(_starting, _healthy):
        if failure := next(runs):
            (store.directory / "state.json").unlink()
            (store.directory / "state.json").mkdir()  # the state cannot be written either
            raise failure
        (store.directory / "state.json").rmdir()
        raise LAST

    lives["f-web"] = live
    state = (await supervise(store, web=Member(image="i", restart=policy)))["f-web"]
    assert state.health == "failed"
    assert ("No space left on device; free some space" in state.reason) == (policy == "no")
    assert (state.reason == "the last start") == (policy != "no")


PASSING = [error(code) for code in (ErrorCode.TIMEOUT, ErrorCode.GUEST, ErrorCode.HOST_TOOL)]


@pytest.mark.parametrize(
    ("errors", "restarts"),
    [
        ([*PASSING, error(ErrorCode.CONFLICT), LAST], 4),
        ([None, error(ErrorCode.CONFLICT), None, LAST], 3),
        ([ZeroDivisionError(), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), LAST], 2),
        ([error(ErrorCode.CONFLICT)], 0),
        ([error(ErrorCode.USAGE)], 0),
        ([None, error(ErrorCode.UNSUPPORTED)], 1),
    ],
)
async def test_a_start_that_may_succeed_later_is_tried_again(store, lives, errors, restarts):
    lives["f-web"] = raising(errors)
    state = (await supervise(store, web=Member(image="i", restart="always")))["f-web"]
    assert (state.health, state.restarts, state.reason) == ("failed", restarts, errors[-1].message)


async def test_a_machine_that_was_healthy_before_a_change_of_the_fleet_has_passed_its_first_start(store, lives):
    lives["f-web"] = raising([None, LAST, error(ErrorCode.CONFLICT), LAST])
    fleet = store.write(Fleet(name="f", members={"web": Member(image="i", restart="always")}))
    (machine,) = planned_machines(fleet).values()
    keeper = supervisor.Supervisor(store, attached=False)
    await keeper._supervise(machine)
    await keeper._supervise(machine)
    assert (keeper._states["f-web"].restarts, keeper._states["f-web"].reason) == (1, "the last start")


async def test_a_machine_of_somebody_else_that_took_the_name_is_not_waited_for(store, lives):
    stranger = launched("f-web")

    def live(_starting, healthy):
        with Instances(store.home).lock("f-web"):
            Instances(store.home).write(stranger)
        raise error(ErrorCode.CONFLICT)

    lives["f-web"] = raising([None, error(ErrorCode.GUEST)])
    first = lives["f-web"]
    runs = iter([first, first, live])
    lives["f-web"] = lambda starting, healthy: next(runs)(starting, healthy)
    state = (await supervise(store, web=Member(image="i", restart="always")))["f-web"]
    assert (state.health, state.restarts) == ("failed", 2)
    assert state.reason.startswith("there is a machine f-web already, which belongs to no fleet")


async def test_who_waits_for_a_member_that_ended_before_it_was_seen_healthy_starts(store, lives):
    lives["f-migrate"] = lambda _starting, _healthy: End(reason="", failed=False, healthy_for=0.0)
    lives["f-web"] = raising([LAST])
    states = await supervise(store, migrate=Member(image="i"), web=Member(image="i", after=("migrate",)))
    assert states["f-migrate"].health == "ended" and states["f-web"].reason == "the last start"


@pytest.mark.parametrize(("volume", "waits"), [("data:/data", True), ("other:/data", False), ("data:/d:ro", False)])
async def test_who_needs_the_volume_of_a_member_that_it_comes_after_waits_for_its_end(store, lives, volume, waits):
    others_begin, ended = asyncio.Event(), []

    async def migrate(_starting, healthy):
        healthy()
        if waits:
            for _ in range(20):  # turns of the event loop, of which a machine that waits for health needs two
                await asyncio.sleep(0)
            assert not others_begin.is_set()
        else:
            await others_begin.wait()
        ended.append(True)
        return End(reason="", failed=False, healthy_for=0.0)

    def serve(_starting, _healthy):
        others_begin.set()
        assert bool(ended) == waits
        raise LAST

    lives["f-migrate"], lives["f-web"] = migrate, serve
    theirs = "data:/data:ro" if volume.endswith(":ro") else "data:/data"
    members = {
        "migrate": Member(image="i", volumes=read_volumes([theirs])),
        "web": Member(image="i", after=("migrate",), volumes=read_volumes([volume])),
    }
    assert (await supervise(store, **members))["f-web"].reason == "the last start"


async def test_a_machine_of_an_earlier_fleet_leaves_its_volume_to_who_comes_before_it(store, lives, monkeypatch):
    stopped, volumes = [], read_volumes(["data:/data"])
    for machine in (launched("f-web", fleet="f"), launched("f-log", fleet="f")):
        with Instances(store.home).lock(machine.spec.name):
            Instances(store.home).write(machine)

    async def stop(_instances, name):
        stopped.append(name)

    def migrate(_starting, _healthy):
        assert stopped == ["f-web"]
        return End(reason="", failed=False, healthy_for=0.0)

    monkeypatch.setattr(supervisor, "stop_machine", stop)
    lives["f-migrate"], lives["f-web"], lives["f-log"] = migrate, raising([LAST]), raising([LAST])
    members = {
        "migrate": Member(image="i", volumes=volumes),
        "web": Member(image="i", after=("migrate",), volumes=volumes),
        "log": Member(image="i", after=("migrate",)),
    }
    assert (await supervise(store, **members))["f-web"].reason == "the last start"


async def test_a_member_without_machines_holds_nobody_up(store, lives):
    lives["f-web"] = raising([LAST])
    states = await supervise(store, db=Member(image="i", count=0), web=Member(image="i", after=("db",)))
    assert states["f-web"].reason == "the last start"


async def test_who_waits_for_a_member_that_then_loses_its_machines_starts(store, lives):
    lives["f-web"] = raising([LAST])
    members = {"db": Member(image="i"), "web": Member(image="i", after=("db",))}
    fleet = store.write(Fleet(name="f", members=members))
    keeper = supervisor.Supervisor(store, attached=False)
    keeper._digest = lambda _machine: ""
    for machine in planned_machines(fleet).values():
        keeper._note(machine, "waiting")
    waiting = asyncio.create_task(keeper._supervise(planned_machines(fleet)["f-web"]))
    await asyncio.sleep(0)
    keeper._tasks["f-db"] = asyncio.create_task(asyncio.sleep(0))
    keeper._tasks["f-web"] = waiting
    keeper._applied["f-web"] = (members["web"], "")
    keeper._fleet = supervisor.scaled(fleet, {"db": 0})
    await keeper._reconcile()
    async with asyncio.timeout(60):
        await waiting
    assert keeper._states["f-web"].reason == "the last start" and "f-db" not in keeper._states
