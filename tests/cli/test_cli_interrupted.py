"""Test Ctrl-C at each stage of a command: it ends soon with status 130 and a message, and leaves nothing half done."""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safelight.cli.tasks import actions
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import State, TaskChanges, TaskFilter
from support.broken_network import network
from support.photos import photo
from support.programs.command import Terminal, environment, everything, terminal

pytestmark = pytest.mark.slow
SOON = 15.0
"""The time limit in seconds, long enough for a busy machine."""


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run a system without a worker, so that uploads wait."""
    with everything(tmp_path_factory.mktemp("idle") / "data", "--workers", 0) as found:
        yield found


async def interrupt(shown: Terminal) -> None:
    began = time.monotonic()
    shown.press(b"\x03")
    assert await asyncio.to_thread(shown.ended) == 130, shown.shown
    assert time.monotonic() - began < SOON
    assert "Traceback" not in shown.shown
    assert "exception" not in shown.shown


async def test_while_the_server_is_silent(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(photo(1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        where = f"127.0.0.1:{server.getsockname()[1]}"
        with terminal("upload", tmp_path / "one.png", "--wait", "--keyvaluestore", where) as shown:
            connection, _ = await asyncio.to_thread(server.accept)
            with connection:
                await interrupt(shown)


async def test_while_bytes_are_sent(idle: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "large.tif").write_bytes(photo(1, width=2400, kind="TIFF"))
    async with network(idle["master"]) as between:
        between.hold(2_000_000)
        with terminal("upload", tmp_path / "large.tif", "--master", between.address) as shown:
            await between.held.wait()
            await interrupt(shown)
        between.flow()
    assert "Stopped. Uploaded photos will still be processed" in shown.shown
    async with Client.connect(idle["master"]) as client:
        assert (await client.tasks()).tasks == [], "an incomplete upload must not become a task"


async def test_while_tasks_are_waited_for(idle: dict[str, str], tmp_path: Path) -> None:
    async with Client.connect(idle["master"]) as client:
        task = await client.upload(photo(2), filename="waits.png")
        for argv in (("task", task.id, "--wait"), ("download", task.id, "--wait", "-o", tmp_path / "r")):
            async with network(idle["master"]) as between:
                between.hold_answers_after = 0  # its first request is held, so it certainly waits
                with terminal(*argv, "--master", between.address) as shown:
                    await between.held.wait()
                    between.flow()
                    await interrupt(shown)
        assert (await client.task(task.id)).state is State.WAITING
        await client.delete(task.id)


async def test_a_task_that_somebody_deletes_is_not_waited_for(idle: dict[str, str], tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(photo(10 + number))
    async with Client.connect(idle["master"]) as client:
        after = (await client.summary()).seq
        with terminal("upload", tmp_path, "--wait", "--master", idle["master"]) as shown:
            waiting = set[str]()
            while len(waiting) < 2:
                page = await client.changes(after, wait=30.0)
                after = page.last
                waiting |= {event.task for event in page.events if event.state is State.WAITING}
            for task in waiting:
                await client.delete(task)
            assert await asyncio.to_thread(shown.ended) == 1, shown.shown
    assert shown.shown.count("There is no task") >= 2, shown.shown


async def test_a_rerun_whose_answer_is_lost_creates_no_task_twice(idle: dict[str, str]) -> None:
    async with Client.connect(idle["master"]) as client:

        class LosesAnAnswer:
            find = client.find
            lost = 0

            async def act(self, *argv: Any, **options: Any) -> TaskChanges:
                done = await client.act(*argv, **options)
                if not self.lost:
                    self.lost += 1
                    raise Error(Code.UNAVAILABLE, "The connection ended.")
                return done

        for number in range(3):
            await client.upload(photo(20 + number), batch="lost")
        loses: Any = LosesAnAnswer()
        steps = [step async for step in actions._steps(loses, "rerun", [], TaskFilter(batch="lost"), "web")]
        assert ([step.changed for step in steps], loses.lost) == ([3], 1)
        assert sorted(task.recipe for task in (await client.tasks(batch="lost")).tasks) == ["invert"] * 3 + ["web"] * 3
        await client.act("delete", filter=TaskFilter(batch="lost"))


async def test_a_command_that_python_runs_as_a_module_ends_alike(idle: dict[str, str]) -> None:
    async with Client.connect(idle["master"]) as client:
        task = await client.upload(photo(4), filename="waits.png")
        async with network(idle["master"]) as between:
            between.hold_answers_after = 0
            argv = ("-m", "safelight", "task", task.id, "--wait", "--master", between.address)
            process = await asyncio.create_subprocess_exec(
                sys.executable, *argv, env=environment(), stderr=asyncio.subprocess.PIPE
            )
            await between.held.wait()
            process.send_signal(signal.SIGINT)
            _, said = await process.communicate()
        assert (process.returncode, said) == (130, b"")
        await client.delete(task.id)


async def test_while_a_result_is_saved(addresses: dict[str, str], tmp_path: Path) -> None:
    async with Client.connect(addresses["master"]) as client:
        task = await client.upload(photo(3, width=900), recipe="invert", filename="large.png")
        assert (await client.wait(task.id, timeout=45)).outputs[0].size > 500_000
    results = tmp_path / "results"
    async with network(addresses["master"]) as between:
        between.hold_answers_after = 200_000
        with terminal("download", task.id, "-o", results, "--master", between.address) as shown:
            await between.held.wait()
            await interrupt(shown)
    assert list(results.iterdir()) == [], "no part of a result may be left"
