"""Replace a stopped machine by a new one of the same name, or leave it as it was if the new one does not start."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from drumhead.machine.instances import IMAGE, RECORD, STOPPING
from drumhead.machine.volume.volumes import OVERLAY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = ("log", "console", "status", STOPPING, OVERLAY)
"""What the machine has written, and how it ended."""
RECORDS = (IMAGE, RECORD)


@contextmanager
def replacing_machine(directory: Path) -> Iterator[None]:
    """Begin with neither log nor disk; delete those of the stopped machine at the end. The caller holds the lock.

    On an exception, put the stopped machine back. QEMU may refuse a start only after its files were written.
    """
    for name in RECORDS:
        if (directory / name).exists():
            _old(directory, name).hardlink_to(directory / name)
    for name in FILES:
        if (directory / name).exists():
            (directory / name).replace(_old(directory, name))
    try:
        yield
    except BaseException:
        if _old(directory, RECORD).exists():
            for name in FILES:
                (directory / name).unlink(missing_ok=True)
            _put_back(directory)
        raise
    _forget(directory)


def finish_replacing(directory: Path) -> None:
    """Finish what a command left that was killed while it replaced a machine. The caller holds the lock.

    The stopped machine is as it was, unless the new one was already recorded, which is the last step before it runs.
    """
    record, old = directory / RECORD, _old(directory, RECORD)
    if record.exists() and old.exists() and old.samefile(record):
        _put_back(directory)
    _forget(directory)


def _old(directory: Path, name: str) -> Path:
    return directory / f"{name}.old"


def _put_back(directory: Path) -> None:
    for name in (*FILES, *RECORDS):
        if _old(directory, name).exists():
            _old(directory, name).replace(directory / name)
    _forget(directory)  # two links to one file are not replaced


def _forget(directory: Path) -> None:
    for name in (*FILES, *RECORDS):  # the record last, because it tells what the others are
        _old(directory, name).unlink(missing_ok=True)
