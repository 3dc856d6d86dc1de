"""Test one running machine with all commands; it boots only once."""

import asyncio
import hashlib
import json
import os
import pty
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from unittest.mock import AsyncMock

import pytest

from drumhead.errors import DrumheadError
from drumhead.guest.contract import Drive, exec_channel
from drumhead.machine import launch
from drumhead.machine.qemu.channel import connect, control, plug
from drumhead.machine.records import InstanceSpec, VolumeMount
from drumhead.machine.session.protocol import HEADER, MAX_INPUT, open_session
from drumhead.records import Command
from support.guests.machines import command, find, forwarded

pytestmark = pytest.mark.slow


def execute(drumhead, *words, data=b"", status=0):
    """Run a program in the machine; return its standard output and standard error."""
    with command(drumhead.home, "exec", "server", "--", *words) as process:
        out, err = process.communicate(data, timeout=120)
    assert process.returncode == status, err.decode()
    return out, err


@pytest.fixture(scope="module")
def facts(server):
    """Return what the program in the machine reports about its environment."""
    with urllib.request.urlopen(f"http://127.0.0.1:{forwarded(server, 8000)}/", timeout=60) as answer:
        return json.load(answer)


def test_command_gets_its_words_and_its_environment(facts):
    assert facts["argv"] == ["/server.py", "one", "two words"]
    assert facts["env"]["KEPT"] == "from the set"
    assert facts["env"]["GIVEN"] == "by hand"
    assert facts["env"]["ODD"] == 'a "b" \\ ü\n\tx'
    assert facts["env"]["EMPTY"] == ""
    assert facts["cwd"] == "/"


def test_machine_has_the_size_that_was_asked_for(facts):
    assert facts["cpus"] == 2
    assert 100 << 20 < facts["memory"] < 160 << 20
    assert facts["host"] == "server"


def test_as_many_files_may_be_open_as_the_machine_has_kibibytes(drumhead, facts):
    out, _ = execute(drumhead, "sh", "-c", "ulimit -Hn; ulimit -Sn")
    hard, soft = map(int, out.split())
    assert hard == facts["memory"] // 1024
    assert soft == 65536


def test_firmware_leaves_the_memory_alone_that_holds_the_initrd(drumhead, server):  # noqa: ARG001
    said = execute(drumhead, "dmesg")[0].decode()
    reserved = [
        (int(first, 16), int(last, 16))
        for first, last in re.findall(r"BIOS-e820: \[mem 0x(\w+)-0x(\w+)\] reserved", said)
    ]
    (first, last) = (int(number, 16) for number in re.search(r"RAMDISK: \[mem 0x(\w+)-0x(\w+)\]", said).groups())
    assert reserved
    assert not [one for one in reserved if one[0] <= last and first <= one[1]]


def test_a_mac_gives_its_address(server, drumhead):
    assert server["launch"]["mac"] == "a2:13:15:00:80:01"
    assert server["launch"]["address"] == "10.64.128.1"
    out, _ = execute(drumhead, "ip", "address")
    assert b"a2:13:15:00:80:01" in out
    assert b"10.64.128.1/10" in out


def test_ports_of_the_host_lead_in_by_tcp_and_udp(server, facts):
    assert facts
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(30)
        sender.sendto(b"hello", ("127.0.0.1", forwarded(server, 9000)))
        assert sender.recv(100) == b"HELLO"


LATE = """
import socket, time
with socket.create_server(("", 7000), backlog=1) as door:
    while door.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[28] < 100:  # tcpi_sacked: the backlog
        time.sleep(0.1)
    print("ready", flush=True)
    time.sleep(0.9)
    for _ in range(30):
        with door.accept()[0] as client:
            client.sendall(client.recv(100).upper())
"""


