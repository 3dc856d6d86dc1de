"""Test that a service closes its data directory for others, and none that others need."""

from __future__ import annotations

from pathlib import Path

import pytest

from safelight import serve


@pytest.mark.parametrize("named", ["/", "/var/lib", "/usr/", "/etc/../home", "link"])
def test_a_directory_of_the_system_is_refused_and_stays_open(named, tmp_path, monkeypatch, capsys):
    closed: list[Path] = []
    monkeypatch.setattr(Path, "chmod", lambda path, _mode: closed.append(path))
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("/")
    with pytest.raises(SystemExit) as ended:
        serve.keep_private(named)
    assert ended.value.code == 2
    assert "belongs to the system. Name a directory for safelight alone." in capsys.readouterr().err
    assert closed == []


def test_a_directory_of_its_own_is_closed(tmp_path):
    tmp_path.chmod(0o755)
    serve.keep_private(str(tmp_path))
    assert tmp_path.stat().st_mode & 0o777 == 0o700
