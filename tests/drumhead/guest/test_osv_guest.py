"""What the OSv guest turns records into, and its start program as a process of this host; nothing boots here."""

import io
import json
import shlex
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.rofs.root import unite
from drumhead.filesystem.rofs.writer import write_rofs
from drumhead.guest import find_guest, require
from drumhead.guest.contract import Drive, GuestMount, GuestNic, RunConfig
from drumhead.guest.osv import program
from drumhead.guest.osv.cmdline import MAX_LENGTH, command_line, option
from drumhead.guest.osv.skeleton import PRELOAD, START_PLACE
from drumhead.image.guest_program import compile_program
from drumhead.machine.qemu.acceleration import try_boot
from drumhead.records import Blob, Command, Image, ImageFiles, Kernel
from drumhead.tree import Tree, regular
from support.guests import osv
from support.guests.machines import LIMIT
from support.guests.rofs import read_rofs

STATE = Path("/state")
IMAGE = Image(
    name="i",
    title="",
    version="",
    guest="osv",
    kernel=Kernel(package="osv", version="1", vmlinux=Blob(digest="a", size=1), initrd=None),
    layers=(),
)
NICS = (
    GuestNic(mac="02:00:00:00:00:02", address="10.64.0.9/10"),
    GuestNic(mac="02:00:00:00:00:01", address="10.0.2.15/24", gateway="10.0.2.2", nameserver="10.0.2.3"),
)
PYTHON = Command(
    argv=("python3", "-X", "dev", "-m", "app.main", "--port", "80"), env={"A": "b c", "PYTHONHASHSEED": "0"}
)
VOLUME = Drive(path=Path("/volumes/d.raw"), format="raw", serial="volume-0", readonly=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    tree = Tree()
    tree.add("app", regular(b"x"))
    write_rofs(tree, folder / "layer")
    (folder / "root").write_bytes(unite([folder / "layer"]))
    return ImageFiles(kernel=Path("/kernel"), initrd=None, layers=(folder / "layer", folder / "root"))


def plan(files, command=PYTHON, data=(), **more):
    config = RunConfig(hostname="one", command=command, nics=NICS, hosts={"two": "10.64.0.2"}, **more)
    return find_guest("osv").plan(IMAGE, files, config, STATE, data)


def settings_of(boot):
    """The files of the configuration's disk."""
    disk = read_rofs(io.BytesIO(boot.files[STATE / "config.rofs"]))
    return {path.decode(): disk.read(path) for path in disk.places}


def test_disks_are_in_the_order_that_the_command_line_counts(files):
    boot = plan(files, data=(VOLUME,), mounts=(GuestMount(serial="volume-0", path="/data"),))
    assert [drive.serial for drive in boot.drives] == ["root", "config", "volume-0"]
    assert [drive.format for drive in boot.drives] == ["vmdk", "raw", "raw"]
    assert [drive.writethrough for drive in boot.drives] == [False, False, True]
    assert "--mount-fs=rofs,/dev/vblk1,/drumhead --mount-fs=ext,/dev/vblk2,/data " in boot.cmdline
    assert "ramfs" not in boot.cmdline
    assert f'"--preload" "{PRELOAD}"' in boot.cmdline


def test_without_a_volume_data_is_memory(files):
    boot = plan(files)
    assert "--mount-fs=ramfs,ramfs,/data" in boot.cmdline
    assert "--preload" not in boot.cmdline


def test_cards_have_fixed_addresses(files):
    words = plan(files).cmdline.split()
    assert "--ip=eth1,10.0.2.15,255.255.255.0" in words
    assert "--ip=eth0,10.64.0.9,255.192.0.0" in words
    assert "--defaultgw=10.0.2.2" in words


def test_with_a_card_that_asks_for_its_address_all_do(files):
    config = RunConfig(hostname="one", command=PYTHON, nics=(NICS[0], GuestNic(mac="02:00:00:00:00:02")))
    assert "--ip" not in find_guest("osv").plan(IMAGE, files, config, STATE, ()).cmdline


def test_little_memory_goes_without_the_cache(files):
    assert "--disable_rofs_cache" in plan(files, memory=64).cmdline
    assert "--disable_rofs_cache" not in plan(files, memory=96).cmdline


async def test_what_is_booted_to_try_an_accelerator_gives_a_sign_of_life():
    kernel = next(file for file in osv.real_files() if file.suffix == ".elf")
    boot = find_guest("osv").probe(ImageFiles(kernel=kernel, initrd=None, layers=()))
    assert await try_boot(boot, "tcg", LIMIT) == ""


def test_python_programs_start_under_the_start_program(files):
    boot = plan(files)
    assert boot.cmdline.endswith('"/lib64/ld-linux-x86-64.so.2" "/usr/bin/python3" "-X" "dev" "-m" "drumhead_start"')
    assert "--env=PYTHONHASHSEED=0" in boot.cmdline
    assert "--env=A" not in boot.cmdline
    assert {channel.name: channel.port for channel in boot.channels} == {"log": 1, "status": 2, "control": 3}
    assert boot.console == "console"


def test_the_configuration_is_a_disk(files):
    found = settings_of(plan(files))
    settings = json.loads(found["config.json"])
    assert settings["argv"] == ["-m", "app.main", "--port", "80"]
    assert settings["env"] == PYTHON.env
    assert settings["hosts"] == {"two": "10.64.0.2"}
    assert settings["channels"] == {"address": "10.0.2.100", "log": 1, "status": 2, "control": 3}


def test_other_programs_start_alone_and_count_as_running(files):
    boot = plan(files, Command(argv=("node", "-e", "x; y $Z"), env={"A": "b c"}))
    assert "--env=A=b\\ c --env=DRUMHEAD_ARGUMENT_3=x;\\ y\\ $Z" in boot.cmdline
    assert boot.cmdline.endswith('"/usr/bin/node" "-e" $DRUMHEAD_ARGUMENT_3')
    assert boot.channels == ()
    assert boot.console == "log"
    status = json.loads(boot.files[STATE / "status"])
    assert status["event"] == "started"
    assert "10.64.0.2 two" in settings_of(boot)["hosts"].decode()


def test_a_command_line_that_osv_would_cut_off_is_refused(files):
    with pytest.raises(DrumheadError) as error:
        plan(files, Command(argv=("/bin/x", "y" * MAX_LENGTH)))
    assert error.value.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize("ability", ["exec", "shell", "overlay", "second-volume", "readonly-volume", "qcow2-volume"])
def test_what_osv_lacks_is_refused_with_the_reason(ability):
    with pytest.raises(DrumheadError, match="OSv") as error:
        require(find_guest("osv"), ability)
    assert error.value.code is ErrorCode.UNSUPPORTED
    require(find_guest("linux"), ability)


@pytest.mark.parametrize(
    ("words", "options", "rest"),
    [
        ("main.py -x", "", "main.py -x"),
        ("-u -Wd -X dev main.py -m", "-u -Wd -X dev", "main.py -m"),
        ("-m app.main -c", "", "-m app.main -c"),
        ("-mapp.main a", "", "-m app.main a"),
        ("-uBm app", "-uB", "-m app"),
        ("-W error -c 1 2", "-W error", "-c 1 2"),
        ("--check-hash-based-pycs never x.py", "--check-hash-based-pycs never", "x.py"),
        ("--version", "--version", ""),
        ("-V", "-V", ""),
        ("-", "-", ""),
        ("", "", ""),
        ("-m", "", ""),
    ],
)
def test_words_of_python_are_split_into_its_options_and_the_program(words, options, rest):
    assert program.split_python(tuple(words.split())) == (tuple(options.split()), tuple(rest.split()))


def parse_options(line):
    """OSv's reading of its options: blanks end a word, a backslash keeps what follows it."""
    words, word, at = [], "", 0
    while at < len(line):
        if line[at] == "\\":
            word, at = word + line[at + 1], at + 2
        elif line[at] in " \t\n":
            words, word, at = [*words, word], "", at + 1
        else:
            word, at = word + line[at], at + 1
    return [*words, word]


def parse_program(line, variables):
    """OSv's reading of the program: quoted words with escapes, and words that name a variable."""
    words = []
    for quoted in shlex.split(line, posix=False):
        if quoted.startswith('"'):
            words.append(quoted[1:-1].replace('\\"', '"').replace("\\\\", "\\"))
        else:
            name = quoted.removeprefix("$")
            words.append(variables[name])
    return words


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(st.text(st.sampled_from("ABC_"), min_size=1), texts, max_size=3))
def test_options_arrive_as_they_were_given(variables):
    line = " ".join(option("env", f"{name}={value}") for name, value in variables.items())
    assert [word for word in parse_options(line) if word] == [
        f"--env={name}={text}" for name, text in variables.items()
    ]


