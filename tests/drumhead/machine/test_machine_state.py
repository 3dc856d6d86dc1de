"""Test the state of a machine, which is read from the files in its directory."""

import asyncio
import fcntl
import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drumhead.cli.machine.instances import _row
from drumhead.cli.machine.run import start_command
from drumhead.cli.machine.session import console_command
from drumhead.cli.output import complain
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.machine.attach import _attend
from drumhead.machine.boot import wait_started
from drumhead.machine.instances import Instances, lock_holder
from drumhead.machine.launch import Started, start_machine
from drumhead.machine.memory import with_memory
from drumhead.machine.qemu import channel
from drumhead.machine.qemu.acceleration import Acceleration
from drumhead.machine.qemu.channel import control
from drumhead.machine.session.protocol import _silence, open_session
from drumhead.machine.session.terminal import claiming_console, pumping_input
from drumhead.machine.stop import destroy_machine, exit_status, stop_machine
from drumhead.records import Command
from support.guests.stubs import guest, holding_pid_file, launched, monitor_of_a_paused_machine

LAUNCH = launched("one")

DEEP = '{"ok":true,"x":' + "[" * 50_000 + "]" * 50_000 + "}"


@pytest.fixture
def instances(tmp_path_factory):
    found = Instances(Home(root=tmp_path_factory.mktemp("home")))  # a socket's path has at most 107 bytes
    with found.lock("one"):
        found.write(LAUNCH)
    return found


@pytest.fixture
def alive(instances):
    with holding_pid_file(instances.directory("one")) as process:
        yield process


def report(instances, *lines):
    said = "".join(f"{line}\n" for line in lines)
    (instances.directory("one") / "status").write_bytes(said.encode(errors="surrogateescape"))


def test_a_machine_that_boots_is_starting_until_its_command_runs(instances, alive):
    assert instances.read("one").state == "starting"
    report(instances, '{"event":"address","card":"eth0","address":"10.64.0.1"}', '{"event":"started","pid":7}')
    running = instances.read("one")
    assert running.state == "running"
    assert running.pid == alive.pid
    assert running.addresses == {"eth0": "10.64.0.1"}
    assert running.resident > 0


def test_a_machine_whose_lease_has_ended_has_no_address(instances, alive):  # noqa: ARG001
    had = [f'{{"event":"address","card":"eth{number}","address":"10.99.0.{number}"}}' for number in range(2)]
    report(instances, *had, '{"event":"address","card":"eth0","address":""}')
    assert instances.read("one").addresses == {"eth1": "10.99.0.1"}


async def test_a_machine_that_does_not_boot_in_time_is_told_with_the_end_of_its_console(
    instances,
    alive,  # noqa: ARG001
    capsys,
):
    (instances.directory("one") / "console").write_text("[0.1] Linux\r\n[0.2] no such \x1b[1mdisk\x1b[0m\r\n")
    with pytest.raises(DrumheadError) as refused:
        await wait_started(instances, "one", time_limit=0.05)
    assert refused.value.code is ErrorCode.TIMEOUT
    assert "one did not boot within" in refused.value.message
    assert refused.value.message.endswith("; its console ends with:\n    [0.1] Linux\n    [0.2] no such disk")
    complain(f"{refused.value.message}\ndrumhead: all is well")
    assert capsys.readouterr().err.splitlines()[1:] == [
        "    [0.1] Linux",
        "    [0.2] no such disk",
        "    drumhead: all is well",
    ]


async def test_a_machine_that_ends_while_it_boots_is_told_at_once(instances, alive):
    (instances.directory("one") / "console").write_text("Kernel panic - not syncing: Out of memory\n")
    waiting = asyncio.create_task(wait_started(instances, "one", time_limit=60))
    alive.kill()
    with pytest.raises(DrumheadError, match="it may need more memory") as refused:
        await waiting
    assert refused.value.code is ErrorCode.GUEST
    assert refused.value.message.endswith("\n    Kernel panic - not syncing: Out of memory")


