"""Test deploy/systemd: the units are valid and hardened, and use only settings that the services have."""

import importlib
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from safelight import settings
from support.programs.command import COMMAND

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MOST_EXPOSED = 2.0


def values(unit, key):
    """Return what the lines of a unit say for a key."""
    return [line.removeprefix(f"{key}=") for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]


def started(unit):
    """Return the name of the service that a unit starts. It has no flags, which no file of the user could change."""
    (line,) = values(unit, "ExecStart")
    program, name = line.split(" ")
    assert program == "/opt/safelight/bin/safelight"
    return name


def config(unit, **more):
    """Return the settings of a unit's service, or of the first worker; `more` are those of an environment file."""
    name = started(unit)
    environ = dict(line.replace("%i", "1").split("=", 1) for line in values(unit, "Environment")) | more
    kind = importlib.import_module(f"safelight.{name}.__main__").Config
    assert settings.misspelt(environ, list(settings.hints(kind)), name) == []
    return settings.load(kind, [], section=name, program=name, environ=environ)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_never_gives_a_service_up(unit):
    """By default it does after five starts in ten seconds, which db makes while PostgreSQL is away."""
    lines = unit.read_text().splitlines()
    assert "Restart=always" in lines
    assert "StartLimitIntervalSec=0" in lines[: lines.index("[Service]")]


def test_each_service_has_a_unit():
    assert {started(unit) for unit in UNITS} == {"keyvaluestore", "db", "storage", "master", "worker"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_its_service_with_settings_that_it_has(unit):
    found = config(unit)
    assert found.cluster_key_file == "%d/cluster-key"
    assert found.data.startswith("%S/safelight-")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_an_environment_file_overrides_the_settings_of_a_unit(unit):
    """systemd prefers variables of an EnvironmentFile; those of one service must also win over the unit's."""
    name = started(unit)
    files = [f"-/etc/safelight/{name}.env"] + ["-/etc/safelight/worker-%i.env"] * (name == "worker")
    assert values(unit, "EnvironmentFile") == files
    assert config(unit, SAFELIGHT_PORT="9000").port == 9000
    assert config(unit, **{f"SAFELIGHT_{name}_PORT".upper(): "9000"}).port == 9000


def test_prometheus_finds_every_unit():
    for job in yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"]:
        (unit,) = (unit for unit in UNITS if unit.stem.rstrip("@") == job["job_name"])
        assert job["static_configs"][0]["targets"][0] == f"127.0.0.1:{config(unit).port}"


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
