"""Test the start program of an OSv guest on the host: it runs the command and reports to the host."""

import json
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import msgspec
import pytest

from drumhead.guest.osv import program
from support.guests.osv import shared_object

START = """
import sys
from pathlib import Path
sys.path.insert(0, {place!r})
import drumhead_start.machine as machine
machine.CONFIG, machine.OWN_FILES = Path({config!r}), Path({own!r})
machine.SECRETS = Path({own!r}) / "secrets"
sys.path.insert(0, "")
machine.Machine().run()
"""


class Host:
    """Hold the host's ends of the channels, and run a start program that uses them."""

    def __init__(self, tmp_path, words, **settings):
        self.received = dict.fromkeys(("log", "status", "control"), b"")
        self.listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in self.received}
        ports = {name: listener.getsockname()[1] for name, listener in self.listeners.items()}
        place = tmp_path / "place"
        place.mkdir()
        (place / "drumhead_start").symlink_to(Path(program.__file__).parent / "start")
        config = tmp_path / "config.json"
        known = {"env": {}, "cwd": str(tmp_path), "hosts": {"two": "10.0.0.2"}, "volumes": (), "nameserver": "10.0.2.3"}
        written = program.Settings(
            hostname="one", argv=words, channels={"address": "127.0.0.1", **ports}, **{**known, **settings}
        )
        config.write_bytes(msgspec.json.encode(written))
        self.own = tmp_path / "own"
        code = START.format(place=str(place), config=str(config), own=str(self.own))
        # Its standard input never ends, as OSv's console.
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE)
        self.connections = {name: self.listeners[name].accept()[0] for name in self.listeners}
        self._receiving = [threading.Thread(target=self._receive, args=(name,)) for name in ("log", "status")]
        for thread in self._receiving:
            thread.start()

    def _receive(self, name):
        while part := self.connections[name].recv(1 << 16):
            self.received[name] += part

    def order(self, order):
        self.connections["control"].sendall(json.dumps(order).encode() + b"\n")
        return json.loads(self.connections["control"].makefile().readline())

    def end(self):
        """Wait for the start program; return its exit status, its output and its reports."""
        status = self.process.wait(60)
        self._received()
        events = [json.loads(line) for line in self.received["status"].splitlines()]
        return status, self.received["log"].decode(), events

    def _received(self):
        """Wait until everything that the program has sent is there, which is after its end."""
        for thread in self._receiving:
            thread.join(60)

    def close(self):
        self.process.kill()
        self.process.wait()
        self._received()
        for one in (self.process.stdin, *self.listeners.values(), *self.connections.values()):
            one.close()


@pytest.fixture
def start(tmp_path):
    hosts = []

    def run(*words, **settings):
        hosts.append(Host(tmp_path, words, **settings))
        return hosts[-1]

    yield run
    for host in hosts:
        host.close()


def test_a_module_runs_as_python_would_run_it(start, tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part/__init__.py").touch()
    (tmp_path / "part/main.py").write_text(
        textwrap.dedent("""
        import os, pickle, socket, sys
        class Here: pass
        print(__name__, sys.argv[1:], os.path.basename(sys.argv[0]), os.environ["A"], socket.gethostname())
        print(pickle.loads(pickle.dumps(Here())).__class__ is Here, hasattr(os, "fork"), sys.path[0] == os.getcwd())
        sys.exit(3)
        """)
    )
    status, log, events = start("-m", "part.main", "x", "y z", env={"A": "b"}).end()
    assert log.splitlines() == ["__main__ ['x', 'y z'] main.py b one", "True False True"]
    assert status == 3
    assert [event["event"] for event in events] == ["started", "exit"]
    assert events[-1]["code"] == 3


def test_a_script_that_fails_shows_its_own_trace_and_ends_with_1(start, tmp_path):
    (tmp_path / "main.py").write_text("import sys\nprint(__file__, sys.argv)\nraise ValueError('no')\n")
    status, log, events = start("main.py", "a").end()
    assert "main.py ['main.py', 'a']" in log
    assert "ValueError: no" in log
    assert "drumhead_start" not in log
    assert (status, events[-1]["code"]) == (1, 1)


def test_code_of_the_command_line_ends_after_its_threads(start):
    code = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('last'))).start()"
    status, log, _ = start("-c", code).end()
    assert (status, log) == (0, "last\n")


IOCTL_OF_OSV = """
extern int *__errno_location(void);
extern long lseek(int fd, long at, int from);
int ioctl(int fd, unsigned long request, void *more)
{
    int files = request == 0x5450 || request == 0x5451;
    if (files) *__errno_location() = lseek(fd, 0, 1) < 0 ? 25 : 22;
    return files ? -1 : 0;
}
"""


