"""Test what is left when a command is killed while it replaces a stopped machine by a new one."""

import os

import pytest

from drumhead.machine.replacement import FILES, RECORDS, finish_replacing, replacing_machine

OLD = {name: f"old {name}" for name in (*FILES, *RECORDS) if name != "stopping"}


def write(directory, contents):
    for name, text in contents.items():
        (directory / "new").write_text(text)
        (directory / "new").replace(directory / name)


def read(directory):
    return {path.name: path.read_text() for path in directory.iterdir()}


def killed(directory, contents):
    """Replace the machine in a process that is killed once it has written `contents`."""
    if (pid := os.fork()) == 0:
        with replacing_machine(directory):
            write(directory, contents)
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize("contents", [{}, {"image.json": "new", "overlay.raw": "new"}])
def test_a_command_that_is_killed_before_the_new_machine_is_recorded_leaves_the_old_one(tmp_path, contents):
    write(tmp_path, OLD)
    killed(tmp_path, contents)
    assert "log" not in read(tmp_path)
    finish_replacing(tmp_path)
    assert read(tmp_path) == OLD
    finish_replacing(tmp_path)
    assert read(tmp_path) == OLD


def test_a_command_that_is_killed_after_the_new_machine_is_recorded_leaves_that_one(tmp_path):
    new = dict.fromkeys(("image.json", "overlay.raw", "instance.json", "log"), "new")
    write(tmp_path, OLD)
    killed(tmp_path, new)
    finish_replacing(tmp_path)
    assert read(tmp_path) == new


def test_a_machine_that_does_not_start_is_replaced_by_the_one_before(tmp_path):
    write(tmp_path, OLD)
    with pytest.raises(KeyboardInterrupt), replacing_machine(tmp_path):
        write(tmp_path, {"image.json": "new", "instance.json": "new", "log": "new", "stopping": ""})
        raise KeyboardInterrupt
    assert read(tmp_path) == OLD
    with replacing_machine(tmp_path):
        write(tmp_path, {"image.json": "new", "instance.json": "new"})
    assert read(tmp_path) == {"image.json": "new", "instance.json": "new"}
