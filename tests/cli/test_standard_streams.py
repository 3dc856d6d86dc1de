"""Test commands and services whose standard streams are closed, full, or of another encoding."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safelight.client.availability.instances import Several
from safelight.client.base import Connection, ServiceClient, session
from support.photos import photo
from support.programs.command import COMMAND, environment, everything, safelight
from support.programs.ports import free_port
from support.programs.until import until

pytestmark = pytest.mark.slow

CLOSED = "import os, sys; [os.close(n) for n in map(int, sys.argv[1])]; os.execv(sys.argv[2], sys.argv[2:])"


def without(descriptors: str, *argv: object) -> list[str]:
    """Return a command that starts another one with some of its standard streams closed."""
    return [sys.executable, "-c", CLOSED, descriptors, *map(str, argv)]


@pytest.mark.parametrize("argv", [("formats",), ("--help",), ("tasks", "--help")])
def test_without_standard_output_a_command_succeeds(argv: tuple[str, ...]) -> None:
    done = subprocess.run(without("1", COMMAND, *argv), env=environment(), stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_standard_error_the_exit_status_tells() -> None:
    assert subprocess.run(without("2", COMMAND, "nosuch"), env=environment()).returncode == 2


@pytest.mark.parametrize("columns", ["0", "1", "-3", "wide"])
@pytest.mark.parametrize("argv", [("safelight", "formats"), ("safelight", "upload", "--help"), ("drumhead", "--help")])
def test_a_width_of_the_terminal_that_is_none_changes_nothing(argv: tuple[str, ...], columns: str) -> None:
    command = [sys.executable, "-m", *argv]
    told = subprocess.run(command, env=environment(COLUMNS=columns), capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == subprocess.run(command, env=environment(), capture_output=True, text=True).stdout


@pytest.mark.parametrize("argv", [("formats",), ("formats", "--json"), ("--help",), ("recipes", "--help")])
def test_a_full_disk_under_the_output_is_named(argv: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([COMMAND, *argv], env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "safelight: The output cannot be written: No space left on device.\n"
    assert done.returncode == 1


def test_the_status_of_a_failure_tells_that_the_reader_of_its_report_is_gone(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(photo(1))
    reader, writer = os.pipe()
    os.close(reader)
    argv = [COMMAND, "upload", tmp_path / "one.png", "--json", "--master", "127.0.0.1:9"]
    env = environment(PYTHONUNBUFFERED="", SAFELIGHT_API_KEY="no\nheader")  # which fails before anything is sent
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(argv, env=env, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_letters_that_the_terminal_lacks_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "日本.png").write_bytes(photo(1))
    with everything(tmp_path / "data", "--workers", "0") as where:
        there = ("--keyvaluestore", where["keyvaluestore"])
        assert safelight("upload", tmp_path / "日本.png", *there).returncode == 0
        done = safelight("tasks", *there, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert r"\u65e5\u672c.png" in done.stdout


@pytest.mark.parametrize("argv", [("webhooks", "resend", "\udc80"), ("recipes", "show", "a\udc80")])
def test_an_argument_that_is_not_text_is_refused(argv: tuple[str, ...]) -> None:
    done = safelight(*argv, "--master", "127.0.0.1:9")
    assert (done.returncode, done.stderr) == (2, f"safelight: The argument {argv[-1]!r} is not UTF-8 text.\n")


def test_an_argument_too_many_is_named() -> None:
    done = safelight("status", "soon")
    assert done.stderr == "safelight: Unexpected argument 'soon'. See `safelight status --help`.\n"


def streams(pid: int) -> list[str]:
    """Return what the standard streams of a process lead to."""
    return [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)]


async def test_a_service_without_standard_streams_keeps_their_descriptors_from_its_files(tmp_path: Path) -> None:
    port = free_port()
    argv = without("012", COMMAND, "keyvaluestore", "--port", port, "--data", tmp_path / "data")
    process = await asyncio.create_subprocess_exec(*argv, env=environment())
    try:
        async with session() as http:
            service = ServiceClient(Connection(http, Several(f"127.0.0.1:{port}")))
            await until(lambda: service.is_ready(wait=1.0))
        assert streams(process.pid) == [os.devnull] * 3
    finally:
        process.terminate()
        assert await process.wait() == 0