@given(st.lists(texts.filter(lambda text: '"' not in text and "\\" not in text), min_size=1, max_size=4))
def test_words_of_the_program_arrive_as_they_were_given(argv):
    line = command_line([], {}, argv)
    options = [word for word in parse_options(line) if word.startswith("--env=DRUMHEAD_ARGUMENT_")]
    variables = dict(word.removeprefix("--env=").split("=", 1) for word in options)
    start = sum(len(option("env", word.removeprefix("--env="))) + 1 for word in options)
    assert parse_program(line[start:], variables) == argv


def test_the_skeleton_has_the_start_program_and_places_to_mount(tmp_path):
    guest = find_guest("osv")
    tree = guest.skeleton(compile_program(guest.program, tmp_path))
    assert f"{START_PLACE}/__main__.py" in tree
    assert tree["etc/hosts"].target == "/run/drumhead/hosts"
    for line in tree["etc/fstab"].read().decode().splitlines():
        assert line.split()[1].lstrip("/") in tree
    assert tree[PRELOAD.lstrip("/")].read()[:4] == b"\x7fELF"


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
    """The host's ends of the channels, and a start program that uses them."""

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
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
        self.connections = {name: self.listeners[name].accept()[0] for name in self.listeners}
        for name in ("log", "status"):
            threading.Thread(target=self._receive, args=(name,), daemon=True).start()

    def _receive(self, name):
        while part := self.connections[name].recv(1 << 16):
            self.received[name] += part

    def order(self, order):
        self.connections["control"].sendall(json.dumps(order).encode() + b"\n")
        return json.loads(self.connections["control"].makefile().readline())

    def end(self):
        """Its exit status, what it wrote, and what it reported."""
        status = self.process.wait(60)
        events = [json.loads(line) for line in self.received["status"].splitlines()]
        return status, self.received["log"].decode(), events


