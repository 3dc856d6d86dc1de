"""Test the requests for programs that run in a machine, with a stand-in for its guest."""

import asyncio
import json
import os
import signal

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.qemu.channel import connect, control, plug
from drumhead.machine.session import protocol
from drumhead.machine.session.protocol import MAX_REQUEST, open_session
from drumhead.records import Command
from support.guests.stubs import guest, holding_pid_file, monitor_of_a_paused_machine


async def test_a_machine_that_answers_late_has_more_time_at_each_attempt(tmp_path_factory, monkeypatch):
    directory, asked, confirmed = tmp_path_factory.mktemp("one"), [], []
    monkeypatch.setattr(protocol, "START_TIMES", [0.01, 0.01, 60.0])

    async def start(reader, writer):
        asked.append(json.loads(await reader.readline())["token"])
        if len(asked) < 3:
            await reader.read()  # until the client gives up
            return
        await asyncio.sleep(0.05)  # the slowness of the machine, longer than the first attempts last
        writer.write(asked[-1].encode())
        confirmed.append(await reader.readexactly(5))
        writer.write(b"x\0\0\0\1\0")
        await reader.read()

    async with guest(directory / "exec.0.sock", start), open_session(directory, Command(argv=("x",))) as session:
        assert [frame async for frame in session.frames()] == [("exit", b"\0")]
    assert len(set(asked)) == 3
    assert confirmed == [b"g\0\0\0\0"], "only a request that was answered may start a program"


async def test_a_machine_that_never_answers_may_have_an_image_of_an_older_drumhead(tmp_path_factory, monkeypatch):
    directory = tmp_path_factory.mktemp("one")
    monkeypatch.setattr(protocol, "START_TIMES", [0.01])

    async def ignore(reader, writer):
        await reader.read()

    async with guest(directory / "exec.0.sock", ignore):
        with pytest.raises(DrumheadError, match="If an older drumhead has composed its image, compose that again"):
            async with open_session(directory, Command(argv=("x",))):
                pass


async def test_a_qemu_that_a_signal_has_stopped_is_named_at_once(tmp_path_factory):
    directory = tmp_path_factory.mktemp("one")

    async def ignore(reader, writer):
        await reader.read()

    # A stopped process still listens: its connections wait in the kernel for it.
    async with guest(directory / "exec.0.sock", ignore), guest(directory / "control.sock", ignore):
        with holding_pid_file(directory) as qemu:
            qemu.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(os.waitid, os.P_PID, qemu.pid, os.WSTOPPED)
            with pytest.raises(DrumheadError, match=f"is stopped; `kill -CONT {qemu.pid}` lets it continue"):
                async with open_session(directory, Command(argv=("x",))):
                    pass
            with pytest.raises(DrumheadError, match=f"kill -CONT {qemu.pid}"):
                await control(directory, {"do": "ping"})


async def test_a_connection_ends_also_if_the_machine_does_not_take_what_was_sent(tmp_path_factory):
    directory, over = tmp_path_factory.mktemp("one"), asyncio.Event()

    async def ignore(_reader, _writer):
        await over.wait()

    async with guest(directory / "exec.0.sock", ignore):
        async with connect(directory, "exec.0.sock") as (_, writer):
            writer.write(bytes(1 << 22))  # more than all buffers on the way hold
        async with asyncio.timeout(10):
            await writer.wait_closed()
        over.set()


async def test_no_port_is_plugged_in_while_a_snapshot_is_loaded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("one")
    async with monitor_of_a_paused_machine(directory, "inmigrate", "inmigrate", "running") as commands:
        await plug(directory, "org.drumhead.exec.0", 60.0)
    asked = [command for command in commands if command != "qmp_capabilities"]
    assert asked == ["query-status"] * 3 + ["device_add"]
    assert len(commands) == 7, "it held the monitor, which the one who loads the snapshot needs"


async def test_a_program_with_more_arguments_than_a_machine_takes_is_refused_at_once(tmp_path_factory):
    directory, sent = tmp_path_factory.mktemp("one"), []  # a socket's path has at most 107 bytes

    async def start(reader, writer):
        if line := await reader.readline():  # a command that is refused sends none
            sent.append(len(line))
            writer.write(json.loads(line)["token"].encode() + b"x\0\0\0\1\0")
        await reader.read()

    large = Command(argv=("x",), env={"CERTIFICATES": "y" * MAX_REQUEST})
    async with guest(directory / "exec.0.sock", start):
        with pytest.raises(DrumheadError, match="variables, the machine's own included; keep large values in files"):
            async with open_session(directory, large):
                pass
        async with open_session(directory, Command(argv=("x", ""))) as session:
            assert [frame async for frame in session.frames()] == [("exit", b"\0")]
        room = MAX_REQUEST - sent.pop()
        async with open_session(directory, Command(argv=("x", "y" * room))):
            assert sent.pop() == MAX_REQUEST
        with pytest.raises(DrumheadError, match=f"take {MAX_REQUEST + 1} bytes; at most {MAX_REQUEST}") as refused:
            async with open_session(directory, Command(argv=("x", "y" * (room + 1)))):
                pass
    assert refused.value.code is ErrorCode.USAGE