async def test_connections_that_a_program_accepts_late_are_answered(server, drumhead):
    async def shout(text):
        reader, writer = await asyncio.open_connection("127.0.0.1", forwarded(server, 7000))
        writer.write(text)
        answer = await reader.read()
        writer.close()
        return answer

    texts = [b"hello %d" % number for number in range(30)]
    with command(drumhead.home, "exec", "server", "--", "/usr/bin/python3", "-c", LATE) as process:
        assert process.stdout.readline() == b"ready\n"
        async with asyncio.timeout(120):
            assert await asyncio.gather(*map(shout, texts)) == [text.upper() for text in texts]


def test_listing_tells_state_and_the_guest_s_own_memory(server, drumhead):
    assert server["state"] == "running"
    assert server["resident"] > 160 << 20, "QEMU's, which is more than the guest has"
    table, _ = execute(drumhead, "cat", "/proc/meminfo")
    fields = {line.split(b":")[0]: int(line.split()[1]) << 10 for line in table.splitlines()}
    memory = find(drumhead, "server")["memory"]
    assert memory["total"] == fields[b"MemTotal"]
    assert abs(memory["free"] - fields[b"MemAvailable"]) < 8 << 20
    (line,) = [line for line in drumhead("instances").splitlines() if line.startswith("server ")]
    assert "running" in line
    assert "10.64.128.1" in line
    assert "of 160 MiB" in line


async def test_the_host_sets_the_clock_of_a_machine_that_was_paused(server, drumhead, instances):
    directory = instances.directory("server")
    await asyncio.to_thread(execute, drumhead, "date", "-s", "2001-09-09")
    before = int(time.time())
    await control(directory, {"do": "clock", "time": time.time()})
    out, _ = await asyncio.to_thread(execute, drumhead, "date", "+%s")
    assert before <= int(out) <= time.time()
    with pytest.raises(DrumheadError, match="refused the request clock: no time"):
        await control(directory, {"do": "clock"})


# On a line of input, RTC_RD_TIME and RTC_SET_TIME move the real-time clock; wait until the wall clock has followed.
MOVE = """
import calendar, fcntl, struct, sys, time
print("ready", flush=True)
sys.stdin.readline()
with open("/dev/rtc0", "rb") as clock:
    year_to_second = struct.unpack("9i", fcntl.ioctl(clock, 0x80247009, bytes(36)))[5::-1]
    moved = calendar.timegm((year_to_second[0] + 1900, year_to_second[1] + 1, *year_to_second[2:])) + int(sys.argv[1])
    new = time.gmtime(moved)
    fields = (new.tm_sec, new.tm_min, new.tm_hour, new.tm_mday, new.tm_mon - 1, new.tm_year - 1900, 0, 0, 0)
    fcntl.ioctl(clock, 0x4024700A, struct.pack("9i", *fields))
while abs(time.time() - moved) > 60:
    time.sleep(0.1)
"""


@pytest.mark.parametrize("seconds", [3600, -3600])
async def test_the_clock_follows_jumps_of_the_host_s_clock(server, instances, seconds):
    # The real-time clock of the machine is the host's clock. A jump of it is what a machine sees whose host has slept.
    # Here it jumps just after the host has set the clock of the machine, as after a pause.
    directory = instances.directory("server")
    words = Command(argv=("/usr/bin/python3", "-c", MOVE, str(seconds)))
    async with asyncio.timeout(120), open_session(directory, words) as session:
        frames = session.frames()
        assert await anext(frames) == ("output", b"ready\n")
        await control(directory, {"do": "clock", "time": time.time()})
        await session.send_input(b"\n")
        assert [frame async for frame in frames] == [("exit", b"\0")]


def test_logs_hold_both_streams_of_the_command_and_nothing_of_the_kernel(server, drumhead, facts):
    assert drumhead("logs", "server").splitlines()[:2] == ["serving", "to stderr"]
    assert drumhead("logs", "--tail", "1", "server").count("\n") == 1
    assert "eth0: 10.64.128.1" in drumhead("logs", "--console", "server")