def test_a_lock_goes_with_its_process(instances, alive):
    path = instances.directory("one") / "pid"
    assert lock_holder(path) == alive.pid
    alive.kill()
    alive.wait()
    assert lock_holder(path) == 0
    assert lock_holder(path.with_name("nothing")) == 0


def test_the_command_s_status_is_what_the_guest_reported(instances):
    report(instances, '{"event":"started","pid":7}', '{"event":"exit","code":3}')
    ended = instances.read("one")
    assert (ended.state, ended.exit_status, exit_status(ended)) == ("exited", 3, 3)


def test_a_machine_that_says_nothing_has_failed(instances):
    report(instances, '{"event":"started","pid":7}')
    assert instances.read("one").state == "failed"
    with pytest.raises(DrumheadError) as error:
        exit_status(instances.read("one"))
    assert error.value.code is ErrorCode.GUEST


def test_a_panic_is_told_with_its_reason_and_not_its_registers(instances):
    panic = "[2.3] Kernel panic - not syncing: System is deadlocked on memory"
    registers = "".join(f"[2.3] R{number}: 00000000000001b6\n" for number in range(30))
    (instances.directory("one") / "log").touch()
    (instances.directory("one") / "console").write_text(f"[0.1] Linux\n{panic}\n{registers}")
    reason = instances.read("one").reason
    assert "it may need more memory" in reason
    assert reason.endswith(f"\n    [0.1] Linux\n    {panic}")


def test_what_a_guest_should_not_write_harms_nobody(instances):
    cut = '{"event":"failed","reason":"no disk \udcc3"}'  # in the middle of a character
    report(instances, "\x00 no json", '["list"]', DEEP, '{"event":7}', '{"event":"\udcff"}', cut, '{"eve')
    assert instances.read("one").reason == "no disk \ufffd"


@pytest.mark.parametrize("answer", ["\x00 no json", '["list"]', DEEP, "a line that is too long" * 10_000])
async def test_a_guest_that_answers_anything_is_shown_and_stopped(instances, alive, answer):  # noqa: ARG001
    report(instances, '{"event":"started"}')

    async def write(reader, writer):
        await reader.readline()
        writer.write(answer.encode() + b"\n")
        await writer.drain()

    async with guest(instances.directory("one") / "control.sock", write):
        (found,) = await with_memory(instances, instances.all())
        assert found.state == "running" and found.memory is None
        assert (await stop_machine(instances, "one")).pid == 0


async def test_requests_of_many_commands_wait_for_their_turn(instances):
    path = instances.directory("one") / "control.sock"

    async def serve():
        """Take one client at a time, as QEMU does."""
        for _ in range(8):
            client, _ = await loop.sock_accept(door)
            with client:
                assert await loop.sock_recv(client, 100)
                await loop.sock_sendall(client, b'{"ok":true}\n')

    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen(1)
        door.setblocking(False)  # noqa: FBT003
        requests = [asyncio.create_task(control(path.parent, {"do": "ping"})) for _ in range(8)]
        await asyncio.sleep(0)  # all of them connect first
        serving = asyncio.create_task(serve())
        try:
            assert await asyncio.gather(*requests) == [{"ok": True}] * 8
        finally:
            serving.cancel()


async def test_a_machine_that_takes_no_client_is_not_waited_for_without_end(instances, monkeypatch):
    monkeypatch.setattr(channel, "ANSWER_TIME", 0.01)
    path = instances.directory("one") / "console.sock"
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as waiting:
        door.bind(str(path))
        door.listen(0)
        waiting.connect(str(path))
        with pytest.raises(DrumheadError, match="one does not answer"):
            async with channel.connect(path.parent, path.name):
                pass


