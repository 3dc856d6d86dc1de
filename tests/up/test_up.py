"""Test `safelight up`, which runs everything on one machine."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from safelight.access.cluster_key import ClusterKey
from safelight.cli.up.child import Child
from safelight.cli.up.forward import Forward
from safelight.client.base import session
from safelight.client.master import Client
from safelight.wire import State
from support.photos import is_inverse, photo
from support.programs.command import COMMAND, environment, everything, file_limit, safelight, terminal
from support.programs.pids import children, gone
from support.programs.ports import first_of_free_ports
from support.programs.processes import Program, program
from support.programs.until import until

pytestmark = pytest.mark.slow

FORMS = pytest.mark.parametrize("form", [(), ("--separate",)], ids=["one process", "separate"])
"""The forms: the services in one process, or each in its own."""

SLOW = {"outputs": {"image": {"format": "avif", "effort": 10}}}


def up(data: Path, *argv: object, port: int = 0) -> Any:
    """Run `safelight up` as a program whose log lines can be awaited."""
    own = {name: value for name, value in environment().items() if name not in os.environ}
    return program(
        COMMAND, "up", "--port", str(port), "--json", "--data", str(data), *map(str, argv), env=own, name="up"
    )


async def addresses(running: Program) -> dict[str, str]:
    """Wait until everything is ready; return the addresses."""
    async with asyncio.timeout(60):
        while not running.output:
            assert running.running, running.lines
            await asyncio.wait(running._tasks, timeout=0.05)
    found: dict[str, str] = json.loads(running.output[0])
    return found


def said(running: Program, name: str, text: str) -> int:
    """Return the position of a program's log line."""
    return next(
        index for index, line in enumerate(running.lines) if line.get("program") == name and text in line["message"]
    )


async def finish_all(client: Client, ids: list[str]) -> None:
    for name in ids:
        task = await client.wait(name, timeout=60)
        while task.state is State.QUARANTINED:
            await client.release(name)
            task = await client.wait(name, timeout=60)
        assert task.state is State.FINISHED, task


@FORMS
async def test_everything_runs_and_stops_in_order(tmp_path: Path, form: tuple[str, ...]) -> None:
    async with up(tmp_path / "data", "--workers", 2, "--slots", 1, *form) as running:
        where = await addresses(running)
        assert set(where) == {"keyvaluestore", "db", "storage", "master", "worker-1", "worker-2"}
        async with Client.connect(where["master"]) as client:
            task = await client.upload(photo(1))
            await client.wait(task.id, timeout=20)
            async with client.result(task.id) as response:
                assert is_inverse(photo(1), await response.read())
            assert len((await client.summary()).workers) == 2
        assert len(children(running.process.pid)) == (6 if form else 3)
        assert await running.stop() == 0
        stops = [
            said(running, "worker-1", "is stopping"), said(running, "master", "is stopping"),
            said(running, "db", "is stopping"), said(running, "keyvaluestore", "is stopping"),
        ]  # fmt: skip
        assert stops == sorted(stops)
        assert running.lines[-1]["message"] == "Stopped"
    assert {path.name for path in (tmp_path / "data").iterdir()} >= {"db", "keyvaluestore", "storage", "worker-2"}


async def test_a_second_one_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with up(tmp_path / "data", "--workers", 0) as running:
        await addresses(running)
        second = await asyncio.to_thread(safelight, "up", "--port", "0", "--data", tmp_path / "data")
        assert second.returncode == 5
        assert f"process {running.process.pid}" in second.stderr
        assert "--data" in second.stderr
        assert await running.stop() == 0


async def test_nothing_starts_on_ports_of_another_system(tmp_path: Path) -> None:
    port = first_of_free_ports()
    async with up(tmp_path / "first", "--slots", 1, port=port) as running:
        where = await addresses(running)
        second = await asyncio.to_thread(safelight, "up", "--port", port, "--data", tmp_path / "second")
        assert second.returncode == 5
        assert len(second.stderr.splitlines()) == 1
        assert f"127.0.0.1:{port}" in second.stderr
        assert "ready" not in second.stdout
        begun = {path.name for path in (tmp_path / "second").iterdir()}
        assert begun == {"cluster.key", "up.lock"}  # no service has started
        taken = await asyncio.to_thread(
            safelight, "up", "--port", port - 2, "--data", tmp_path / "third"
        )  # only storage's port is in use
        assert taken.returncode == 5
        assert "storage cannot listen" in taken.stderr
        async with Client.connect(where["master"]) as client:
            assert len((await client.summary()).workers) == 1
        assert await running.stop() == 0


