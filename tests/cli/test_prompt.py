"""Test the questions of the command on a terminal, and answers from a pipe or a file."""

import fcntl
import signal
import struct
import subprocess
import termios
from pathlib import Path
from typing import IO

import pytest

from support.programs.command import COMMAND, environment, terminal
from support.programs.forked import popen
from support.programs.until import until

AWAY = ("--master", "127.0.0.1:1")


def test_a_key_is_not_shown() -> None:
    with terminal("login", *AWAY) as shown:
        shown.until(lambda text: text.endswith("API key: "))
        assert not shown.shows_typing()
        shown.press(b"sl_not_to_be_seen\n")
        assert shown.ended() == 4
        assert "sl_not" not in shown.shown
        assert shown.shows_typing()


def test_ctrl_c_at_a_question_ends_the_command_and_leaves_the_terminal_as_it_was() -> None:
    with terminal("login", *AWAY) as shown:
        shown.until(lambda text: text.endswith("API key: "))
        shown.press(b"\x03")
        assert shown.ended() == 130
        assert "Traceback" not in shown.shown
        assert shown.shows_typing()


def unread(pipe: IO[bytes]) -> int:
    """Return the number of bytes in a pipe that its reader has not read."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


async def test_one_ctrl_c_ends_the_wait_for_the_rest_of_a_line_from_a_pipe() -> None:
    streams = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with popen([COMMAND, "login", *AWAY], env=environment(), **streams) as waiting:
        assert waiting.stdin and waiting.stderr
        waiting.stdin.write(b"sl_half")
        waiting.stdin.flush()
        await until(lambda: unread(waiting.stdin) == 0)
        waiting.send_signal(signal.SIGINT)
        assert b"Traceback" not in waiting.stderr.read()
        assert waiting.wait() == 130


@pytest.mark.slow
@pytest.mark.parametrize("written", [b"", b"\n", b"sl_a\n", b"sl_a", b"sl_a\r\nmore\n"])
def test_a_line_is_read_from_a_file(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "key").write_bytes(written)
    with (tmp_path / "key").open("rb") as file:
        done = subprocess.run(
            [COMMAND, "login", *AWAY], stdin=file, capture_output=True, text=True, env=environment(), check=False
        )
    assert "Traceback" not in done.stderr
    assert ("connection refused" if written.strip() else "There is no key.") in done.stderr
    assert done.returncode == (4 if written.strip() else 2)