def test_temporary_files_work_where_ioctl_knows_no_files(start, tmp_path, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", str(shared_object(tmp_path / "ioctl.so", IOCTL_OF_OSV)))
    code = textwrap.dedent("""
        import tempfile
        for make in (tempfile.TemporaryFile, tempfile.NamedTemporaryFile, lambda: tempfile.SpooledTemporaryFile(1)):
            with make() as file:
                file.write(b"upload")
                file.seek(0)
                print(file.read())
        """)
    assert start("-c", code).end()[:2] == (0, "b'upload'\n" * 3)


def test_a_program_finds_no_input_its_own_name_and_what_the_kernel_has(start):
    code = textwrap.dedent("""
        import os, platform, socket, sys
        print([sys.stdin.read()], os.uname().nodename, platform.node(), os.uname().machine == platform.machine())
        try:
            socket.socket(socket.AF_INET6).close()
        except OSError:
            print(not socket.has_ipv6)
        else:
            print(socket.has_ipv6)
        """)
    assert start("-c", code).end()[:2] == (0, "[''] one one True\nTrue\n")


def test_the_time_zone_of_a_program_is_the_one_of_its_environment(start, tmp_path):
    code = "import time; print(time.tzname[0], time.localtime(0).tm_hour)"
    before = program.Program(argv=("-c", code), env={"TZ": "EST5"}, cwd=str(tmp_path))
    _, log, _ = start("-c", code, env={"TZ": "XYZ-3"}, before=(before,)).end()
    assert log.splitlines() == ["EST 19", "XYZ 3"]


def test_a_stop_reaches_the_handlers_of_asyncio(start):
    code = textwrap.dedent("""
        import asyncio, signal
        async def main():
            stopped = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
            print("ready", flush=True)
            await stopped.wait()
            print("stopped")
        asyncio.run(main())
        """)
    host = start("-c", code)
    wait_for(host, "log", b"ready")
    assert host.order({"do": "stop", "grace": 30}) == {"ok": True}
    status, log, events = host.end()
    assert (status, log) == (0, "ready\nstopped\n")
    assert events[-1] == {"event": "exit", "code": 0}


@pytest.mark.parametrize(
    "wait",
    [
        "time.sleep(999)",
        "threading.Event().wait()",
        "queue.Queue().get(timeout=999)",
        "(other := threading.Thread(target=time.sleep, args=(999,), daemon=True)).start(), other.join()",
    ],
)
def test_a_stop_reaches_a_handler_while_the_program_waits(start, wait):
    code = textwrap.dedent(f"""
        import queue, signal, sys, threading, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        print("ready", flush=True)
        {wait}
        """)
    host = start("-c", code)
    wait_for(host, "log", b"ready")
    assert host.order({"do": "stop", "grace": 30}) == {"ok": True}
    assert host.end()[0] == 3


def test_waits_take_their_time(start):
    code = textwrap.dedent("""
        import threading, time
        def measured(call, *arguments):
            begun = time.monotonic()
            return call(*arguments), round(time.monotonic() - begun, 1) >= arguments[-1]
        def raised(call, *arguments):
            try:
                call(*arguments)
            except (ValueError, TypeError, OverflowError, RuntimeError) as error:
                return type(error).__name__
        event, thread = threading.Event(), threading.Thread(target=time.sleep, args=(1.2,))
        print(measured(time.sleep, 0.7), measured(event.wait, 0.7), measured(time.sleep, 0))
        thread.start()
        print(measured(thread.join, 0.7), thread.is_alive(), thread.join(), thread.is_alive(), thread.join(-1))
        threading.Timer(0.1, event.set).start()
        print(event.wait(), event.wait(0), raised(time.sleep, -1), raised(time.sleep, "1"), raised(time.sleep, 1e300))
        print(raised(threading.main_thread().join), raised(threading.Thread().join))
        """)
    status, log, _ = start("-c", code).end()
    assert log.splitlines() == [
        "(None, True) (False, True) (None, True)",
        "(None, True) True None False None",
        "True True ValueError TypeError OverflowError",
        "RuntimeError RuntimeError",
    ]
    assert status == 0


def test_programs_run_one_after_another_each_as_if_alone(start, tmp_path):
    first = textwrap.dedent("""
        import atexit, concurrent.futures, os, signal, sys, threading, time
        left_over = 1
        sys.path.append("/left/over")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.chdir("/")
        os.environ["B"] = "changed"
        concurrent.futures.ThreadPoolExecutor().submit(print, "pooled", os.environ["A"])
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
        atexit.register(print, "at its end")
        sys.exit(0)
        """)
    second = textwrap.dedent("""
        import concurrent.futures, os, signal, sys
        print("left_over" in globals(), "/left/over" in sys.path, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        print(os.path.realpath(os.getcwd()) == os.path.realpath(sys.argv[1]), os.environ.get("A"), os.environ["B"])
        with concurrent.futures.ThreadPoolExecutor() as pool:
            print(pool.submit(int, "5").result())
        sys.exit(4)
        """)
    before = (program.Program(argv=("-c", first), env={"A": "a"}, cwd=str(tmp_path)),)
    status, log, events = start("-c", second, str(tmp_path), env={"B": "b"}, before=before).end()
    assert log.splitlines() == ["pooled a", "thread", "at its end", "False False True", "True None b", "5"]
    assert status == 4
    assert [event["event"] for event in events] == ["started", "exit"]


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os; os._exit(5)", 5, ""),
        ("import os; os._exit(0)", 1, "the next config set cannot run"),
    ],
)
def test_a_program_that_fails_is_the_last_one(start, tmp_path, code, status, said):
    before = (program.Program(argv=("-c", code), env={}, cwd=str(tmp_path)),)
    ended, log, _ = start("-c", "print('next', flush=True)", before=before).end()
    assert ended == status
    assert said in log
    assert "next\n" not in log