@pytest.mark.parametrize("frame", [b"?\0\0\0\0", b"x\0\0\0\0", b"1\xff\xff\xff\xff"])
async def test_what_is_no_frame_of_a_session_ends_it_with_a_sentence(instances, frame):
    async def write(reader, writer):
        request = json.loads(await reader.readline())
        writer.write(request["token"].encode() + frame)
        await reader.read()

    async with guest(instances.directory("one") / "exec.0.sock", write):
        with pytest.raises(DrumheadError, match="no output of a program") as refused:
            async with open_session(instances.directory("one"), Command(argv=("x",))) as session:
                async for _ in session.frames():
                    pass
    assert refused.value.code is ErrorCode.GUEST


def test_a_status_without_end_is_read_from_its_end(instances):
    with (instances.directory("one") / "status").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"event":"failed","reason":"no disk"}\n')
    assert instances.read("one").reason == "no disk"


def test_a_new_launch_forgets_the_old_end(instances):
    report(instances, '{"event":"exit","code":3}')
    with instances.lock("one"):
        instances.write(LAUNCH)
    assert instances.read("one").exit_status is None


def test_one_command_changes_an_instance_at_a_time(instances):
    with instances.lock("one"), pytest.raises(DrumheadError) as error, instances.lock("one"):
        pass
    assert error.value.code is ErrorCode.CONFLICT
    with instances.lock("one"):
        pass


def test_a_running_instance_is_not_deleted_and_a_stopped_one_wholly(instances, alive):
    with pytest.raises(DrumheadError) as error:
        instances.delete("one")
    assert error.value.code is ErrorCode.CONFLICT
    alive.kill()
    alive.wait()
    instances.delete("one")
    assert instances.names() == []
    assert not instances.directory("one").exists()
    with pytest.raises(DrumheadError) as error:
        instances.read("one")
    assert error.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("words", [("stop",), ("stop", "--force"), ("delete",), ("delete", "--force")])
def test_a_wrong_name_among_several_changes_nothing(empty, words):
    known = Instances(empty.home)
    known.directory("one").mkdir(parents=True)
    known.write(LAUNCH)
    assert "no instance ghost" in empty.refused(*words, "one", "ghost", status=3)
    assert sorted(file.name for file in known.directory("one").iterdir()) == ["instance.json"]


@pytest.mark.parametrize("name", ["", ".", "..", "../volumes", "/"])
@pytest.mark.parametrize("words", [("start",), ("stop",), ("delete", "--force")])
def test_a_path_is_no_name_and_nothing_is_deleted(empty, words, name):
    known = Instances(empty.home)
    known.directory("one").mkdir(parents=True)
    known.write(LAUNCH)
    empty.home.volumes.mkdir()
    (empty.home.volumes / "data.raw").write_bytes(b"data")
    before = sorted(empty.home.root.rglob("*"))
    assert "there is no instance" in empty.refused(*words, name, status=3)
    if name:
        assert "there is no fleet" in empty.refused("down", name, status=3)
    assert sorted(empty.home.root.rglob("*")) == before


async def test_a_machine_that_another_command_deletes_is_not_there(instances, monkeypatch):
    found = instances.read("one")

    def read(self, name):
        if self.directory(name).exists():
            shutil.rmtree(self.directory(name))  # right after this command has seen the machine
            return found
        raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no instance {name}")

    monkeypatch.setattr(Instances, "read", read)
    with pytest.raises(DrumheadError, match="there is no instance one"):
        await destroy_machine(instances, "one")


async def test_a_run_whose_machine_another_command_deletes_ends_with_a_sentence(instances, alive, caplog):
    class Announce:
        def started(self, _):
            asyncio.get_running_loop().call_soon(delete)  # once this command follows the log

        def booted(self, _):
            pass

    def delete():
        alive.kill()
        alive.wait()
        instances.delete("one")

    started = Started(launch=LAUNCH, acceleration=Acceleration("tcg", ""), pid=alive.pid, log_offset=0)
    with pytest.raises(DrumheadError, match="one was deleted by another command while it ran"):
        await _attend(instances.home, started, Announce())
    gc.collect()
    assert not caplog.records, "no exception is left to asyncio, which would print a traceback"