async def test_a_data_directory_that_cannot_be_made_ends_it_as_it_ends_a_service(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = await asyncio.to_thread(safelight, "up", "--port", "0", "--data", tmp_path / "file" / "below")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (4, 1)
    assert "cannot be used as the data directory" in refused.stderr


@pytest.mark.parametrize("written", ["up.lock", "cluster.key"])
async def test_a_data_directory_without_room_ends_it_in_the_same_way(tmp_path: Path, written: str) -> None:
    room = 0 if written == "up.lock" else 20  # bytes, of which the process id in the former takes at most 11
    words = ("up", "--port", "0", "--data", tmp_path / "data")
    refused = await asyncio.to_thread(safelight, *words, before=file_limit(room))
    assert (refused.returncode, len(refused.stderr.splitlines())) == (4, 1)
    assert f"{tmp_path}/data cannot be used as the data directory: File too large." in refused.stderr


async def test_a_clean_start_logs_no_warnings(tmp_path: Path) -> None:
    async with up(tmp_path / "data") as running:
        await addresses(running)
        assert await running.stop() == 0
        assert [line for line in running.lines if line.get("level") in ("warning", "error")] == []


@FORMS
async def test_programs_that_die_are_started_again(tmp_path: Path, form: tuple[str, ...]) -> None:
    async with up(tmp_path / "data", "--slots", 1, *form) as running:
        where = await addresses(running)
        for pid in children(running.process.pid):
            os.kill(pid, signal.SIGKILL)
        for name in where if form else ("services", "worker-1"):
            await running.log(
                lambda line, name=name: f"{name} was ended by SIGKILL; starting it again" in line["message"]
            )
        async with Client.connect(where["master"]) as client:
            task = await client.upload(photo(2))  # the client retries until the master is back
            assert (await client.wait(task.id, timeout=30)).state is State.FINISHED
        assert await running.stop() == 0


@FORMS
async def test_after_a_kill_of_everything_every_task_is_picked_up(tmp_path: Path, form: tuple[str, ...]) -> None:
    data, port = tmp_path / "data", first_of_free_ports()
    settings = tmp_path / "safelight.toml"
    settings.write_text("[worker]\nlease_duration = 4\n")
    async with up(data, "--slots", 1, "--config", settings, *form, port=port) as running:
        where = await addresses(running)
        async with Client.connect(where["master"]) as client:
            ids = [(await client.upload(photo(number), filename=f"{number}.png")).id for number in range(10, 30)]
        family = children(running.process.pid)
        running.send(signal.SIGKILL)
        await running.ended()
        for pid in family:
            await gone(pid)
    async with up(data, "--slots", 2, "--config", settings, *form, port=port) as running:
        where = await addresses(running)
        async with Client.connect(where["master"]) as client:
            await finish_all(client, ids)
            for number, name in zip(range(10, 30), ids, strict=True):
                async with client.result(name) as response:
                    assert is_inverse(photo(number), await response.read())
        assert await running.stop() == 0


async def test_settings_come_from_a_file_too_and_go_to_the_services(tmp_path: Path) -> None:
    settings = tmp_path / "safelight.toml"
    blobs = tmp_path / "another disk"
    settings.write_text(
        f'slots = 2\n[up]\nworkers = 2\n[worker]\nslots = 3\nisolation = "thread"\n'
        f'[storage]\nport = 1\ndata = "{blobs}"\n'
    )
    async with up(tmp_path / "data", "--config", settings) as running:
        await running.log(lambda line: line["message"].startswith(f"port in [storage] of {settings} has no effect"))
        where = await addresses(running)
        assert (blobs / "identity").exists()
        assert not (tmp_path / "data/storage").exists()
        async with Client.connect(where["master"]) as client, asyncio.timeout(60):
            after = 0
            while len(workers := (await client.summary()).workers) < 2:
                after = (await client.changes(after, wait=0.1)).last
        assert {(seen.worker.slots, seen.worker.isolation) for seen in workers} == {(3, "thread")}
        assert await running.stop() == 0


def test_wrong_settings_end_the_start_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "safelight.toml").write_text('[worker]\nslots = "many"\n')
    wrong = safelight("up", "--port", 0, "--data", tmp_path / "d", "--config", tmp_path / "safelight.toml")
    assert wrong.returncode == 2
    assert "slots in [worker]" in wrong.stderr
    assert safelight("up", "--workers", "few").returncode == 2
    port = first_of_free_ports()
    with socket.create_server(("127.0.0.1", port)):
        busy = safelight("up", "--port", port, "--data", tmp_path / "d", "--workers", 0)
    assert busy.returncode == 5
    assert f"keyvaluestore cannot listen on 127.0.0.1:{port}" in busy.stderr


async def test_a_stop_of_one_service_stops_all_in_order_and_restarts_them(
    tmp_path: Path,
) -> None:
    async with up(tmp_path / "data", "--workers", 0) as running:
        where = await addresses(running)
        key = ClusterKey(tmp_path / "data" / "cluster.key")
        async with session() as http:
            headers = key.credentials("POST", "/shutdown")
            async with http.post(f"http://{where['db']}/shutdown", headers=headers) as answer:
                assert answer.status == 202
        await running.log("services ended with status 0; starting it again")
        stops = [said(running, name, "is stopping") for name in ("master", "storage", "db", "keyvaluestore")]
        assert stops == sorted(stops)
        await running.log("Master is listening on", after=said(running, "up", "starting it again"))
        assert await running.stop() == 0


