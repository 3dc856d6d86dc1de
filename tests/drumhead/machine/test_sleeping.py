"""Test machines that sleep while no client is connected (``--sleep-after``)."""

import asyncio
import errno
import socket
from contextlib import ExitStack

import aiohttp
import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.machine import instances as records
from drumhead.machine.instances import Instances, supervisor_pid
from drumhead.machine.launch import Started
from drumhead.machine.process import kill
from drumhead.machine.records import PortForward
from drumhead.machine.session.protocol import _free_port
from drumhead.machine.session.terminal import claiming_console
from drumhead.machine.supervision import activation
from drumhead.machine.supervision.activation import SocketActivation
from support.guests.composing import write_files
from support.guests.machines import find, wait_until
from support.guests.stubs import holding_pid_file, launched

IDLE = 0.0
"""Seconds after which the machine may sleep."""
SERVER = """
import http.server, socketserver

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.upper())

print("a start", flush=True)
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
SLOW = "import time\ntime.sleep(4)\n" + SERVER
LIMIT = aiohttp.ClientTimeout(total=180)


@pytest.fixture(scope="module")
def image(drumhead, tmp_path_factory):
    files = {
        "meta/package.yaml": "name: sleeper\ntitle: Sleeper\nauthor: a\nrequire: [python]\n",
        "meta/run.yaml": "runtime: python\nwarm: [http.server]\nconfig_set:\n  serve:\n    main: /server.py\n"
        "  slow:\n    main: /slow.py\n  broken:\n    main: /broken.py\nconfig_set_default: serve\n",
        "server.py": SERVER,
        "slow.py": SLOW,
        "broken.py": "raise SystemExit(4)\n",
    }
    drumhead("package", "compose", "-C", write_files(tmp_path_factory.mktemp("sleeper"), files), "test/sleeper")
    drumhead("snapshot", "create", "test/sleeper", "-m", "96M")
    yield "test/sleeper"
    drumhead.run("delete", "--force", "sleeper")
    drumhead.run("delete", "--force", "sleeper-slow")
    drumhead.run("delete", "--force", "sleeper-broken")
    drumhead("rmi", "test/sleeper")


def run(drumhead, image, name, *flags):
    """Run a machine that sleeps after a second; return the host's port."""
    drumhead("run", "-d", "--sleep-after", "1", "-m", "96M", "-f", "0:8000", *flags, "-i", image, name)
    return find(drumhead, name)["launch"]["forwards"][0]["host_port"]


async def asleep(drumhead, name):
    instances = Instances(drumhead.home)
    await wait_until(instances.directory(name), lambda: instances.read(name).state == "asleep")


async def post(port, text):
    async with (
        aiohttp.ClientSession(timeout=LIMIT) as session,
        session.post(f"http://127.0.0.1:{port}/", data=text) as answer,
    ):
        return answer.status, await answer.text()


async def test_the_first_connection_starts_a_machine_that_sleeps(drumhead, image):
    port = run(drumhead, image, "sleeper", "-f", "0:8001")
    directory = Instances(drumhead.home).directory("sleeper")
    await asleep(drumhead, "sleeper")
    assert "asleep" in drumhead("instances")
    assert find(drumhead, "sleeper")["pid"] == 0
    assert "sleeps until somebody connects" in drumhead.refused("wait", "sleeper", status=5)
    said = drumhead.refused("run", "-d", "-m", "96M", "-i", image, "sleeper", status=5)
    assert "sleeper is asleep or about to be restarted; stop it first" in said
    large = "x" * 500_000
    answers = await asyncio.gather(post(port, large), *[post(port, f"many {number}") for number in range(8)])
    assert answers == [(200, large.upper()), *[(200, f"MANY {number}") for number in range(8)]]
    assert (directory / "log").read_text().count("a start") == 2, "they wait for one start"
    await asleep(drumhead, "sleeper")
    drumhead("stop", "sleeper")
    assert supervisor_pid(directory) == 0 and find(drumhead, "sleeper")["state"] == "exited"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    drumhead("start", "sleeper")
    assert await post(port, "again") == (200, "AGAIN"), "the same port"
    await asleep(drumhead, "sleeper")
    dead = find(drumhead, "sleeper")["launch"]["forwards"][1]["host_port"]
    reader, writer = await asyncio.open_connection("127.0.0.1", dead)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    refused = asyncio.create_task(reader.read())
    assert await post(port, "beside") == (200, "BESIDE")
    assert not refused.done(), "nothing listens on its port, which held up nobody"
    writer.close()
    drumhead("delete", "--force", "sleeper")
    assert not directory.exists()


async def test_a_machine_does_not_sleep_before_its_program_has_listened(drumhead, image):
    run(drumhead, image, "sleeper-slow", "--run", "slow")
    await asleep(drumhead, "sleeper-slow")
    assert (Instances(drumhead.home).directory("sleeper-slow") / "log").read_text().count("a start") == 1


