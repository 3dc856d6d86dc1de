"""Test that a machine that a full disk of the host has paused is neither killed nor put to sleep."""

import asyncio
import os
import signal

import pytest

from drumhead.cli.fleet import _row
from drumhead.fleet import supervisor
from drumhead.fleet.lifetime import PAUSED, Lifetime
from drumhead.fleet.plan import planned_machines
from drumhead.fleet.records import Fleet, HealthCheck, Member
from drumhead.fleet.store import FleetStore
from drumhead.home import Home
from drumhead.machine.instances import Instances
from drumhead.machine.records import PortForward
from drumhead.machine.supervision.activation import SocketActivation
from support.guests.machines import wait_until
from support.guests.stubs import holding_pid_file, launched, monitor_of_a_paused_machine


@pytest.fixture
async def service():
    """Serve HTTP while `answers` is set, and hang up otherwise."""
    answers = asyncio.Event()

    async def serve(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            if answers.is_set():
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except asyncio.IncompleteReadError:
            pass  # a check that was given up
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield PortForward(host_port=server.sockets[0].getsockname()[1], guest_port=80), answers


@pytest.fixture
def machine(tmp_path_factory, service):
    """Let a process stand for the machine f-web, whose command runs."""
    home = Home(root=tmp_path_factory.mktemp("home"))  # a socket's path has at most 107 bytes
    launch = launched("f-web", forwards=(service[0],), fleet="f", sleep_after=1.0)
    instances = Instances(home)
    with instances.lock("f-web"):
        instances.write(launch)
    directory = instances.directory("f-web")
    (directory / "status").write_text('{"event":"started"}\n')
    with holding_pid_file(directory):
        yield instances


@pytest.fixture
def keeper(machine, monkeypatch):
    """Return the supervisor of a fleet that takes this machine over, and the machine's plan."""

    async def take_over(_life):
        return machine.read("f-web")

    monkeypatch.setattr(Lifetime, "_take_over", take_over)
    monkeypatch.setattr(Lifetime, "_neighbour", lambda *_: None)
    store = FleetStore(machine.home, "f")
    check = HealthCheck(port=80, path="/", interval=0.01, timeout=0.2, recheck=0.01, failures=2)
    fleet = store.write(Fleet(name="f", members={"web": Member(image="i", health=check, restart="no")}))
    keeper = supervisor.Supervisor(store, attached=False)
    keeper._note(planned_machines(fleet)["f-web"], "waiting")
    return keeper, planned_machines(fleet)["f-web"]


async def test_a_fleet_lets_a_paused_machine_go_on_instead_of_killing_it(machine, keeper, service):
    supervisor, planned = keeper
    store, directory, answers = supervisor._store, machine.directory("f-web"), service[1]

    def state():
        one = store.read_state().machines["f-web"]
        return one.health, one.reason

    pid = machine.read("f-web").pid
    supervising = asyncio.create_task(supervisor._supervise(planned))
    async with monitor_of_a_paused_machine(directory) as commands:
        await wait_until(store.directory, lambda: state() == ("waiting", PAUSED))
        assert "cont" in commands, "it was paused before it was healthy"
        answers.set()
        await wait_until(store.directory, lambda: state() == ("healthy", ""))
        answers.clear()
        await wait_until(store.directory, lambda: state() == ("healthy", PAUSED))
        row = _row("f-web", "web", store.read_state().machines["f-web"], machine.read("f-web"), supervised=True)
        assert row[2:4] == ("running", "paused: the host's disk is full")
        assert int(row[6].removesuffix("s")) < 60, "it runs as long as its process, however the clock was set"
        await commands.wait("cont", 3)  # more failures than a machine that is not paused may have
        answers.set()
        await wait_until(store.directory, lambda: state() == ("healthy", ""))
        assert machine.read("f-web").pid == pid and not supervising.done()
    os.kill(pid, signal.SIGKILL)
    await supervising
    assert state()[0] == "failed"


async def test_a_paused_machine_is_not_put_to_sleep(machine):
    activation = SocketActivation(machine.home, machine, "f-web")
    activation.watch(machine.read("f-web").pid)
    activation._has_listened = True
    async with monitor_of_a_paused_machine(machine.directory("f-web")) as commands:
        assert not await activation.sleep(0.0)
        assert "cont" in commands
    assert machine.read("f-web").pid
    assert await activation.sleep(0.0)
    assert not machine.read("f-web").pid