def test_exec_has_streams_and_status_of_its_own(server, drumhead):
    out, err = execute(drumhead, "sh", "-c", "cat; echo wrong >&2; exit 9", data=b"some input\n", status=9)
    assert (out, err) == (b"some input\n", b"wrong\n")
    execute(drumhead, "sh", "-c", "kill -9 $$", status=137)
    _, err = execute(drumhead, "no-such-program", status=127)
    assert b"no-such-program" in err


def test_exec_carries_much_in_both_directions(server, drumhead):
    data = random.Random(1).randbytes(1_500_000)
    out, _ = execute(drumhead, "cat", data=data)
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


async def test_exec_gives_a_program_many_large_variables(server, instances):
    values = {f"LARGE_{number}": "y" * 120_000 for number in range(8)}
    words = ("sh", "-c", "env | wc -c")
    async with open_session(instances.directory("server"), Command(argv=words, env=values)) as session:
        (_, out), end = [frame async for frame in session.frames()]
    assert int(out) > 8 * 120_000
    assert end == ("exit", b"\0")


def test_exec_waits_for_a_program_that_reads_late(server, drumhead):
    data = bytes(400_000)
    out, _ = execute(drumhead, "sh", "-c", "sleep 1; wc -c", data=data)
    assert int(out) == len(data)


def test_exec_on_a_terminal(server, drumhead):
    outer, inner = pty.openpty()
    with command(
        drumhead.home, "exec", "-t", "server", "--", "sh", "-c", "tty; read a; echo got $a", stdin=inner, stdout=inner
    ) as process:
        os.close(inner)
        os.write(outer, b"word\n")
        said = b""
        while b"got word" not in said:
            said += os.read(outer, 65536)
        assert process.wait(120) == 0
    os.close(outer)
    assert b"/dev/pts/0" in said


async def test_four_programs_at_once_and_the_fifth_is_refused(server, instances, drumhead):
    directory = instances.directory("server")
    async with (
        open_session(directory, Command(argv=("cat",))) as one,
        open_session(directory, Command(argv=("cat",))),
        open_session(directory, Command(argv=("cat",))),
        open_session(directory, Command(argv=("cat",))),
    ):
        assert "4 programs" in await asyncio.to_thread(drumhead.refused, "exec", "server", "--", "true", status=5)
        await one.send_input(b"still here")
        await one.send_input(b"")
        assert [frame async for frame in one.frames()] == [("output", b"still here"), ("exit", b"\0")]


def test_a_killed_exec_takes_its_program_along_and_frees_its_port(server, drumhead):
    for _ in range(5):  # more times than there are ports
        with command(drumhead.home, "exec", "server", "--", "sh", "-c", "echo on; exec sleep 987") as process:
            assert process.stdout.readline() == b"on\n"
            process.send_signal(signal.SIGKILL)
    gone = "for i in 1 2 3 4 5 6 7 8 9; do ps | grep 'sleep 98[7]' || exit 0; sleep 1; done; exit 1"
    execute(drumhead, "sh", "-c", gone)


async def test_a_client_that_follows_another_at_once_gets_its_program(server, drumhead, instances):
    """A slow machine may see neither that the first one left nor that the second one came, only both requests."""
    channel = exec_channel(instances.directory("server"), 3)
    await plug(channel.path.parent, channel.name, 60)
    async with connect(channel.path.parent, channel.path.name) as (reader, writer), asyncio.timeout(60):
        for token in ("first", "second"):
            writer.write(json.dumps({"argv": ["sleep", "984"], "token": token}).encode() + b"\n")
            await reader.readuntil(token.encode())
        out, _ = await asyncio.to_thread(execute, drumhead, "sh", "-c", "ps | grep 'sleep 98[4]'")
    assert out.count(b"\n") == 1, "the program of the first client ends with it"


