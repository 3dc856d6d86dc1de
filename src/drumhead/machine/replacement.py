"""Replace a stopped machine by a new one of the same name, or leave it as it was if the new one does not start."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from drumhead.blobs import replacing
from drumhead.machine.instances import IMAGE, RECORD, STOPPING
from drumhead.machine.volume.volumes import OVERLAY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD = ".old"
FILES = ("log", "console", "status", STOPPING, OVERLAY)
"""What the machine has written, and how it ended."""
RECORDS = (IMAGE, RECORD)


@contextmanager
def replacing_machine(directory: Path) -> Iterator[None]:
    """Begin with neither log nor disk; delete those of the stopped machine at the end. The caller holds the lock.

    On an exception, put the stopped machine back. QEMU may refuse a start only after its files were written.
    """
    records = {name: (directory / name).read_bytes() for name in RECORDS if (directory / name).exists()}
    moved = [name for name in FILES if (directory / name).exists()]
    for name in moved:
        (directory / name).replace(directory / f"{name}{OLD}")
    try:
        yield
    except BaseException:
        if RECORD in records:
            _put_back(directory, moved, records)
        raise
    for name in FILES:  # also what a command that was killed has left
        (directory / f"{name}{OLD}").unlink(missing_ok=True)


def _put_back(directory: Path, moved: list[str], records: dict[str, bytes]) -> None:
    for name in FILES:
        (directory / name).unlink(missing_ok=True)
    for name in moved:
        (directory / f"{name}{OLD}").replace(directory / name)
    for name, contents in records.items():
        with replacing(directory / name) as temporary:
            temporary.write_bytes(contents)
