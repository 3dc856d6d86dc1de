"""Test a service as a program: its address, its shutdown, and its messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from yarl import URL

from safelight import logs, serve, settings
from safelight.client.base import session
from safelight.db.__main__ import Config as DbConfig
from safelight.db.__main__ import build as build_db
from safelight.keyvaluestore.__main__ import Config, build
from support.programs.ports import free_port
from support.programs.processes import service
from support.programs.until import until


@pytest.mark.parametrize(("terminal", "calls"), [(signal.SIG_DFL, 2), (signal.SIG_IGN, 1)])
async def test_a_closed_terminal_stops_unless_nohup_ignores_it(terminal, calls):
    calling = asyncio.Queue()
    earlier = signal.signal(signal.SIGHUP, terminal)
    try:
        serve.at_signals(lambda: calling.put_nowait(None), hangup=True)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            await calling.get()
            await asyncio.sleep(0)
        assert calling.qsize() == calls - 1
    finally:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(signal.SIGHUP, earlier)
        signal.signal(signal.SIGINT, signal.default_int_handler)


async def test_shutdown_by_token(tmp_path):
    async with (
        service("keyvaluestore", "--data", str(tmp_path), "--shutdown-token", "secret") as process,
        session() as http,
    ):
        url = await process.address()
        for token, expected in (
            (None, (403, "forbidden")),
            ("wrong", (401, "unauthenticated")),
            ("\xe9", (401, "unauthenticated")),
        ):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            async with http.post(f"{url}/shutdown", headers=headers) as answer:
                assert (answer.status, (await answer.json())["code"]) == expected
        async with http.post(f"{url}/shutdown", headers={"Authorization": "Bearer secret"}) as answer:
            assert (answer.status, await answer.json()) == (202, {"stopping": True})
        assert await process.ended() == 0
        await process.log("server is stopping")


async def test_a_port_in_use_is_reported_in_a_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        async with service("keyvaluestore", "--data", str(tmp_path), "--port", port) as process:
            await process.log(f"Cannot listen on 127.0.0.1:{port}: ")
            assert await process.ended() == 5


@pytest.mark.slow
@pytest.mark.parametrize("argv", [("--store", "etcd2://x"), ("--port", "nope"), ("--nonsense",)])
async def test_a_wrong_setting_is_reported_in_a_sentence_without_a_traceback(tmp_path, argv):
    async with service("keyvaluestore", "--data", str(tmp_path), *argv) as process:
        assert await process.ended() == 2
        text = "\n".join(line["message"] for line in process.lines)
        assert argv[0] in text
        assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize(("name", "argv"), [("keyvaluestore", ()), ("storage", ()), ("worker", ("127.0.0.1:9",))])
async def test_a_data_directory_that_cannot_be_made_is_reported_in_a_sentence(tmp_path, name, argv):
    (tmp_path / "file").write_text("in the way")
    async with service(name, *argv, "--data", str(tmp_path / "file" / "below")) as process:
        line = await process.log("cannot start")
        assert f"{tmp_path}/file/below cannot be written by this user ({os.geteuid()}:" in line["message"]
        assert await process.ended() == 4
        assert not any("traceback" in line for line in process.lines)


async def test_a_request_that_does_not_end_is_cancelled_after_the_drain(tmp_path):
    config = Config(port=0, data=str(tmp_path), drain=0.1)
    loop = asyncio.get_running_loop()
    async with serve.running("keyvaluestore", config, build) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"PUT /key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        async with session() as http, http.get(f"{running.url}/key") as answer:
            assert answer.status == 404
        started = loop.time()
    assert loop.time() - started < 10
    writer.close()


def test_the_advertised_address_is_one_that_others_reach():
    assert serve.reachable_host("10.1.2.3") == "10.1.2.3"
    assert serve.reachable_host("0.0.0.0", "127.0.0.1:8000") == "127.0.0.1"
    assert serve.reachable_host("::", "[::1]:8000") == "[::1]"
    assert serve.reachable_host("0.0.0.0", "https://127.0.0.1:8000, https://10.1.2.3:8000") == "127.0.0.1"
    assert serve.reachable_host("0.0.0.0", "https://127.0.0.1/store") == "127.0.0.1"
    assert serve.reachable_host("0.0.0.0", "a..b:8000") == serve.reachable_host("0.0.0.0")
    assert serve.reachable_host("::", "https://[::1]:8000/") == "[::1]"
    assert serve.reachable_host("0.0.0.0", "no.such.name.invalid:8000") == serve.reachable_host("0.0.0.0")


class _WayOut:
    """A socket of a virtual machine whose default route leads through QEMU's user network."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def connect(self, address):
        pass

    def getsockname(self):
        return ("10.0.2.15", 40000)


