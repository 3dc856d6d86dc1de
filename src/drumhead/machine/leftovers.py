"""Remove what commands that were killed have left: machines, snapshots and volumes that they had not finished.

They have no record, so no other command shows or deletes them. The image of such a machine would never be freed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError
from drumhead.machine.instances import RECORD, Instances
from drumhead.machine.snapshot.store import Snapshots
from drumhead.machine.volume.volumes import sweep_volumes

if TYPE_CHECKING:
    from drumhead.home import Home


def sweep(home: Home) -> None:
    """Remove the leftovers of a home, and nothing that another command is working on."""
    instances, snapshots = Instances(home), Snapshots(home)
    for directory in home.instances.iterdir() if home.instances.is_dir() else ():
        if directory.is_dir() and not (directory / RECORD).exists():
            with suppress(DrumheadError), instances.lock(directory.name):  # its end removes what has no record
                pass
    if home.snapshots.is_dir():
        with suppress(DrumheadError), snapshots.lock():
            snapshots.sweep()
    if home.volumes.is_dir():
        sweep_volumes(home)
