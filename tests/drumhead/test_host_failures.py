"""Test that failures of the host give a message of one sentence in every command."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drumhead import host
from drumhead.errors import DrumheadError
from drumhead.home import Home, find_home
from drumhead.image.store import ImageStore
from drumhead.machine.instances import Instances
from drumhead.machine.records import VolumeMount
from drumhead.machine.snapshot.store import Snapshots
from drumhead.machine.volume.volumes import volume_path
from drumhead.package.store import PackageStore, parse_ref
from drumhead.python.bytecode import Interpreter, only_bytecode, with_bytecode
from drumhead.tree import Tree, regular
from support.guests.composing import Drumhead
from support.programs.command import file_limit


@pytest.fixture
def readable(tmp_path):
    """Return the command with a store that cannot be written: one of its directories is a file."""
    (tmp_path / "file").write_text("")
    return Drumhead(Home(root=tmp_path / "file" / "home"))


@pytest.mark.parametrize(
    "words",
    [
        ("volume", "create", "v"),
        ("remote", "add", "x", "https://example.org/x"),
        ("key", "create"),
        ("package", "compose", "small"),
    ],
)
def test_a_store_that_cannot_be_written(readable, project, words):
    told = readable.refused(*words, status=4, cwd=project)
    assert "Not a directory; if it belongs to drumhead's store, set DRUMHEAD_HOME" in told


LISTS = ("images", "instances", "package list", "volume list", "snapshot list", "kernel list")


@pytest.mark.parametrize("words", LISTS)
def test_a_store_that_is_a_file_is_not_called_empty(tmp_path, words):
    (tmp_path / "file").write_text("")
    assert "file" in Drumhead(Home(root=tmp_path / "file")).refused(*words.split(), status=4)


@pytest.mark.skipif(os.geteuid() != 0, reason="other users need root")
@pytest.mark.parametrize("listing", [ImageStore, Instances, PackageStore, Snapshots])
def test_a_store_of_another_user_is_not_called_empty(tmp_path, listing):
    home = Home(root=tmp_path / "home")
    home.root.mkdir(mode=0o700)
    store = listing(home)
    assert list(store.names() if listing is Instances else store.list()) == []
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            store.names() if listing is Instances else store.list()
    finally:
        os.seteuid(0)


def limited(drumhead, size, *words):
    """Run a command whose files may have at most `size` bytes, which simulates a disk that becomes full."""
    env = {**os.environ, "DRUMHEAD_HOME": str(drumhead.home.root)}
    whole = [*file_limit(size), *drumhead.words, *map(str, words)]
    done = subprocess.run(whole, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr


def test_a_file_that_cannot_grow(empty):
    limited(empty, 0, "remote", "add", "x", "https://example.org/x")


async def test_a_download_that_does_not_fit_leaves_nothing(drumhead, empty, tmp_path, serve):
    package = drumhead.package("ca-certificates")
    assert package.archive_size > 1 << 16
    drumhead("package", "push", package.name, "--to", tmp_path)
    empty("remote", "add", "near", await serve(tmp_path))
    await asyncio.to_thread(limited, empty, 1 << 16, "package", "pull", package.name)
    assert max(file.stat().st_size for file in empty.home.root.rglob("*") if file.is_file()) < 1 << 16


def test_bytecode_that_does_not_fit_is_no_bytecode(drumhead, tmp_path):
    """Compile a short source whose bytecode is longer than a file may be, and keep nothing that was cut."""
    store = PackageStore(drumhead.home)
    interpreter = Interpreter.unpack(store.tree(store.find(parse_ref("python"))), tmp_path)
    tree = Tree()
    for name in ("odd\tname\r\n.py", "plain.py"):
        tree.add(name, regular(b"a = 1\n"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(DrumheadError, match="File too large"):
            only_bytecode(tree, interpreter)
        with pytest.raises(DrumheadError, match="File too large"):
            with_bytecode(tree, interpreter, tmp_path / "cache", "seed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "cache").iterdir()) == []
    assert {path for path, _ in only_bytecode(tree, interpreter)} == {"odd\tname\r\n.pyc", "plain.pyc"}


def test_a_user_without_a_home_directory(monkeypatch):
    def nobody(_uid):
        raise KeyError

    for name in ("HOME", "DRUMHEAD_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(DrumheadError, match="there is no home directory for ~/.drumhead; set DRUMHEAD_HOME"):
        find_home()
    disk = VolumeMount(source="~nosuch/disk", path="/data")
    with pytest.raises(DrumheadError, match="there is no home directory for ~nosuch/disk"):
        volume_path(Home(root=Path("/nothing")), disk)


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(empty, closed):
    env = {**os.environ, "DRUMHEAD_HOME": str(empty.home.root)}
    for words, status in ((("images",), 0), (("info", "nothing"), 3)):
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *empty.words, *words]
        done = subprocess.run(shell, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr


def test_an_argument_that_is_not_text(empty):
    done = subprocess.run(
        [*empty.words, b"run", b"-e", b"/a \xff", b"image"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "an argument is not UTF-8 text" in done.stderr


def test_a_home_whose_path_is_not_text_is_refused(empty, tmp_path):
    for words in (["images"], ["doctor", "--json"]):
        env = {**os.environb, b"DRUMHEAD_HOME": bytes(tmp_path) + b"/\xff"}
        done = subprocess.run([*empty.words, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "is not UTF-8; set DRUMHEAD_HOME to another directory" in done.stderr


def test_a_home_is_the_same_through_a_symbolic_link(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to("home")
    monkeypatch.setenv("DRUMHEAD_HOME", str(tmp_path / "link"))
    assert find_home() == Home(root=tmp_path.resolve() / "home")
    monkeypatch.setenv("DRUMHEAD_HOME", str(tmp_path / "link/new"))  # before and after it is created
    assert find_home() == Home(root=tmp_path.resolve() / "home/new")


@pytest.mark.parametrize("words", [("remote", "add", "x", "https://example.org/x"), ("package", "compose", "small")])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_home_that_is_no_directory(project, tmp_path, kind, words):
    home = tmp_path / "home"
    home.write_text("") if kind == "file" else home.symlink_to("nothing")
    told = Drumhead(Home(root=home)).refused(*words, status=4, cwd=project)
    assert "File exists; if it belongs to drumhead's store, set DRUMHEAD_HOME to a directory" in told


BUSY = """
import asyncio, sys
import drumhead.cli
from drumhead import host

