"""Test on the host what init makes of the messages that programs log by syslog(3)."""

import ctypes
import logging
import select
import socket
import subprocess
from logging.handlers import SysLogHandler

import pytest

from drumhead.guest.linux.program import INIT

STUBS = r"""
#include <stdio.h>
#include <string.h>
#include "init.h"
char written[1 << 20];
size_t size;
bool full;
void log_write(const char *bytes, size_t more) { memcpy(written + size, bytes, more); size += more; }
bool log_is_full(void) { return full; }
void log_wait(void) {}
void say(const char *format, ...) { fputs(format, stderr); }
"""


class PollFd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


class Syslog:
    """Init's socket for messages, and what it has put into the log."""

    def __init__(self, library, place):
        self._init = ctypes.CDLL(str(library))
        self.place = str(place)
        self._init.syslog_open(self.place.encode())

    def polled(self):
        """Return the descriptor that init polls, or -1."""
        return self._polls().fd

    def _polls(self):
        polls = PollFd()
        self._init.syslog_polls(ctypes.byref(polls))
        return polls

    def fill(self, *, full):
        ctypes.c_bool.in_dll(self._init, "full").value = full

    def turn(self):
        """Let init's loop run once, when there is a message."""
        polls = self._polls()
        assert select.select([polls.fd], [], [], 30)[0]
        polls.revents = select.POLLIN
        self._init.syslog_events(ctypes.byref(polls))

    def end(self):
        self._init.syslog_relay_last()

    def send(self, message):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message, self.place)

    def take(self):
        """Return what is in the log, and empty it."""
        size = ctypes.c_size_t.in_dll(self._init, "size")
        taken = (ctypes.c_char * size.value).in_dll(self._init, "written").raw
        size.value = 0
        return taken


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    directory = tmp_path_factory.mktemp("syslog")
    (directory / "stubs.c").write_text(STUBS)
    build = ["cc", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover"]
    sources = [directory / "stubs.c", INIT.sources / "programs/syslog.c"]
    words = [*build, *sanitize, f"-I{INIT.sources}", "-o", directory / "syslog.so", *sources]
    subprocess.run(words, check=True, timeout=60)
    return directory / "syslog.so"


@pytest.fixture
def syslog(library, tmp_path):
    return Syslog(library, tmp_path / "log")


def test_the_head_of_a_message_is_left_out(syslog):
    for words in (["--rfc3164"], []):  # with a host, and as glibc's syslog writes it
        command = ["logger", *words, "-u", syslog.place, "-t", "named", "-p", "daemon.err", "loading: file not found"]
        subprocess.run(command, check=True, timeout=30)
        syslog.turn()
        assert syslog.take().endswith(b"named: loading: file not found\n")


def test_a_message_without_a_time(syslog):
    handler = SysLogHandler(address=syslog.place)
    handler.ident = "cron: "
    handler.emit(logging.LogRecord("a", logging.ERROR, "f", 1, "two\nlines", None, None))
    handler.close()
    syslog.turn()
    assert syslog.take() == b"cron: two\nlines\n"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (b"", b"\n"),
        (b"<", b"<\n"),
        (b"<13", b"<13\n"),
        (b"<13>", b"\n"),
        (b"<a>text", b"<a>text\n"),
        (b"<13>Dec  1 12:00:00 a: b", b"a: b\n"),
        (b"<13>Dec  1 12:00:00 ", b"\n"),
        (b"<13>Dec  1 12:00:00", b"Dec  1 12:00:00\n"),
        (b"no head\n\0", b"no head\n"),
        (b"\xff\x1b[0m", b"\xff\x1b[0m\n"),
        (b"x" * 8192, b"x" * 8192 + b"\n"),
        (b"x" * 9000, b"x" * 8192 + b"\n"),
    ],
)
def test_any_message_is_one_entry(syslog, message, line):
    syslog.send(message)
    syslog.turn()
    assert syslog.take() == line


def test_a_full_log_makes_programs_wait(syslog):
    syslog.fill(full=True)
    syslog.send(b"<1>later")
    assert syslog.polled() == -1
    syslog.fill(full=False)
    syslog.turn()
    assert syslog.take() == b"later\n"


def test_what_was_sent_before_the_end_is_in_the_log(syslog):
    for number in range(5):
        syslog.send(b"<1>%d" % number)
    syslog.end()
    assert syslog.take() == b"0\n1\n2\n3\n4\n"
