"""Test what is told of services that cannot start."""

import errno
import subprocess
import sys

import pytest

from safelight.errors import Code, Error
from safelight.start_failure import explained


def test_an_error_ends_with_its_status_and_an_unwritable_directory_is_named(tmp_path, caplog):
    with pytest.raises(SystemExit) as ended, explained("db", str(tmp_path)):
        raise Error(Code.CONFLICT, "It is in use.")
    assert ended.value.code == 5
    with pytest.raises(SystemExit) as ended, explained("services", str(tmp_path), str(tmp_path / "missing")):
        raise PermissionError(13, "Permission denied")
    assert ended.value.code == 4
    first, second = (record.message for record in caplog.records)
    assert first == "db cannot start: It is in use."
    assert f"The data directory {tmp_path}/missing cannot be written by this user" in second


def test_a_full_disk_is_reported_in_a_sentence(tmp_path, caplog):
    with pytest.raises(SystemExit) as ended, explained("worker", str(tmp_path)):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert ended.value.code == 4
    assert caplog.messages == [
        "worker cannot start: [Errno 28] No space left on device. Make room on the disk of the data directory."
    ]


def test_an_unexpected_error_is_not_hidden(tmp_path):
    with pytest.raises(OSError, match="surprise"), explained("db", str(tmp_path)):
        raise OSError("surprise")


@pytest.mark.slow
def test_services_in_one_process_name_the_directory_that_they_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "below"
    argv = [sys.executable, "-m", "safelight.allinone", "keyvaluestore", "--port", "0", "--data", str(below)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4
    assert f"The data directory {below} cannot be written by this user" in ended.stderr
    assert "Traceback" not in ended.stderr
