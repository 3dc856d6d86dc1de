"""Test machines that are restarted when they end (``--restart``)."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from unittest.mock import AsyncMock, Mock

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.machine import attach, launch, stop
from drumhead.machine.attach import run_detached
from drumhead.machine.boot import wait_started
from drumhead.machine.instances import STOPPING, Instances, supervisor_pid, write_supervision
from drumhead.machine.launch import Started
from drumhead.machine.records import InstanceSpec, Launch, Supervision
from drumhead.machine.stop import destroy_machine, record_exit, stop_machine
from drumhead.machine.supervision import policy, supervisor
from drumhead.machine.supervision.policy import FIRST_DELAY, LONGEST_DELAY, MAX_RESTARTS, STEADY, Restarts
from drumhead.machine.supervision.supervisor import note_end, pause
from drumhead.records import Command
from support.guests.composing import write_files
from support.guests.machines import command, find, wait_log
from support.guests.stubs import holding_pid_file, launched

COUNT = """
import signal, sys
with open("/data/starts", "a+") as file:
    file.write("x")
    file.flush()
    file.seek(0)
    starts = len(file.read())
print(f"start {starts}", flush=True)
if starts < 3:
    sys.exit(int(sys.argv[1]))
signal.pause()
"""


def test_delays_grow_until_a_machine_has_run_steadily_and_end_after_too_many():
    restarts = Restarts("always")
    delays = [restarts.after(failed=True, ran=0.5) for _ in range(MAX_RESTARTS)]
    assert delays[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert max(delays) == LONGEST_DELAY
    assert restarts.exhausted and restarts.after(failed=True, ran=0.5) is None
    assert restarts.after(failed=True, ran=STEADY) == FIRST_DELAY
    assert restarts.total == MAX_RESTARTS + 1


@pytest.mark.parametrize(("policy", "failed", "again"), [("no", True, False), ("on-failure", False, False)])
def test_a_policy_leaves_an_end_as_it_is(policy, failed, again):
    assert (Restarts(policy).after(failed=failed, ran=1.0) is not None) == again


def test_a_machine_that_wrote_nothing_has_run_steadily_all_the_same(tmp_path):
    instances, restarts = Instances(Home(root=tmp_path)), Restarts("always")
    launch = launched("quiet", restart="always")
    with instances.lock("quiet"):
        instances.write(launch)
    for _ in range(3 * MAX_RESTARTS):
        assert note_end(instances, instances.read("quiet"), restarts, ran=2 * STEADY) == FIRST_DELAY


@pytest.mark.parametrize(
    ("record", "lost"),
    [
        (Supervision(), True),
        (Supervision(asleep=True), True),
        (Supervision(asleep=True, reason="ended with status 1"), True),
        (Supervision(reason="ended with status 0"), False),  # it was not to be restarted
    ],
)
def test_a_machine_that_ended_without_its_supervisor_is_told_to_have_none(tmp_path, record, lost):
    directory = Instances(Home(root=tmp_path)).directory("orphan")  # as after a reboot of the host
    directory.mkdir(parents=True)
    Instances(Home(root=tmp_path)).write(launched("orphan", restart="on-failure"))
    write_supervision(directory, record)
    assert Instances(Home(root=tmp_path)).read("orphan").supervision.lost == lost
    (directory / STOPPING).touch()  # as `drumhead stop` does
    assert not Instances(Home(root=tmp_path)).read("orphan").supervision.lost


@pytest.mark.slow
def test_a_supervisor_that_was_killed_is_not_said_to_restart_anything(empty):
    directory = Instances(empty.home).directory("orphan")
    launch = launched("orphan", restart="always")
    directory.mkdir(parents=True)
    Instances(empty.home).write(launch)
    holding = "import sys, time; from pathlib import Path; from drumhead.machine.supervision.supervisor import *\n"
    holding += "with supervising(Path(sys.argv[1])):\n"
    holding += " write_supervision(Path(sys.argv[1]), Supervision(restarts=4, waits=True))\n"
    holding += " print(flush=True); time.sleep(999)"
    with subprocess.Popen([sys.executable, "-c", holding, directory], stdout=subprocess.PIPE) as supervisor:
        supervisor.stdout.readline()
        assert "4, restarting" in empty("instances")
        assert "orphan is asleep or about to be restarted; stop it first" in empty.refused("delete", "orphan", status=5)
        supervisor.kill()
    assert "4, without its supervisor" in empty("instances")
    assert "restarting" not in empty("instances")
    (directory / STOPPING).touch()  # as `drumhead stop` does
    assert "without its supervisor" not in empty("instances")


async def test_a_machine_that_another_command_starts_during_the_pause_has_not_failed(tmp_path, monkeypatch, caplog):
    instances = Instances(Home(root=tmp_path))
    directory = instances.directory("one")
    with instances.lock("one"):
        instances.write(launched("one", restart="always"))
    record_exit(directory, 3)
    with holding_pid_file(directory) as process:
        pid_file = (directory / "pid").rename(directory / "pid of the next run")

        async def start(*_, **__):
            if not pid_file.exists():
                (directory / STOPPING).touch()
            else:
                pid_file.rename(directory / "pid")
                asyncio.get_running_loop().call_soon(process.kill)
            raise DrumheadError(ErrorCode.CONFLICT, "one is running")

        monkeypatch.setattr(supervisor, "restart_machine", start)
        monkeypatch.setattr(supervisor, "pause", AsyncMock(return_value=False))
        await supervisor.supervise(instances.home, "one")
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"one: ended with status 3; restarting in {delay} s" for delay in (1, 2)]


async def test_who_sees_the_end_of_a_machine_that_was_switched_off_reads_why(tmp_path, monkeypatch):
    instances = Instances(Home(root=tmp_path))
    with instances.lock("one"):
        instances.write(launched("one"))
    with holding_pid_file(instances.directory("one")) as qemu:

        async def quit_qemu(*_, **__):
            qemu.kill()
            ended = await wait_started(instances, "one")  # as `drumhead run` does, also in another terminal
            assert (ended.state, ended.exit_status) == ("exited", 137)
            return True

        monkeypatch.setattr(stop, "quit_qemu", quit_qemu)
        await stop.destroy_machine(instances, "one")
        started = Started(launch=launched("one"), acceleration=None, pid=qemu.pid, log_offset=0)
        for step in (Mock(), lambda: instances.delete("one")):
            with pytest.raises(DrumheadError, match="another command stopped one while it started"):
                await run_detached(instances.home, started, Mock(booted=lambda _, then=step: then()))


@pytest.mark.parametrize("stop_it", [stop_machine, destroy_machine])
async def test_a_stop_waits_for_the_machine_of_a_start_that_has_begun(tmp_path, monkeypatch, stop_it):
    instances = Instances(Home(root=tmp_path))
    directory = instances.directory("one")
    with instances.lock("one"):
        instances.write(launched("one"))
    with ExitStack() as stack:
        machines = []

        def start(_):  # as the command does that holds the lock
            if machines:
                return False
            instances.write(launched("one"))
            machines.append(stack.enter_context(holding_pid_file(directory)))
            return True

        monkeypatch.setattr(instances, "is_locked", start)
        ended = await stop_it(instances, "one")
        assert (ended.state, ended.exit_status, len(machines)) == ("exited", 137, 1)
    assert (directory / STOPPING).exists(), "a supervisor does not start it again"


async def test_a_stop_does_not_wait_for_a_start_without_end(tmp_path, monkeypatch):
    instances = Instances(Home(root=tmp_path))
    with instances.lock("one"):
        instances.write(launched("one"))
        monkeypatch.setattr(stop, "START_TIME", 0.1)
        with pytest.raises(DrumheadError, match="still starting or deleting one"):
            await destroy_machine(instances, "one")


async def test_a_start_tells_that_another_command_stopped_its_machine(tmp_path, monkeypatch):
    async def spawn(*_, **__):
        (tmp_path / STOPPING).touch()  # as `drumhead stop` does before it ends QEMU
        raise DrumheadError(ErrorCode.GUEST, "QEMU could not start one: no message")

    for name, stub in (("command_line", Mock()), ("record_start", Mock()), ("spawn", spawn)):
        monkeypatch.setattr(launch, name, stub)
    with pytest.raises(DrumheadError, match="another command stopped one while it started"):
        await launch._boot(Mock(), Mock(launch=launched("one"), directory=tmp_path))


@pytest.mark.parametrize("moment", ["pause", "start"])
async def test_ctrl_c_between_two_starts_ends_a_machine_in_the_foreground(empty, monkeypatch, moment):
    instances, events = Instances(empty.home), []
    directory = instances.directory("between")
    launch = launched("between", restart="always", attached=True)
    started = Started(launch=launch, acceleration=None, pid=0, log_offset=0)
    directory.mkdir(parents=True)

    async def attend(*_):
        events.append("ran")
        instances.write(launch)  # which removes the mark of a stop
        record_exit(directory, 3)

    async def interrupted(*_):
        os.kill(os.getpid(), signal.SIGINT)
        assert await pause(60, directory, asyncio.Event())
        return True

    async def restart(*_, **_flags):
        await interrupted()
        instances.write(launch)
        return started

    async def stop(instances, name):
        events.append("stopped")
        return await stop_machine(instances, name)

    for name, stub in (("_attend", attend), ("restart_machine", restart), ("stop_machine", stop)):
        monkeypatch.setattr(attach, name, stub)
    monkeypatch.setattr(attach, "pause", interrupted if moment == "pause" else AsyncMock(return_value=False))
    handler = signal.getsignal(signal.SIGINT)
    assert await attach._attend_supervised(empty.home, started, Mock()) == 3
    assert events == {"pause": ["ran", "stopped"], "start": ["ran", "stopped", "stopped", "ran"]}[moment]
    assert signal.getsignal(signal.SIGINT) is handler, "a later Ctrl-C ends the command as an earlier one does"
    if moment == "pause":
        assert "without its supervisor" not in empty("instances")


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (
            DrumheadError(ErrorCode.CONFLICT, "the port 127.0.0.1:8000 of this host cannot be used"),
            "the port 127.0.0.1",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
async def test_a_machine_in_the_foreground_survives_starts_that_fail(empty, monkeypatch, caplog, failure, told):
    instances, starts = Instances(empty.home), []
    spec = InstanceSpec(name="unlucky", image="i", command=Command(argv=("x",)), restart="always")
    launch = Launch(
        spec=spec, image_digest="", accelerator="tcg", mac="", address="", forwards=(), started_at=0.0, attached=True
    )
    started = Started(launch=launch, acceleration=None, pid=0, log_offset=0)
    instances.directory("unlucky").mkdir(parents=True)
    instances.write(launch)

    async def attend(*_):
        starts.append("ran")
        record_exit(instances.directory("unlucky"), 3)

    async def restart(*_, **_flags):
        starts.append("tried")
        if starts.count("ran") == 2 or starts.count("tried") < 4:
            raise failure
        return started

    monkeypatch.setattr(attach, "_attend", attend)
    monkeypatch.setattr(attach, "restart_machine", restart)
    monkeypatch.setattr(policy, "LONGEST_DELAY", 0.0)
    with pytest.raises(DrumheadError, match=told):
        await attach._attend_supervised(empty.home, started, Mock())
    assert starts == ["ran", *["tried"] * 4, "ran", *["tried"] * (MAX_RESTARTS - 4)]
    assert f"unlucky: {told}" in caplog.text and "restarting in 0 s" in caplog.text
    assert told in instances.read("unlucky").supervision.reason


@pytest.fixture(scope="module")
def image(drumhead, tmp_path_factory):
    files = {
        "meta/package.yaml": "name: again\ntitle: Again\nauthor: a\nrequire: [python]\n",
        "meta/run.yaml": "runtime: python\nconfig_set:\n  well:\n    main: /count.py\n    args: ['0']\n"
        "  badly:\n    main: /count.py\n    args: ['3']\n",
        "count.py": COUNT,
    }
    drumhead("package", "compose", "-C", write_files(tmp_path_factory.mktemp("again"), files), "test/again")
    drumhead("snapshot", "create", "test/again", "-m", "96M")
    yield "test/again"
    for name in ("again-here", "again-away"):
        drumhead.run("delete", "--force", name)
        drumhead.run("volume", "delete", name)
    drumhead("rmi", "test/again")


@pytest.mark.slow
async def test_a_machine_in_the_foreground_is_restarted_after_failures_until_it_is_stopped(drumhead, image):
    words = ("run", "--restart", "on-failure", "--run", "badly", "-m", "96M", "--volume", "again-here:/data:16M")
    with command(drumhead.home, *words, "-i", image, "again-here") as process:
        await wait_log(drumhead.home, "again-here", "start 3")
        assert find(drumhead, "again-here")["supervision"]["restarts"] == 2
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    assert said.split(b"\n")[:3] == [b"start 1", b"start 2", b"start 3"]
    assert b"again-here: ended with status 3; restarting in 1 s" in errors
    assert process.returncode == 128 + signal.SIGTERM
    assert find(drumhead, "again-here")["pid"] == 0


@pytest.mark.slow
async def test_a_detached_machine_is_restarted_until_it_is_stopped(drumhead, image):
    words = ("--restart", "always", "--run", "well", "-m", "96M", "--volume", "again-away:/data:16M")
    drumhead("run", "-d", *words, "-i", image, "again-away")
    await wait_log(drumhead.home, "again-away", "start 3")
    directory = Instances(drumhead.home).directory("again-away")
    assert supervisor_pid(directory)
    assert "again-away" in drumhead("instances")
    said = (directory / "supervisor.log").read_text()
    assert "restarting in 1 s" in said
    assert "qemu-system" not in said, "4 kB at every start would fill the disk"
    assert find(drumhead, "again-away")["supervision"]["restarts"] == 2
    drumhead("stop", "again-away")
    assert find(drumhead, "again-away")["pid"] == 0
    assert supervisor_pid(directory) == 0, "nobody is left who would start it"