@pytest.mark.parametrize(
    ("own", "reached"), [("10.64.128.1", "10.64.128.1"), ("127.0.1.1", "10.0.2.15"), (None, "10.0.2.15")]
)
def test_a_virtual_machine_does_not_announce_its_way_out_if_its_name_has_another_address(monkeypatch, own, reached):
    def look_up(name):
        if own is None:
            raise socket.gaierror(name)
        return own

    monkeypatch.setattr("safelight.service.socket.socket", lambda *_: _WayOut())
    monkeypatch.setattr("safelight.service.socket.gethostbyname", look_up)
    assert serve.reachable_host("0.0.0.0") == reached
    assert serve.reachable_host("0.0.0.0", "10.0.2.7:8000") == "10.0.2.15", "on the network of the key-value store"


@pytest.mark.usefixtures("same_umask")
def test_a_directory_of_all_programs_is_not_closed(tmp_path, caplog):
    data = tmp_path / "shared"
    data.mkdir()
    data.chmod(0o1777)
    serve.prepare(serve.StandaloneConfig(data=str(data)))
    assert stat.S_IMODE(data.stat().st_mode) == 0o1777
    assert "Others on this machine can look into" in caplog.text


@pytest.fixture
def same_umask():
    """Restore the umask after the test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("same_umask")
def test_an_open_data_directory_is_closed_without_a_warning(tmp_path, caplog):
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    serve.prepare(Config(data=str(data)))
    assert data.stat().st_mode & 0o777 == 0o700
    assert not caplog.records


@pytest.mark.usefixtures("same_umask")
def test_a_data_directory_that_cannot_be_closed_is_warned_about(tmp_path, caplog, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(1, "Operation not permitted", str(path))

    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    serve.prepare(Config(data=str(data)))
    assert [f"look into {data}" in record.getMessage() for record in caplog.records] == [True]


async def test_a_service_on_every_network_logs_the_address_that_others_reach(tmp_path):
    async with service("keyvaluestore", "--data", str(tmp_path), "--open", "--host", "0.0.0.0") as process:
        url = URL(await process.address())
        assert url.host == serve.reachable_host("0.0.0.0")
        async with session() as http, http.get(url / "healthz") as answer:
            assert answer.status == 200


async def test_a_service_answers_while_its_own_address_is_looked_up(tmp_path, monkeypatch):
    asked, answered = threading.Event(), threading.Event()

    def look_up(host, keyvaluestore=None):
        asked.set()
        assert answered.wait(10), "the event loop waited for the look-up"
        return "10.64.128.1"

    monkeypatch.setattr("safelight.service.reachable_host", look_up)
    port = free_port()
    stack = contextlib.AsyncExitStack()
    running = serve.running("keyvaluestore", Config(port=port, data=str(tmp_path)), build)
    starting = asyncio.create_task(stack.enter_async_context(running))
    await asyncio.to_thread(asked.wait, 10)
    try:
        async with session() as http, http.get(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200
    finally:
        answered.set()
        service = await starting
        assert await service.advertised() == f"10.64.128.1:{port}"
        await stack.aclose()


async def test_a_service_registers_the_address_that_is_known_once_the_key_value_store_runs(tmp_path, monkeypatch):
    started, seen = threading.Event(), threading.Event()

    def look_up(host, keyvaluestore=None):
        if started.is_set():
            seen.set()
            return "127.0.0.3"
        return "127.0.0.2"

    monkeypatch.setattr("safelight.service.reachable_host", look_up)
    port = free_port()
    config = DbConfig(port=0, data=str(tmp_path / "db"), keyvaluestore=f"127.0.0.1:{port}")
    async with serve.running("db", config, build_db) as db:
        started.set()
        assert await asyncio.to_thread(seen.wait, 20)
        store = serve.running("keyvaluestore", Config(port=port, data=str(tmp_path / "store")), build)
        async with store, session() as http:

            async def registered():
                async with http.get(f"http://127.0.0.1:{port}/") as answer:
                    return f"dbendpoint=127.0.0.3:{db.port}" in await answer.text()

            await until(registered)


def test_the_key_value_store_offers_no_address_of_a_key_value_store(capsys):
    with pytest.raises(SystemExit):
        settings.load(Config, ["--help"], section="keyvaluestore", program="safelight keyvaluestore")
    assert "KEYVALUESTORE_HOST" not in capsys.readouterr().out


def mapped(process, library: str) -> Callable[[], bool]:
    """Return a function that tells whether a process has loaded a library."""
    return lambda: library in Path(f"/proc/{process.process.pid}/maps").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["keyvaluestore", "db", "storage", "master", "worker"])
async def test_ctrl_c_during_the_start_prints_no_traceback(tmp_path, name):
    other = () if name == "keyvaluestore" else ("127.0.0.1:1",)
    async with service(name, "--data", str(tmp_path), *other, env={"TESTS_WITHOUT_FORKS": "1"}) as process:
        await until(mapped(process, "msgspec/_core"))  # in the middle of its imports
        assert await process.stop(signal.SIGINT) in (0, -signal.SIGINT)
        assert not any("Traceback" in line["message"] or "traceback" in line for line in process.lines), process.lines


@pytest.mark.parametrize("name", ["keyvaluestore", "storage"])
def test_a_service_imports_little(name):
    import subprocess

    code = f"import sys, safelight.{name}.__main__; print(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "rich",
        "cyclopts",
        "pyvips",
        "numpy",
        "subprocess_tests",
        "multiprocessing",
        "asyncpg",
        "yaml",
    }


def record(message: str, **extra) -> logging.LogRecord:
    logger = logging.getLogger("safelight.test")
    return logger.makeRecord(logger.name, logging.INFO, "file", 1, message, (), None, extra=extra)


def test_logs_for_programs_are_one_json_object_a_line():
    line = logs.JsonFormatter("db").format(record("two\nlines", port=8001))
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["service"], fields["message"], fields["level"], fields["port"]) == ("db", "two\nlines", "info", 8001)
    assert fields["time"].endswith("Z")


def test_logs_for_programs_have_names_that_are_not_text():
    name = os.fsdecode(b"\xff.jpg")
    line = logs.JsonFormatter("db").format(record(f"{name} is damaged", file=Path(name), photo=name))
    fields = json.loads(line.encode())
    assert (fields["message"], fields["file"], fields["photo"]) == (
        r"\udcff.jpg is damaged", r"\udcff.jpg", r"\udcff.jpg",
    )  # fmt: skip


def test_logs_for_people_are_the_sentence():
    assert logs.TextFormatter().format(record("Database is listening on 8001")) == "Database is listening on 8001"
    assert logs.TextFormatter().format(record("Listening", port=1)) == "Listening  [port=1]"


async def test_services_listen_and_find_one_another_on_ipv6(tmp_path):
    async with serve.running("keyvaluestore", Config(host="::1", port=0, data=str(tmp_path / "k")), build) as store:
        address = f"[::1]:{store.port}"
        assert (store.url, await store.advertised()) == (f"http://{address}", address)
        config = DbConfig(host="::1", port=0, data=str(tmp_path / "d"), keyvaluestore=address)
        async with serve.running("db", config, build_db) as db, session() as http:
            registered = ""
            while not registered:
                async with http.get(f"{store.url}/dbendpoint") as answer:
                    registered = await answer.text() if answer.status == 200 else ""
            assert registered == f"[::1]:{db.port}"


async def test_an_address_that_this_machine_lacks_is_told_from_a_port_in_use(tmp_path):
    async with service("keyvaluestore", "--data", str(tmp_path), "--host", "192.0.2.1", "--open") as process:
        await process.log("Choose another --host.")
        assert await process.ended() == 2
