"""Test that `safelight up` refuses certificates and settings from a pipe, which its programs could not use."""

import os
import subprocess
from pathlib import Path
from threading import Thread

import pytest

from safelight.settings import PROGRAMS
from support.programs.command import safelight

pytestmark = pytest.mark.slow


def refused(where: Path, *flags: str, **variables: str) -> str:
    """Run the command, which must refuse to start; return what it says."""
    ended = safelight("up", "--port", 0, "--data", where / "data", "--workers", 0, *flags, **variables)
    assert ended.returncode == 2, ended.stderr
    assert "put a proxy with TLS in front of the master (docs/guide/proxies.md)" in ended.stderr
    assert not (where / "data").exists()
    return ended.stderr


@pytest.mark.parametrize("flag", ["--tls-certificate", "--tls-key"])
def test_a_certificate_in_a_flag_is_refused(tmp_path: Path, flag: str) -> None:
    assert f"safelight up: {flag}: everything speaks plain HTTP" in refused(tmp_path, flag, "some.pem")


@pytest.mark.parametrize("table", ["", *(f"[{name}]" for name in PROGRAMS)])
def test_a_certificate_in_the_settings_file_is_refused_for_every_program(tmp_path: Path, table: str) -> None:
    file = tmp_path / "safelight.toml"
    file.write_text(f'{table}\ntls_certificate = "chain.pem"\ntls_key = "key.pem"\n')
    place = f"tls_certificate in {f'{table} of ' if table else ''}{file}: "
    assert place in refused(tmp_path, "--config", str(file))
    assert place in refused(tmp_path, f"--config={file}")
    assert place in refused(tmp_path, SAFELIGHT_CONFIG=str(file))


@pytest.mark.parametrize("program", ["", *(f"{name.upper()}_" for name in PROGRAMS)])
def test_a_certificate_in_a_variable_is_refused_for_every_program(tmp_path: Path, program: str) -> None:
    name = f"SAFELIGHT_{program}TLS_KEY"
    assert f"safelight up: {name}: " in refused(tmp_path, **{name: "key.pem"})


def test_a_pipe_is_refused_as_a_settings_file(tmp_path: Path) -> None:
    """The services would find it empty, and run without its settings."""
    pipe = tmp_path / "settings"
    os.mkfifo(pipe)
    writing = Thread(target=pipe.write_text, args=["[master]\nwebhook_allow_private = true\n"], daemon=True)
    writing.start()
    ended = safelight("up", "--port", 0, "--data", tmp_path / "data", "--workers", 0, "--config", pipe)
    assert (ended.returncode, f"the settings file {pipe} is a pipe or a device" in ended.stderr) == (2, True)
    assert not (tmp_path / "data").exists()


def test_standard_input_is_refused_as_a_settings_file(tmp_path: Path) -> None:
    """The services would have another one."""
    file = tmp_path / "settings"
    file.write_text("[master]\nwebhook_allow_private = true\n")
    words = f"exec safelight up --port 0 --data {tmp_path}/data --workers 0 --config /dev/stdin <{file}"
    ended = subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "the settings file /dev/stdin is a pipe or a device" in ended.stderr) == (2, True)
