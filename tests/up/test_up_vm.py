"""Test the errors of `safelight up --vm` before any machine boots; tests/drumhead/fleet boots machines."""

from pathlib import Path, PurePosixPath

import pytest
import yaml

from safelight.cli.up import command as up
from safelight.cli.up import machines


@pytest.mark.parametrize("missing", ["drumhead", "qemu-system-x86_64"])
def test_a_missing_program_is_named_with_advice(missing, monkeypatch, capsys):
    monkeypatch.setattr(machines.shutil, "which", lambda name, path=None: None if name == missing else f"/bin/{name}")
    with pytest.raises(SystemExit):
        up.main(["--vm"])
    said = capsys.readouterr().err
    assert f"--vm needs the program {missing}, which is not installed (" in said


def test_a_missing_fleet_file_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        up.main(["--vm", "--fleet", str(tmp_path / "none.yaml")])
    assert f"--vm needs {tmp_path}/none.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flag", [("--port", "9000"), ("--data", "elsewhere"), ("--workers", "3"), ("--slots", "2"), ("--open",)]
)
def test_flags_that_the_fleet_file_decides_are_refused(flag, capsys):
    with pytest.raises(SystemExit):
        up.main(["--vm", *flag])
    assert f"{flag[0]} has no effect on machines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "found"),
    [("/run/secrets/cluster-key", Path("/home/secrets/key")), ("/data/own.key", None), ("/run/secrets/other", None)],
)
def test_the_key_of_the_master_is_the_secret_that_it_reads(variable, found):
    member = {"env": {"SAFELIGHT_CLUSTER_KEY_FILE": variable}}
    known = {"fleet": {"members": {"master": member}}, "secrets": {"cluster-key": "/home/secrets/key"}}
    assert machines._key_of_master(known) == found
    assert machines._key_of_master({"fleet": {"members": {"master": {}}}, "secrets": {}}) is None


def test_every_machine_of_the_fleet_file_asks_for_the_key_that_it_receives():
    fleet = yaml.safe_load((machines.PROJECT / "deploy/fleet.yaml").read_text())
    for member in fleet["members"].values():
        key = PurePosixPath(member["env"][machines.KEY_FILE])
        assert str(key.parent) == machines.SECRETS
        assert key.name in member["secrets"]
        assert key.name in fleet["secrets"]
    assert "OPEN:" not in (machines.PROJECT / "meta/run.yaml").read_text()