def test_a_program_that_is_stopped_is_the_last_one(start, tmp_path):
    code = "import signal, time\nsignal.signal(15, lambda *_: exit(0))\nprint('ready', flush=True)\n"
    code += "while True: time.sleep(0.01)"
    before = (program.Program(argv=("-c", code), env={}, cwd=str(tmp_path)),)
    host = start("-c", "print('next')", before=before)
    wait_for(host, "log", b"ready\n")
    host.order({"do": "stop", "grace": 30})
    assert host.end()[:2] == (0, "ready\n")


@pytest.mark.parametrize(
    ("before", "code"), [("", 143), ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", 137)]
)
def test_who_does_not_handle_a_stop_is_ended(start, before, code):
    host = start("-c", f"{before}\nimport time\nprint('ready', flush=True)\ntime.sleep(60)")
    wait_for(host, "log", b"ready")
    host.order({"do": "stop", "grace": 0.1})
    status, _, events = host.end()
    assert (status, events[-1]["code"]) == (code, code)


def test_a_program_that_leaves_by_itself_is_reported(start):
    host = start("-c", "import atexit, os\natexit.register(os._exit, 7)\nprint('said', flush=True)")
    status, log, events = host.end()
    assert (status, log) == (7, "said\n")
    assert events[-1] == {"event": "exit", "code": 7}


def test_names_are_kept_up_to_date(start):
    host = start("-c", "print('ready', flush=True); import time; time.sleep(60)")
    wait_for(host, "log", b"ready")
    assert "10.0.0.2 two" in (host.own / "hosts").read_text()
    assert host.order({"do": "hosts", "hosts": {"three": "10.0.0.3"}})["ok"]
    assert "10.0.0.3 three" in (host.own / "hosts").read_text()
    assert not host.order({"do": "dance"})["ok"]
    assert host.order({"do": "memory"})["memory"]["total"] > 0


def test_secrets_are_files_for_the_program_alone(start):
    text = 'two "lines"\nü\n'
    code = "import os; [print(oct(os.stat(p).st_mode)) for p in ('own/secrets', 'own/secrets/key')]"
    host = start("-c", code, secrets={"key": text})
    status, log, _ = host.end()
    assert (status, log) == (0, "0o40700\n0o100600\n")
    assert (host.own / "secrets/key").read_text() == text


def test_a_volume_that_is_not_there_is_a_failure_with_a_reason(start):
    status, _, events = start("-c", "print('never')", volumes=("/no/such/volume",)).end()
    assert events[-1]["event"] == "failed"
    assert "/no/such/volume" in events[-1]["reason"]
    assert status == 0


def wait_for(host, name, text):
    while text not in host.received[name]:
        assert host.process.poll() is None


def test_the_host_is_told_the_addresses_that_cards_got(start):
    _, _, events = start("-c", "", cards=("lo", "none")).end()
    assert events[:2] == [
        {"event": "address", "card": "lo", "address": "127.0.0.1"},
        {"event": "address", "card": "none", "address": ""},
    ]