async def test_a_request_that_was_repeated_runs_its_program_once(server, drumhead, instances):
    """Who gets no answer in time asks again. A machine that was busy finds both requests later."""
    channel = exec_channel(instances.directory("server"), 3)
    await plug(channel.path.parent, channel.name, 60)
    async with connect(channel.path.parent, channel.path.name) as (reader, writer), asyncio.timeout(60):
        for token in ("late", "in time"):
            request = {"argv": ["sh", "-c", "echo >>/tmp/ran"], "token": token, "confirm": True}
            writer.write(json.dumps(request).encode() + b"\n")
        await reader.readuntil(b"in time")
        writer.write(HEADER.pack(b"g", 0))
        assert await reader.readuntil(HEADER.pack(b"x", 1)) == HEADER.pack(b"x", 1)
    out, _ = await asyncio.to_thread(execute, drumhead, "cat", "/tmp/ran")
    assert out == b"\n"


def test_a_program_beside_the_command_is_killed_first_when_no_memory_is_left(server, drumhead):
    # The kernel's key "f" lets it choose a program, as it does when no memory is left.
    words = ("sh", "-c", "echo f >/proc/sysrq-trigger; exec sleep 999")
    _, err = execute(drumhead, *words, status=137)
    assert err == b"drumhead: the machine ran out of memory, and the kernel killed the program; give it more (-m)\n"
    assert execute(drumhead, "sh", "-c", "kill -9 $$", status=137) == (b"", b""), "that was another kill"


def test_exec_passes_signals_on(server, drumhead):
    words = ["sh", "-c", "trap 'echo caught; exit 3' INT; echo on; while :; do sleep 0.1; done"]
    with command(drumhead.home, "exec", "server", "--", *words) as process:
        assert process.stdout.readline() == b"on\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 3
        assert process.stdout.read() == b"caught\n"


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM,)])
def test_an_exec_ends_though_its_program_ignores_signals(server, drumhead, numbers):
    """The third one ends it at once; one SIGTERM, the only one that `timeout` sends, after some seconds."""
    words = ["sh", "-c", "trap 'echo caught' INT TERM; echo on; while :; do sleep 0.1; done"]
    with command(drumhead.home, "exec", "server", "--", *words) as process:
        assert process.stdout.readline() == b"on\n"
        for number in numbers[:2]:
            process.send_signal(number)
            assert process.stdout.readline() == b"caught\n"
        for number in numbers[2:]:
            process.send_signal(number)
        assert process.wait(60) == 128 + signal.SIGTERM


async def test_a_signal_overtakes_input_that_the_program_does_not_read(server, instances):
    async with open_session(instances.directory("server"), Command(argv=("sleep", "986"))) as session:
        for _ in range(128):  # more than all buffers on the way hold
            session._writer.write(HEADER.pack(b"0", MAX_INPUT) + bytes(MAX_INPUT))
        async with asyncio.timeout(60):
            await session.signal(signal.SIGTERM)
            assert [frame async for frame in session.frames()] == [("exit", bytes([128 + signal.SIGTERM]))]


def test_console_has_a_shell_for_whoever_presses_a_key(server, drumhead):
    with command(drumhead.home, "console", "server", stdout=subprocess.PIPE) as process:
        process.stdin.write(b"\n")
        process.stdin.flush()
        seen = b""
        while not seen.endswith(b"# "):
            seen += os.read(process.stdout.fileno(), 1)
        process.stdin.write(b"echo $((6 * 7))\n")
        process.stdin.flush()
        while b"\n42" not in seen:
            seen += os.read(process.stdout.fileno(), 1)
        process.stdin.write(b"exit\n\x1d")
        process.stdin.flush()
        assert process.wait(60) == 0