async def test_a_connection_to_a_machine_that_cannot_start_is_refused_with_a_sentence(drumhead, image):
    port = run(drumhead, image, "sleeper-broken", "--run", "broken")
    await asleep(drumhead, "sleeper-broken")
    log = Instances(drumhead.home).directory("sleeper-broken") / "supervisor.log"
    told = "sleeper-broken: ended with status 4; the next connection starts it again"
    await wait_until(log.parent, lambda: told in log.read_text())
    assert await post(port, "hello") == (503, "sleeper-broken could not be started\n")
    with socket.create_connection(("127.0.0.1", port), timeout=180) as mute:
        mute.sendall(b"\x16\x03")
        mute.shutdown(socket.SHUT_WR)
        assert mute.recv(10) == b""
    reason = lambda: find(drumhead, "sleeper-broken")["supervision"]["reason"]  # noqa: E731
    await wait_until(log.parent, lambda: reason() == "ended with status 4")  # a start that goes on has none yet
    assert log.read_text().count(told) >= 2


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("-f", "0:80"), "add -d"),
        (("-d",), "needs a forwarded port"),
        (("-d", "-f", "0:53/udp"), "TCP ports only"),
        (("-d", "-f", "0:80", "--restart", "always"), "leave out --restart"),
    ],
)
def test_what_a_sleeping_machine_needs_is_said(drumhead, image, flags, reason):
    assert reason in drumhead.refused("run", "--sleep-after", "5", *flags, "-i", image, "sleeper-not", status=2)


@pytest.fixture
def instances(tmp_path_factory):
    launch = launched("one", sleep_after=1.0, forwards=(PortForward(host_port=0, guest_port=80),))
    found = Instances(Home(root=tmp_path_factory.mktemp("home")))  # a socket's path has at most 107 bytes
    with found.lock("one"):
        found.write(launch)
    return found


@pytest.fixture
def start(instances, monkeypatch):
    """Return a function that starts the machine, for which a process then stands."""
    with ExitStack() as stack:

        def start():
            launch = instances.read("one").launch
            instances.write(launch)
            process = stack.enter_context(holding_pid_file(instances.directory("one")))
            (instances.directory("one") / "status").write_text('{"event":"started"}\n')
            return Started(launch=launch, acceleration=None, pid=process.pid, log_offset=0)

        async def restart(*_, **__):
            return start()

        async def control(*_, **__):
            return {"listening": True}

        monkeypatch.setattr(activation, "restart_machine", restart)
        monkeypatch.setattr(activation, "control", control)
        yield start


async def test_a_full_disk_of_the_host_does_not_keep_a_machine_from_being_started_again(instances, start, monkeypatch):
    one, real = SocketActivation(instances.home, instances, "one"), records.replacing

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    first = start()
    one.watch(first.pid)
    monkeypatch.setattr(records, "replacing", full)
    kill(first.pid)
    await asyncio.wait({one._watcher})
    monkeypatch.setattr(records, "replacing", real)
    async with asyncio.timeout(60):
        assert (await one._wake(80)).pid not in {0, first.pid}


@pytest.mark.parametrize("starts", [0, 1])
async def test_a_connection_that_meets_a_machine_at_its_end_starts_it_again(instances, start, monkeypatch, starts):
    one, asked = SocketActivation(instances.home, instances, "one"), []

    async def control(*_, **__):
        asked.append(instances.read("one").pid)
        if len(asked) > 1 + starts:
            return {"listening": True}
        kill(asked[-1])
        raise DrumheadError(ErrorCode.GUEST, "one has ended")

    monkeypatch.setattr(activation, "control", control)
    one.watch(start().pid)
    async with asyncio.timeout(60):
        if starts:  # a program that ends at once is not started over and over
            with pytest.raises(DrumheadError, match="one has ended"):
                await one._wake(80)
        else:
            assert (await one._wake(80)).pid == asked[-1]
    assert len({*asked}) == 2


async def test_a_program_that_ends_by_itself_is_not_said_to_sleep(instances, start):
    one = SocketActivation(instances.home, instances, "one")
    started = start()
    one.watch(started.pid)
    one._has_listened = True
    with (instances.directory("one") / "status").open("a") as status:
        status.write('{"event":"exit","code":4}\n')  # and the machine is about to end
    assert not await one.sleep(IDLE)
    kill(started.pid)
    async with asyncio.timeout(60):
        await asyncio.wait({one._watcher})
    assert instances.read("one").supervision.reason == "ended with status 4"


@pytest.mark.parametrize("use", [claiming_console, _free_port])
async def test_a_machine_in_which_somebody_works_does_not_sleep(instances, start, use):
    one = SocketActivation(instances.home, instances, "one")
    one.watch(start().pid)
    one._has_listened = True
    with use(instances.directory("one")):
        before = one._idle_since
        assert not await one.sleep(IDLE)
        assert one._idle_since > before, "it is idle from then on"
    assert await one.sleep(IDLE)


async def test_a_machine_that_a_command_starts_is_idle_from_then_on(instances, start):
    one = SocketActivation(instances.home, instances, "one")
    one.watch(start().pid)
    one._has_listened = True
    assert await one.sleep(IDLE)
    second = start()  # as `drumhead start` does
    assert not await one.sleep(IDLE)
    assert instances.read("one").pid == second.pid
    assert not one._has_listened, "which was the machine before"
    kill(second.pid)
    async with asyncio.timeout(60):
        await asyncio.wait({one._watcher})
    assert instances.read("one").supervision.restarts == 1, "its end is seen as well"
