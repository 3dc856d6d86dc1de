"""Test how the logs of a fleet are printed: by a fleet in the foreground, and by ``drumhead logs``."""

import asyncio
import fcntl
import gc
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from drumhead.cli.fleet_logs import LONGEST_LINE, print_logs, whole_lines
from drumhead.fleet.records import Fleet
from drumhead.fleet.store import FleetStore
from drumhead.home import Home
from drumhead.machine.instances import Instances
from support.guests.stubs import holding_pid_file, launched

LIMIT = 60
SMALLEST_PIPE = 4096
UP = """
import asyncio, logging, signal, sys
from pathlib import Path
from drumhead import cli
from drumhead.cli import fleet, output
from drumhead.fleet.records import Fleet
from drumhead.fleet.store import FleetStore
from drumhead.home import Home

class Supervisor:
    def __init__(self, *_, **__):
        self.stop = asyncio.Event()

    async def run(self):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stop.set)
        await asyncio.sleep(0)  # now the log is followed
        with open(sys.argv[2], "ab") as file:
            file.write(eval(sys.argv[3]))
        await self.stop.wait()
        for number in range(5000):
            logging.warning("a warning that a terminal may not take %d", number)

fleet.Supervisor = Supervisor
logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
store = FleetStore(Home(root=Path(sys.argv[1])), "f")
with output.printable_streams():
    cli._run(fleet._supervise_here(store, store.read()))
"""
"""`drumhead up` with a supervisor that only writes to a machine's log and waits to be stopped."""


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Return the log of the machine f-web, for which a process stands."""
    monkeypatch.setenv("DRUMHEAD_HOME", str(tmp_path))
    home = Home(root=tmp_path)
    FleetStore(home, "f").write(Fleet(name="f", members={}))
    launch = launched("f-web", fleet="f")
    instances = Instances(home)
    with instances.lock("f-web"):
        instances.write(launch)
    path = instances.directory("f-web") / "log"
    path.write_bytes(b"before\n")
    with holding_pid_file(path.parent) as machine:
        yield path, machine


@contextmanager
def up(path, written, **streams):
    """Run ``drumhead up`` in the foreground; its machine writes what the expression `written` says."""
    words = [sys.executable, "-c", UP, path.parents[2], path, written]
    with subprocess.Popen(words, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def small_pipe():
    """Yield the ends of a pipe that holds 4 KiB: a file to read, and a descriptor."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    with os.fdopen(reading, "rb", buffering=0) as end:
        try:
            yield end, writing
        finally:
            os.close(writing)


@pytest.mark.parametrize("stuck", ["stdout", "both"])
def test_a_reader_that_takes_nothing_stops_neither_the_fleet_nor_its_end(log, stuck):
    path, _ = log
    with small_pipe() as (end, writing):
        errors = writing if stuck == "both" else subprocess.DEVNULL
        with up(path, "bytes(1 << 20)", stdout=writing, stderr=errors) as process:
            assert end.read(8) == b"f-web | ", "it prints, and cannot go on"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=LIMIT) == 0


def test_a_reader_that_ends_takes_the_logs_along_and_nothing_else(log):
    path, _ = log
    with small_pipe() as (end, writing), up(path, "bytes(1 << 20)", stdout=writing, stderr=subprocess.PIPE) as process:
        assert end.read(8) == b"f-web | "
        end.close()
        told = process.stderr.readline()
        assert told.startswith(b"Nobody reads the logs; they are printed no more. The fleet goes on: `drumhead logs")
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(timeout=LIMIT) == 0
    assert rest.startswith(b"a warning") and rest.endswith(
        b"Fleet f has stopped; `drumhead down f` deletes its machines.\n"
    )
    assert b"Traceback" not in rest


def test_a_line_without_an_end_is_printed_in_pieces(log):
    path, _ = log
    with up(path, f"b'x' * {3 * LONGEST_LINE}", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.read(LONGEST_LINE) == b"f-web | " + b"x" * (LONGEST_LINE - 8)
    assert whole_lines(b"a\nb\nc") == (b"a\nb\n", b"c")
    assert whole_lines(b"c" * LONGEST_LINE) == (b"", b"c" * LONGEST_LINE)


@pytest.mark.parametrize(("tail", "shown"), [(None, "abcd"), (2, "cd"), (0, "")])
@pytest.mark.parametrize("follow", [False, True])
async def test_the_last_lines_of_every_machine_are_printed(log, capfd, tail, shown, follow):
    path, machine = log
    path.write_bytes(b"a\nb\nc\nd\n")
    printing = asyncio.create_task(print_logs("f", follow=follow, tail=tail))
    await asyncio.sleep(0)  # now the log is followed
    if follow:
        path.write_bytes(b"a\nb\nc\nd\ne")
        machine.kill()
    async with asyncio.timeout(LIMIT):
        await printing
    expected = shown + ("e" if follow else "")
    assert capfd.readouterr().out == "".join(f"f-web | {letter}\n" for letter in expected)


async def test_following_a_fleet_that_has_ended_prints_its_logs(log, capfd):
    _, machine = log
    machine.kill()
    machine.wait()
    async with asyncio.timeout(LIMIT):
        await print_logs("f", follow=True, tail=None)
    assert capfd.readouterr().out == "f-web | before\n"


async def test_a_machine_that_is_deleted_while_its_log_is_followed_leaves_no_traceback(log, caplog):
    path, machine = log
    printing = asyncio.create_task(print_logs("f", follow=True, tail=None))
    await asyncio.sleep(0)
    (path.parent / "instance.json").unlink()
    machine.kill()
    async with asyncio.timeout(LIMIT):
        await printing
    gc.collect()
    assert not caplog.records