async def command():
    await asyncio.to_thread(host.run, ["sh", "-c", "trap '' INT TERM HUP; exec 3>$0; exec sleep 600", sys.argv[1]])

try:
    sys.exit(drumhead.cli._run(command()))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_whose_thread_waits_for_a_program(tmp_path, number):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-c", BUSY, fifo], process_group=0) as process:
        try:
            # Opening blocks until the program runs; reading ends when the program ends.
            with fifo.open("rb") as started:
                os.killpg(process.pid, number)
                assert process.wait(timeout=60) == 128 + number
                assert started.read() == b""
        finally:
            process.kill()


MISSED = """
import asyncio, os, signal, sys, threading
from pathlib import Path
import drumhead.cli

WAITS = {"232", "281"}  # epoll_wait and epoll_pwait of x86-64

def thread(number):
    main = Path(f"/proc/self/task/{os.getpid()}/syscall")
    while main.read_text().split()[0] not in WAITS:
        pass
    # As if the signal had come just before that: it does not interrupt the system call.
    signal.pthread_kill(threading.get_ident(), number)
    threading.Event().wait()

try:
    sys.exit(drumhead.cli._run(asyncio.to_thread(thread, int(sys.argv[1]))))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_does_not_interrupt_the_wait_ends_a_command(number):
    done = subprocess.run([sys.executable, "-c", MISSED, str(int(number))], timeout=60, check=False)
    assert done.returncode == 128 + number


UNWATCHED = """
import asyncio, sys
from pathlib import Path
from drumhead.errors import DrumheadError
from drumhead.guest.contract import BootPlan
from drumhead.machine import process
from drumhead.machine.qemu import spawn

async def main(directory):
    plan = BootPlan(kernel=Path("k"), initrd=None, cmdline="", drives=(), channels=())
    try:
        await spawn.spawn(["sleep", "600"], plan, directory, attached=True)
    except DrumheadError as error:
        print(error.code, error.message)

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may always make a user namespace")
@pytest.mark.parametrize("limit", ["instances", "watches"])
def test_without_inotify_nothing_is_started_and_the_error_says_what_to_do(tmp_path, limit):
    script = f'echo 0 >/proc/sys/user/max_inotify_{limit} && exec "$@"'
    words = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        "-c",
        UNWATCHED,
        tmp_path,
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert "host-tool the kernel watches no more files for this user" in done.stdout, done.stderr
    assert f"sysctl fs.inotify.max_user_{limit}=" in done.stdout


NEAT = """
import asyncio, sys, tempfile
import drumhead.cli

async def command():
    with tempfile.TemporaryDirectory(dir=sys.argv[1]):
        print("begun", flush=True)
        await asyncio.Event().wait()

sys.exit(drumhead.cli._run(command()))
"""


def test_a_command_that_is_terminated_removes_its_temporary_files(tmp_path):
    with subprocess.Popen([sys.executable, "-c", NEAT, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        process.terminate()
        assert process.wait(timeout=60) == 143
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", ["mke2fs: No space left on device", "npm error ENOSPC: no space left on device"])
def test_a_program_that_finds_the_disk_full_gets_the_advice_for_it(said):
    with pytest.raises(DrumheadError, match=r"/sh: No space left on device; free some space .* DRUMHEAD_HOME"):
        host.run(["sh", "-c", f"echo {said} while writing >&2; exit 1"])


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "echo 'e2fsck 1.47.0 (5-Feb-2023)' >&2; echo 'v: UNEXPECTED INCONSISTENCY'; exit 4",
            "v: UNEXPECTED INCONSISTENCY",
        ),
        ("echo written; echo broken >&2; exit 1", "broken"),
        ("exit 1", "it did not say why"),
    ],
)
def test_a_program_that_fails_is_quoted(script, told):
    with pytest.raises(DrumheadError, match=rf"/sh failed with status \d: {told}$"):
        host.run(["sh", "-c", script])