async def test_the_files_of_an_image_stay_while_a_machine_starts(tmp_path, monkeypatch):
    home, spec = Home(root=tmp_path), LAUNCH.spec

    async def start(*_, **__):
        with (home.root / "lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as `drumhead rmi` would
        raise DrumheadError(ErrorCode.GUEST, "enough")

    monkeypatch.setattr("drumhead.machine.launch._start", start)
    monkeypatch.setattr("drumhead.machine.launch.check_spec", lambda *_: None)
    monkeypatch.setattr("drumhead.image.store.ImageStore.find", lambda *_: None)
    with pytest.raises(DrumheadError, match="enough"):
        await start_machine(home, spec, attached=False)


@pytest.fixture
async def paused(instances, alive):  # noqa: ARG001 - it holds the pid file
    report(instances, '{"event":"started"}')
    async with monitor_of_a_paused_machine(instances.directory("one")) as commands:
        yield commands


async def test_a_machine_that_a_full_disk_of_the_host_has_paused_is_shown_and_continues(instances, paused, monkeypatch):
    monkeypatch.setenv("DRUMHEAD_HOME", str(instances.home.root))
    (row,) = map(_row, await with_memory(instances, instances.all()))
    assert "paused (disk full)" in row
    assert row[5] in {f"{n}s" for n in range(60)}, "uptime is not the difference of two times of a set clock"
    assert "one is paused" in (told := str(await _silence(instances.directory("one"))))
    assert "`drumhead start one` lets it continue" in told and "cont" not in paused
    requests, before = [], time.time()

    async def take(reader, writer):
        requests.append(json.loads(await reader.readline()))
        writer.write(b'{"ok":true}\n')

    async with guest(instances.directory("one") / "control.sock", take):
        assert await start_command("one") == 0
    assert "cont" in paused
    (clock,) = requests
    assert clock["do"] == "clock" and before <= clock["time"] <= time.time()


async def test_input_that_nobody_takes_any_more_leaves_no_traceback(monkeypatch):
    waiting = asyncio.Event()

    async def send(_data):
        waiting.set()
        await asyncio.Event().wait()

    with await asyncio.to_thread(Path("/dev/zero").open, "rb") as zeros:
        monkeypatch.setattr(sys, "stdin", zeros)
        async with pumping_input(send):
            await waiting.wait()
        (reader,) = (thread for thread in threading.enumerate() if thread.name == "stdin")
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # as at the end of a command
        await asyncio.to_thread(reader.join)


@pytest.mark.parametrize(("closed", "status"), [("output", 141), ("machine", 0)])
async def test_a_console_whose_output_is_lost_is_no_success(instances, alive, closed, status):  # noqa: ARG001
    async def show(reader, writer):
        writer.write(b"login: ")
        if closed == "machine":
            await reader.readexactly(1)
            writer.transport.abort()  # before it has read all keys
        await reader.read()

    reading, writing = os.pipe()
    os.close(reading)
    zeros = os.open("/dev/zero", os.O_RDONLY)
    async with guest(instances.directory("one") / "console.sock", show):
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "drumhead", "console", "one"],
            env={**os.environ, "DRUMHEAD_HOME": str(instances.home.root)},
            stdin=zeros,
            stdout=writing if closed == "output" else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        os.close(writing)
        os.close(zeros)
        _, told = await process.communicate()
    assert (process.returncode, told) == (status, b"Console of one; Ctrl-] leaves it.\n")


async def test_a_console_that_another_command_has_open_is_refused(instances, alive, monkeypatch):  # noqa: ARG001
    monkeypatch.setenv("DRUMHEAD_HOME", str(instances.home.root))
    is_open = pytest.raises(DrumheadError, match="another command has the console of one open")
    with claiming_console(instances.directory("one")), is_open as refused:
        await console_command("one")
    assert refused.value.code is ErrorCode.CONFLICT
    with claiming_console(instances.directory("one")):
        pass
