"""Test on the host how init passes the command's output on, with a pipe in place of the port to the host."""

import ctypes
import fcntl
import os
import select
import subprocess

import pytest

from drumhead.guest.linux.program import INIT

PIPE = 4096
STUBS = r"""
#define now real_now
#define open_port real_open_port
#include "base/files.c"
#include "base/ports.c"
#undef now
#undef open_port
double clock_now = 100;
int pipe_end;
double now(void) { return clock_now; }
int open_port(const char *name) { (void)name; return pipe_end; }
"""


class PollFd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


class Log:
    """Init's log, whose host reads from `host` when the test does."""

    def __init__(self, path):
        self._init = ctypes.CDLL(str(path))
        self._init.log_is_full.restype = ctypes.c_bool
        self.host, self._guest = os.pipe()
        fcntl.fcntl(self._guest, fcntl.F_SETPIPE_SZ, PIPE)
        ctypes.c_int.in_dll(self._init, "pipe_end").value = self._guest
        self._init.log_open()

    def write(self, data):
        self._init.log_write(data, ctypes.c_size_t(len(data)))

    def is_full(self):
        return self._init.log_is_full()

    def turn(self, *, later=0.0):
        """Let init's loop run once, `later` seconds later, unless it would wait."""
        ctypes.c_double.in_dll(self._init, "clock_now").value += later
        polls = self._polls()
        if polls.fd >= 0:
            asking = select.poll()
            asking.register(polls.fd, polls.events)
            polls.revents = dict(asking.poll(0)).get(polls.fd, 0)
        self._init.log_events(ctypes.byref(polls))

    def _polls(self):
        polls = PollFd()
        self._init.log_polls(ctypes.byref(polls))
        return polls

    def polled(self):
        """Return the descriptor that init polls for the log, or -1."""
        return self._polls().fd

    def time_left(self):
        return self._init.log_time_left()

    def wait(self):
        self._init.log_wait()

    def take(self):
        return os.read(self.host, 1 << 20)

    def hang_up(self):
        os.close(self.host)
        self.host = -1

    def close(self):
        if self.host >= 0:
            self.hang_up()
        os.close(self._guest)


@pytest.fixture
def log(tmp_path):
    (tmp_path / "stubs.c").write_text(STUBS)
    build = ["cc", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    sources = [tmp_path / "stubs.c", INIT.sources / "programs/log.c"]
    subprocess.run([*build, f"-I{INIT.sources}", "-o", tmp_path / "log.so", *sources], check=True, timeout=60)
    found = Log(tmp_path / "log.so")
    yield found
    found.close()


def test_a_slow_host_gets_everything(log):
    data = bytes(range(256)) * 40
    log.write(data)
    assert log.is_full()
    assert log.time_left() == pytest.approx(10_000, abs=1)
    got = log.take()
    while log.is_full():
        log.turn(later=9)  # more than the patience in all
        got += log.take()
    assert got == data
    assert log.time_left() == -1
    log.write(b"more")
    assert not log.is_full() and log.take() == b"more"


def test_what_the_host_does_not_take_is_dropped_and_counted(log):
    log.write(b"a" * (PIPE + 100))
    log.turn(later=9)
    assert log.is_full(), "the command waits"
    log.turn(later=2)
    assert not log.is_full() and log.time_left() == -1, "it goes on"
    log.write(b"b" * 1000)
    log.turn(later=100)
    assert log.take() == b"a" * PIPE
    log.turn()
    note = b"\ndrumhead: 1100 bytes of output are missing here; the host did not take them\n"
    assert log.take() == note
    log.write(b"again\n")
    assert log.take() == b"again\n"


def test_the_end_of_the_command_does_not_wait_for_output_that_is_dropped(log):
    log.write(b"a" * (PIPE + 1))
    log.turn(later=11)
    log.write(b"b" * 10_000)
    log.wait()
    assert log.take() == b"a" * PIPE


@pytest.mark.parametrize("later", [0, 11])
def test_a_host_that_is_gone_is_not_asked_again_and_again(log, later):
    log.write(b"a" * (PIPE + 1))
    log.turn(later=later)  # after the patience, the output is dropped
    log.hang_up()
    log.turn()
    assert log.polled() < 0
    assert not log.is_full()
