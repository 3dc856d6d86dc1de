"""Test the host's shell on a private network: it reaches machines by name and address, also without root."""

import os
import signal
import subprocess
import sys

import pytest

from support.guests.machines import LIMIT, command, wait_gone

pytestmark = pytest.mark.slow

SEES = "curl -sS --retry 20 --retry-connrefused --max-time 60 http://{}:8000/"


def shell(drumhead, *words, status=0):
    done = drumhead.run("shell", "--private-network", "shared", "--", *words)
    assert done.returncode == status, done.stderr
    return done.stdout


def test_a_machine_answers_at_its_own_address_and_by_name(server, drumhead):
    address = server["launch"]["address"]
    said = shell(drumhead, "sh", "-c", f"{SEES.format(address)}; echo; {SEES.format('server')}")
    assert [line.startswith('{"argv": ["/server.py"') for line in said.splitlines()] == [True, True]


def test_much_is_carried(server, drumhead):
    """Carry more than a burst of frames in both directions for a program of the host."""
    program = (
        "import urllib.request\n"
        "sent = b'a burst of frames ' * 20_000\n"
        "with urllib.request.urlopen('http://server:8000/', sent, timeout=60) as answer:\n"
        "    print(answer.read() == sent.upper())"
    )
    assert shell(drumhead, sys.executable, "-c", program) == "True\n"


def test_its_status_is_the_program_s_and_the_program_is_the_user_s(server, drumhead):
    shell(drumhead, "sh", "-c", "exit 7", status=7)
    shell(drumhead, "sh", "-c", "kill -9 $$", status=137)
    shell(drumhead, "no-such-program", status=127)
    assert shell(drumhead, "id", "-u").strip() == str(os.geteuid())
    assert "server" not in drumhead.run("shell", "--", "cat", "/etc/hosts").stdout, "it is on another network"


def test_a_network_without_machines_is_named(server, drumhead):
    said = drumhead.run("shell", "--private-network", "shraed", "--", "true")
    assert said.returncode == 0
    assert said.stderr.startswith("No machine is on the network shraed; there are machines on: ")
    assert "shared" in said.stderr
    assert "No machine" not in drumhead.run("shell", "--private-network", "shared", "--", "true").stderr


def test_there_is_no_other_network(server, drumhead):
    cards = shell(drumhead, "sh", "-c", "ls /sys/class/net >/dev/null; cat /proc/net/dev").splitlines()[2:]
    assert sorted(line.split(":")[0].strip() for line in cards) == ["eth0", "lo"]


async def test_a_killed_shell_takes_its_program_along_and_leaves_no_file(empty, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    with command(empty.home, "shell", "sh", "-c", "grep -c localhost /etc/hosts; echo $$; exec sleep 987") as process:
        assert process.stdout.readline() == b"2\n"
        program = int(process.stdout.readline())
        process.kill()
        try:
            await wait_gone(program)
        except TimeoutError:
            os.kill(program, signal.SIGKILL)
            raise
    assert not any((tmp_path / "scratch").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="somebody else has no privileges anyway, as the other tests show")
def test_it_needs_no_privileges(server, drumhead):
    """Run as root without capabilities, which has the rights of any user (and can open root's files, like pytest's).

    The process keeps CAP_SETFCAP, which Linux requires only from root to become root in a new user namespace.
    """
    words = [
        "setpriv",
        "--bounding-set=-all,+setfcap",
        "--inh-caps=-all",
        *drumhead.words,
        "shell",
        "--private-network",
        "shared",
    ]
    env = {**os.environ, "DRUMHEAD_HOME": str(drumhead.home.root)}
    inside = ["sh", "-c", f"grep CapEff /proc/self/status; {SEES.format('server')}"]
    done = subprocess.run([*words, "--", *inside], env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    capabilities, answer = done.stdout.splitlines()
    assert answer.startswith('{"argv"'), done.stderr
    assert capabilities
    bare = ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all", "grep", "CapEff", "/proc/self/status"]
    assert int(subprocess.check_output(bare).split()[1], 16) == 1 << 31


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused like this")
def test_a_host_that_does_not_allow_it_is_told_at_once(drumhead):
    words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *drumhead.words, "shell", "--", "true"]
    env = {**os.environ, "DRUMHEAD_HOME": str(drumhead.home.root)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 5
    assert "does not let user 0 keep its number" in done.stderr
    assert "Traceback" not in done.stderr
