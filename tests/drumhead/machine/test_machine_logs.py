"""Test that a machine's logs have a limited size, and that trimming does not damage the kept part."""

import asyncio
import os
import subprocess
from itertools import pairwise

import pytest

from drumhead.machine import logs
from drumhead.machine.instances import Instances
from drumhead.machine.logs import limiting_logs, trim, trim_logs
from drumhead.machine.watch import file_size, follow, read_from, tail_offset
from support.guests.machines import wait_until

LINES = [b"line %06d\n" % number for number in range(60_000)]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"".join(LINES))
    return path


def test_a_trimmed_file_begins_with_a_whole_line_and_keeps_its_offsets(log):
    size = log.stat().st_size
    trim(log, 100_000)
    assert log.stat().st_size == size
    assert log.stat().st_blocks * 512 < 120_000
    kept = b"".join(read_from(log, 0)).splitlines(keepends=True)
    assert kept == LINES[-len(kept) :]
    assert 8_000 < len(kept) < 9_000
    assert b"".join(read_from(log, tail_offset(log, 3))) == b"".join(LINES[-3:])
    assert b"".join(read_from(log, tail_offset(log, 50_000))) == b"".join(kept)


def test_the_last_lines_are_those_that_tail_prints(log):
    log.write_bytes(b"first\r\n 10 %\r 20 %\rdone\nlast\x0b\x0c\x85 one\n\nwithout an end\r")
    for count in range(1, 7):
        printed = subprocess.run(["tail", "-n", str(count), log], capture_output=True, check=True).stdout
        assert b"".join(read_from(log, tail_offset(log, count))) == printed


def test_only_what_is_over_the_limit_is_trimmed(log, monkeypatch):
    trim_logs(log.parent)
    assert b"".join(read_from(log, 0)) == b"".join(LINES)
    monkeypatch.setattr(logs, "TRIM_ABOVE", 200_000)
    monkeypatch.setattr(logs, "KEPT_BYTES", 50_000)
    status = log.with_name("status")
    status.write_bytes(log.read_bytes())
    trim_logs(log.parent)
    assert len(b"".join(read_from(log, 0))) < 60_000
    assert status.stat().st_blocks * 512 < 60_000


async def test_who_follows_and_who_writes_go_on_after_a_trim(log):
    writer = os.open(log, os.O_WRONLY | os.O_APPEND)
    ended = asyncio.Event()
    following = follow(log, until=ended.wait())
    async with asyncio.timeout(30):
        seen = b""
        while len(seen) < log.stat().st_size:
            seen += (await anext(following))[1]
        trim(log, 100_000)
        os.write(writer, b"after the trim\n")
        assert await anext(following) == (log.stat().st_size, b"after the trim\n")
        ended.set()
        assert [part async for part in following] == []
    os.close(writer)
    assert b"".join(read_from(log, 0)).endswith(LINES[-1] + b"after the trim\n")


async def test_who_follows_a_trimmed_file_knows_where_its_end_is(log):
    trim(log, 100_000)
    ends = [end async for end, _ in follow(log, until=asyncio.sleep(0))]
    assert ends[-1] == log.stat().st_size


def test_who_reads_a_file_that_is_trimmed_meanwhile_gets_whole_lines(log):
    parts = read_from(log, 0)
    first = next(parts)
    trim(log, 100_000)
    rest = b"".join(parts).splitlines(keepends=True)
    assert first == b"".join(LINES)[: len(first)]
    assert rest == LINES[-len(rest) :]


@pytest.mark.slow
async def test_a_running_machine_writes_on_while_its_log_is_trimmed(drumhead, machine_image):
    talk = "i=0; while :; do i=$((i+1)); echo line $i; done"
    drumhead("run", "-d", "-i", machine_image, "talker", "-m", "96M", "-e", f"sh -c '{talk}'")
    try:
        directory = Instances(drumhead.home).directory("talker")
        for _ in range(3):
            size = file_size(directory / "log")
            await wait_until(directory, lambda size=size: file_size(directory / "log") > size + (1 << 16))
            trim(directory / "log", 1 << 14)
            assert (directory / "log").stat().st_blocks * 512 < file_size(directory / "log")
        printed = drumhead("logs", "talker").splitlines()[:-1]  # the last line may be incomplete
        numbers = [int(line.removeprefix("line ")) for line in printed]
        assert numbers[0] > 1
        assert all(after == before + 1 for before, after in pairwise(numbers))
    finally:
        drumhead("delete", "--force", "talker")


async def test_logs_are_limited_while_a_machine_is_attended(log, monkeypatch):
    monkeypatch.setattr(logs, "TRIM_ABOVE", 200_000)
    monkeypatch.setattr(logs, "KEPT_BYTES", 50_000)
    with limiting_logs(log.parent):
        await wait_until(log.parent, lambda: log.stat().st_blocks * 512 < 60_000)


@pytest.mark.slow
def test_what_programs_tell_syslog_is_in_the_log(drumhead, machine_image):
    # As Python's module `syslog`, servers call the C library, which connects to /dev/log.
    tell = "import syslog; syslog.openlog('named'); syslog.syslog(syslog.LOG_ERR, 'loading: file not found')"
    command = f'sh -c "python3 -c \\"{tell}\\"; exit 3"'
    done = drumhead.run("run", "-i", machine_image, "teller", "-m", "96M", "-e", command)
    try:
        assert done.returncode == 3
        assert "named: loading: file not found\n" in done.stdout
        assert drumhead("logs", "teller").splitlines()[-1] == "named: loading: file not found"
    finally:
        drumhead("delete", "--force", "teller")