def test_console_ends_with_its_input(server, drumhead):
    with command(drumhead.home, "console", "server", stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(b"echo $((6 * 7))\nexit\n", 60)  # the shell starts with the first line
        assert process.returncode == 0
        assert b"\n42" in out


def test_a_running_machine_s_name_and_volume_are_taken(server, drumhead, machine_image):
    assert "is running" in drumhead.refused("run", "-i", machine_image, "server", status=5)
    said = drumhead.refused("run", "-i", machine_image, "another", "--volume", "first:/x", status=5)
    assert said == "drumhead: volume first is in use by server; stop it first"
    port = forwarded(server, 8000)
    assert str(port) in drumhead.refused("run", "-i", machine_image, "another", "-f", f"{port}:80", status=5)
    assert "stop it first" in drumhead.refused("delete", "server", status=5)
    assert "another" not in [one["launch"]["spec"]["name"] for one in drumhead.json("instances")]


def test_too_little_memory_is_refused_and_the_least_is_enough(drumhead, machine_image):
    for size in ("48M", "71M"):
        said = drumhead.refused("run", "-i", machine_image, "tiny", "-m", size, "-e", "true", status=2)
        assert "needs at least 72 MiB" in said
    drumhead("run", "-i", machine_image, "tiny", "-m", "72M", "-e", "true")
    drumhead("delete", "tiny")
    # Some versions of QEMU leave the guest less, so the least is not enough. Here the guest gets less than the least,
    # and the kernel takes memory for each processor.
    unlimited = "import sys; from drumhead.guest.linux import guest; guest.LEAST_MEMORY = 0"
    words = [sys.executable, "-c", f"{unlimited}; from drumhead.cli import main; sys.exit(main())"]
    words += ["run", "-i", machine_image, "tiny", "-m", "62M", "-c", "4", "-e", "true"]
    env = {**os.environ, "DRUMHEAD_HOME": str(drumhead.home.root)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "MB are left for a program; give the machine more memory" in done.stderr
    drumhead("delete", "tiny")


async def test_more_disks_than_a_machine_has_slots_for_are_refused(drumhead, machine_image, monkeypatch, tmp_path):
    own = len(drumhead.json("info", machine_image)["layers"]) + 1
    number = launch.MAX_DISKS + 1 - own
    volumes = tuple(VolumeMount(source=f"v{one}", path=f"/v/{one}") for one in range(number))
    disks = tuple(Drive(path=tmp_path, format="raw", serial=one.source, readonly=False) for one in volumes)
    monkeypatch.setattr(launch, "open_volumes", AsyncMock(return_value=(disks, ())))
    spec = InstanceSpec(name="many", image=machine_image, command=Command(argv=("true",)), volumes=volumes)
    with pytest.raises(DrumheadError, match=f"have 28 disks, {own} of its image and {number} volumes; .* 27"):
        await launch.start_machine(drumhead.home, spec, attached=False)


def test_neighbours_find_each_other_by_name_and_strangers_do_not(server, drumhead, machine_image):
    fetch = "wget -q -O - http://server:8000/ | head -c 8; hostname; nslookup localhost >/dev/null; exit 0"
    old, _ = execute(drumhead, "ls", "-i", "/etc/hosts")
    told = drumhead(
        "run", "-i", machine_image, "neighbour", "--private-network", "shared", "-m", "96M", "-e", f'sh -c "{fetch}"'
    )
    assert told.endswith("neighbour\n")
    assert told.startswith('{"argv":')
    out, _ = execute(drumhead, "cat", "/etc/hosts")
    assert f"{find(drumhead, 'neighbour')['launch']['address']} neighbour".encode() in out
    new, _ = execute(drumhead, "ls", "-i", "/etc/hosts")
    assert new != old, "it is another file: a program that is reading the old one reads all of it"
    drumhead.run("run", "-i", machine_image, "neighbour", "-m", "96M", "-e", "cat /etc/hosts")
    assert "server" not in drumhead("logs", "neighbour"), "it is on another network now"
    assert b"neighbour" not in execute(drumhead, "cat", "/etc/hosts")[0]
    drumhead("delete", "neighbour")
