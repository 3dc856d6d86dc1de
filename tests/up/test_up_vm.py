"""`safelight up --vm` before any machine boots: what it refuses. tests/drumhead/fleet boots them."""

import pytest

from safelight.cli.up import command as up
from safelight.cli.up import machines


@pytest.mark.parametrize("missing", ["drumhead", "qemu-system-x86_64"])
def test_a_missing_program_is_named_with_what_to_do(missing, monkeypatch, capsys):
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
def test_what_the_fleet_file_decides_is_refused_as_a_flag(flag, capsys):
    with pytest.raises(SystemExit):
        up.main(["--vm", *flag])
    assert f"{flag[0]} has no effect on machines" in capsys.readouterr().err
