"""Test durations that the commands refuse, in the words of the command and not in those of the API."""

import pytest

from support.walk import main


@pytest.mark.parametrize(
    ("command", "flag", "days"),
    [
        ("share 1-abcdefghij", "--expires", 366),
        ("keys create name", "--expires", 3660),
        ("keys rotate abcdefgh", "--overlap", 366),
        ("tenants webhook-secret --rotate", "--overlap", 366),
    ],
)
def test_a_duration_outside_its_limits_is_refused_by_the_name_of_its_flag(command, flag, days, capsys, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_MASTER", "127.0.0.1:9")  # where nobody answers
    for wrong in [f"{days + 1}d", *(["0s"] if flag == "--expires" else [])]:
        assert main("safelight", [*command.split(), flag, wrong]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert told.startswith(f"safelight: {flag} is ")
        assert told.endswith(f"at most {days}d, not '{wrong}'.")
    for right in (f"{days}d", "0.5s" if flag == "--expires" else "0s"):
        assert main("safelight", [*command.split(), flag, right]) == 4
        assert "connection refused" in capsys.readouterr().err
