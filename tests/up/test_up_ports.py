"""Test what `safelight up` says of ports and hosts that it cannot listen on."""

import socket

import pytest

from safelight.cli.up.ports import check_free


@pytest.mark.parametrize("host", ["203.0.113.9", "a..b"])
def test_a_host_that_is_not_this_machine_is_not_called_a_taken_port(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        check_free(host, {"db": 21_001})
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"db cannot listen on {host}:21001: " in said
    assert "Give --host an address of this machine." in said


def test_a_port_that_another_program_uses_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            check_free("127.0.0.1", {"db": 0, "storage": port})
    assert ended.value.code == 5
    assert f"storage cannot listen on 127.0.0.1:{port}: Address already in use. Stop what" in capsys.readouterr().err
    check_free("127.0.0.1", {"storage": port})
