"""Test that an idle machine costs almost nothing, whatever ran in it before and however that ended."""

import asyncio
import os
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drumhead.machine.qemu.channel import connect
from drumhead.machine.session.protocol import Terminal, open_session
from drumhead.records import Command
from support.guests.machines import LIMIT, command, find, wait_log

pytestmark = pytest.mark.slow

WINDOW = 0.5
"""Seconds for which an idle machine is measured: 50 of the kernel's ticks of processor time."""
ALLOWED = 0.4
"""The largest allowed share of one processor. An emulated idle machine uses 0.04; with a spinning init, it uses 1."""
PROMPT = b"# "


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def share(pid):
    """Return the share of a processor that QEMU uses for an idle machine: the least of five windows."""
    shares = []
    for _ in range(5):
        before = processor_seconds(pid)
        await asyncio.sleep(WINDOW)  # the measurement itself
        shares.append((processor_seconds(pid) - before) / WINDOW)
        if shares[-1] < ALLOWED:
            break
    return min(shares)


@pytest.fixture(scope="module")
def idle(drumhead, machine_image):
    """Run a machine with a server that gets no requests."""
    drumhead("run", "-d", "-i", machine_image, "idle", "-m", "128M")
    asyncio.run(wait_log(drumhead.home, "idle", "serving"))
    yield find(drumhead, "idle")
    drumhead("delete", "--force", "idle")


def test_the_emulator_asks_for_huge_pages_for_its_heap(idle):
    """The mapping of the heap has the kernel's flag for it (VmFlags: hg), whether or not the host gives any."""
    smaps = Path(f"/proc/{idle['pid']}/smaps").read_text()
    heap = smaps[smaps.index("[heap]") :]
    flags = next(line for line in heap.splitlines() if line.startswith("VmFlags:"))
    assert "hg" in flags.split()


def test_the_guest_does_not_use_what_is_slow_to_emulate(drumhead, idle):
    """Kernel and libc choose how they copy memory, and how many levels their page tables have, by these flags."""
    flags = drumhead("exec", "idle", "--", "cat", "/proc/cpuinfo").split()
    assert "sse2" in flags
    assert not {"erms", "fsrm", "la57"} & set(flags)


async def said(reader, text):
    seen = b""
    async with asyncio.timeout(LIMIT):
        while not seen.endswith(text):
            part = await reader.read(1)
            assert part, seen
            seen += part


@asynccontextmanager
async def console(directory):
    """Open the console with a shell that waits for a command."""
    async with connect(directory, "console.sock") as (reader, writer):
        writer.write(b"\n")
        await said(reader, PROMPT)
        yield reader, writer


async def console_shell_exits(directory):
    async with console(directory) as (reader, writer):
        writer.write(b"exit\n")
        await said(reader, b"exit\r\n")


async def console_shell_gets_the_end_of_its_input(directory):
    async with console(directory) as (reader, writer):
        writer.write(b"\x04")
        await reader.read(1)


async def console_shell_is_killed(directory):
    async with console(directory) as (reader, writer):
        writer.write(b"kill -9 $$\n")
        await said(reader, b"$$\r\n")


async def console_shell_leaves_a_program_behind(directory):
    async with console(directory) as (reader, writer):
        writer.write(b"(trap '' HUP; exec sleep 300) & exit\n")
        await said(reader, b"exit\r\n")


async def console_is_left_in_the_middle(directory):
    async with console(directory):
        pass
    async with connect(directory, "console.sock") as (reader, writer):  # the shell still runs; end it
        writer.write(b"\nexit\n")
        await said(reader, b"exit\r\n")


async def exec_ends(directory):
    async with open_session(directory, Command(argv=("true",))) as session:
        assert [frame async for frame in session.frames()][-1] == ("exit", b"\0")


async def exec_leaves_a_program_behind(directory):
    async with open_session(directory, Command(argv=("sh", "-c", "sleep 300 & exit 4"))) as session:
        assert [frame async for frame in session.frames()][-1] == ("exit", b"\4")


async def exec_on_a_terminal_ends(directory):
    async with open_session(directory, Command(argv=("sh", "-c", "exit 3")), Terminal(24, 80)) as session:
        assert [frame async for frame in session.frames()][-1] == ("exit", b"\3")


async def exec_on_a_terminal_is_left(directory):
    async with open_session(directory, Command(argv=("cat",)), Terminal(24, 80)) as session:
        await session.send_input(b"word\n")
        async for _, payload in session.frames():
            if b"word" in payload:
                break


async def exec_program_does_not_read(directory):
    async with open_session(directory, Command(argv=("sleep", "300"))) as session:
        await session.send_input(bytes(300_000))


async def exec_client_does_not_read(directory):
    async with open_session(directory, Command(argv=("sh", "-c", "while echo much; do :; done"))) as session:
        async for _ in session.frames():
            break


async def exec_program_closes_its_input_and_output(directory):
    async with open_session(directory, Command(argv=("sh", "-c", "exec <&- >&- 2>&-; sleep 1"))) as session:
        await session.send_input(bytes(200_000))
        assert [frame async for frame in session.frames()][-1] == ("exit", b"\0")


async def control_is_cut_in_the_middle(directory):
    async with connect(directory, "control.sock") as (_, writer):
        writer.write(b'{"do":"pi')
        await writer.drain()


SESSIONS = [
    console_shell_exits,
    console_shell_gets_the_end_of_its_input,
    console_shell_is_killed,
    console_shell_leaves_a_program_behind,
    console_is_left_in_the_middle,
    exec_ends,
    exec_leaves_a_program_behind,
    exec_on_a_terminal_ends,
    exec_on_a_terminal_is_left,
    exec_program_does_not_read,
    exec_client_does_not_read,
    exec_program_closes_its_input_and_output,
    control_is_cut_in_the_middle,
]


@pytest.mark.parametrize("session", SESSIONS, ids=lambda one: one.__name__)
async def test_nothing_is_spent_after(session, idle, instances):
    directory = instances.directory("idle")
    await session(directory)
    assert await share(idle["pid"]) < ALLOWED
    await exec_ends(directory)


async def test_the_console_has_another_shell_after_all_that(idle, instances):
    async with console(instances.directory("idle")) as (reader, writer):
        writer.write(b"echo $((6 * 7))\n")
        await said(reader, b"42\r\n")
        writer.write(b"exit\n")
        await said(reader, b"exit\r\n")


def test_a_client_that_is_killed_costs_nothing(idle, drumhead):
    with command(drumhead.home, "exec", "idle", "--", "sh", "-c", "echo on; exec sleep 300") as process:
        assert process.stdout.readline() == b"on\n"
        process.kill()
    with command(drumhead.home, "console", "idle", stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        process.kill()
    assert asyncio.run(share(idle["pid"])) < ALLOWED