@pytest.fixture
def start(tmp_path):
    hosts = []

    def run(*words, **settings):
        hosts.append(Host(tmp_path, words, **settings))
        return hosts[-1]

    yield run
    for host in hosts:
        host.process.kill()
        host.process.wait()
        for one in (*host.listeners.values(), *host.connections.values()):
            one.close()


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
    wait_for(host, "log", b"ready")
    host.order({"do": "stop", "grace": 30})
    assert host.end()[:2] == (0, "ready\n")


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (Command(argv=("/app",)), "and /app is none"),
        (Command(argv=("python3", "-O", "a.py")), "python_args"),
        (Command(argv=("python3", "-X", "dev", "a.py"), env={"PYTHONHASHSEED": "1"}), "PYTHON…"),
    ],
)
def test_config_sets_that_no_single_python_can_run_are_refused(files, before, reason):
    with pytest.raises(DrumheadError, match=reason) as refused:
        plan(files, before=(before,))
    assert refused.value.code is ErrorCode.UNSUPPORTED
    boot = plan(files, before=(msgspec.structs.replace(PYTHON, argv=("python3", "-X", "dev", "a.py")),))
    assert json.loads(settings_of(boot)["config.json"])["before"] == [
        {"argv": ["a.py"], "env": {"A": "b c", "PYTHONHASHSEED": "0"}, "cwd": "/"}
    ]


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
