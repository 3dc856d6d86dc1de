"""Test how the program names itself where it says what to type next."""

import subprocess
import sys
from pathlib import Path

import pytest

from safelight.cli.up.called import command_name


def test_what_is_printed_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "a b/bin/safelight"
    program.parent.mkdir(parents=True)
    (tmp_path / "a b/scripts").mkdir()
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "a b/scripts/../bin/safelight"), "up"])
    for directory in (tmp_path / "a b", tmp_path, Path("/")):
        monkeypatch.chdir(directory)
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        assert subprocess.check_output(command_name(), shell=True, text=True) == "found\n"
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        assert command_name() == "safelight"
    monkeypatch.chdir(tmp_path / "a b")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert command_name() == "bin/safelight"
    monkeypatch.setattr(sys, "argv", ["/somewhere/safelight/__main__.py", "up"])
    assert command_name() == "safelight"