async def test_a_service_that_cannot_start_ends_all_with_the_reason(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "storage").mkdir(parents=True)
    with (data / "storage" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with up(data, "--workers", 0) as running:
            await running.log("is in use by another process")
            await running.log("services ended with status 5; starting it again")
            stops = [said(running, name, "is stopping") for name in ("db", "keyvaluestore")]
            assert stops == sorted(stops)
            fcntl.flock(lock, fcntl.LOCK_UN)
            await addresses(running)
            assert await running.stop() == 0


async def test_a_service_that_can_never_start_ends_all_with_its_status(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "db").mkdir(parents=True)
    (data / "db" / "tasks.sqlite").write_bytes(b"not a database" * 1000)
    async with up(data, "--workers", 0) as running:
        assert await running.ended(timeout=60) == 4
        assert said(running, "up", "services ended with status 4 each time it was started; giving up")
        assert "tasks.sqlite cannot be opened: file is not a database" in running.lines[-3]["message"]


async def test_a_second_signal_kills(tmp_path: Path) -> None:
    async with up(tmp_path / "data", "--slots", 1, "--drain", 60, "--log-level", "debug") as running:
        where = await addresses(running)
        async with Client.connect(where["master"]) as client:
            await client.upload(photo(3, width=1200), recipe=SLOW)
        await running.log("processing")
        running.send(signal.SIGINT)
        await running.log("Finishing 1 photos in progress")
        async with asyncio.timeout(15):  # it must not wait for the photo
            while all(line["message"] != "Killing everything" for line in running.lines):
                running.send(signal.SIGINT)  # one that follows at once counts as the first
                await asyncio.wait(running._tasks, timeout=0.3)
            assert await running.ended(timeout=15) == 1


def test_on_a_terminal_each_line_begins_with_its_program(tmp_path: Path) -> None:
    with terminal("up", "--port", 0, "--data", tmp_path / "data", columns=200) as shown:
        shown.until(lambda text: "safelight upload PHOTO" in text)
        assert "http://127.0.0.1:" in shown.shown
        assert "\x1b[32mmaster        |\x1b[0m Master is listening on" in shown.shown
        shown.press(b"\x03")
        assert shown.ended() == 0
        assert "Stopped" in shown.shown


def test_printed_addresses_are_those_that_others_reach(tmp_path: Path) -> None:
    with everything(tmp_path / "data", "--host", "0.0.0.0", "--workers", 0) as found:
        assert not found["master"].startswith("0.0.0.0")
        asked = ("store", "get", "masterendpoint", "--keyvaluestore", found["keyvaluestore"])
        refused = safelight(*asked)
        assert "cluster key" in refused.stderr
        told = safelight(*asked, "--cluster-key-file", tmp_path / "data" / "cluster.key")
        assert told.stdout.strip() == found["master"]
        # The printed link signs an administrator in, but only once.
        page, _, ticket = found["sign_in"].partition("#/sign-in/")
        assert page == f"http://{found['master']}/"
        answers = [_signed_in(page, ticket) for _ in range(2)]
        assert answers[0]["operator"] is True
        assert answers[1]["code"] == "unauthenticated"


def _signed_in(page: str, ticket: str) -> dict[str, Any]:
    """Sign in as the page does; return the answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{page}session", json.dumps({"ticket": ticket}).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


async def test_programs_are_restarted_after_the_reader_of_their_lines_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    broken = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stderr", broken)
    forward, lines = Forward(json=False, color=False), list[str]()

    def heard(name: str, line: str) -> None:
        lines.append(line)
        forward.line(name, line)

    os.mkfifo(tmp_path / "over")
    saying = "print('before'); print('x' * 3_000_000); print('after', flush=True); open(sys.argv[1], 'w').write('over')"
    child = Child("one", "one", ["-c", f"import sys; {saying}", str(tmp_path / "over")], heard)
    async with asyncio.TaskGroup() as group:
        group.create_task(child.supervise(lambda _status: None))
        for _ in range(2):
            assert await asyncio.to_thread((tmp_path / "over").read_text) == "over"
        child.kill()
    with suppress(OSError):
        broken.close()
    assert [line for line in lines if "x" not in line][:4] == ["before", "after", "before", "after"]


async def test_a_program_that_cannot_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interpreter = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(interpreter))  # which an upgrade is replacing at this moment
    lines = asyncio.Queue[str]()
    child = Child("one", "one", ["-c", "print('works')"], lambda _name, line: lines.put_nowait(line))
    async with asyncio.TaskGroup() as group:
        group.create_task(child.supervise(lambda status: lines.put_nowait(f"gave up with {status}")))
        await until(lambda: "one cannot be started: No such file or directory" in caplog.messages)
        interpreter.symlink_to(sys._base_executable)  # type: ignore[attr-defined]
        assert await lines.get() == "works"
        child.kill()
