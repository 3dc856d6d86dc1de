"""Test deploy/systemd: the units are valid and hardened, and use only settings that the services have."""

import configparser
import importlib
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from safelight import settings
from support.programs.command import COMMAND

UNITS = sorted((Path(__file__).parents[2] / "deploy/systemd").glob("*.service"))
MOST_EXPOSED = 2.0


def started(unit):
    """Return the name of the service that a unit starts, and its flags."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str
    parser.read_string(unit.read_text())
    program, name, *argv = shlex.split(parser["Service"]["ExecStart"])
    assert program == "/opt/safelight/bin/safelight"
    return name, argv


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_never_gives_a_service_up(unit):
    """By default it does after five starts in ten seconds, which db makes while PostgreSQL is away."""
    lines = unit.read_text().splitlines()
    assert "Restart=always" in lines
    assert "StartLimitIntervalSec=0" in lines[: lines.index("[Service]")]


def test_each_service_has_a_unit():
    assert {started(unit)[0] for unit in UNITS} == {"keyvaluestore", "db", "storage", "master", "worker"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_its_service_with_settings_that_it_has(unit):
    name, argv = started(unit)
    kind = importlib.import_module(f"safelight.{name}.__main__").Config
    config = settings.load(kind, argv, section=name, program=name, environ={})
    assert config.cluster_key_file == "%d/cluster-key"
    assert config.data.startswith("%S/safelight-")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_hardened(unit):
    words = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", unit]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    exposure = float(done.stdout.rpartition(": ")[2].split()[0])
    assert exposure < MOST_EXPOSED


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_wrong_with_a_unit(unit, tmp_path):
    """The unit is verified with this installation's command, because `verify` checks that the program exists."""
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace("/opt/safelight/bin/safelight", COMMAND))
    name = tmp_path / unit.name.replace("@.", "@1.")
    if name != here:
        shutil.copy(here, name)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", name], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
