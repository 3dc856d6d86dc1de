"""Find, list and delete snapshots. Each belongs to exactly one image, memory size, number of CPUs and QEMU."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import MALFORMED, DrumheadError, ErrorCode
from drumhead.home import files_in, make_private
from drumhead.image.store import encode
from drumhead.machine.qemu.acceleration import qemu_identity
from drumhead.machine.qemu.command_line import Saved, command_line
from drumhead.machine.snapshot.records import MEMORY, RECORD, Snapshot, saved_cards, spare_drives

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drumhead.guest.contract import Guest
    from drumhead.home import Home
    from drumhead.machine.records import Accelerator
    from drumhead.records import Image, ImageFiles

NOWHERE = Path("/snapshot")
PROCESSOR = Path("/proc/cpuinfo")


class Snapshots:
    """The snapshots of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def directory(self, key: str) -> Path:
        return self._home.snapshots / key

    def list(self) -> list[Snapshot]:
        """Return every snapshot, sorted by image, memory and CPUs."""
        keys = [path.parent.name for path in files_in(self._home.snapshots, f"*/{RECORD}")]
        found = [snapshot for key in keys if (snapshot := self.find(key))]
        return sorted(found, key=lambda one: (one.image, one.guest, one.memory, one.cpus, one.created_at))

    def find(self, key: str) -> Snapshot | None:
        try:
            return msgspec.json.decode((self.directory(key) / RECORD).read_bytes(), type=Snapshot)
        except (FileNotFoundError, *MALFORMED):
            return None

    def size(self, key: str) -> int:
        """Return the number of bytes that a snapshot takes on the host."""
        return sum(path.stat().st_blocks * 512 for path in self.directory(key).iterdir())

    def delete(self, key: str) -> None:
        """Delete a snapshot. Machines that were resumed from it keep the files that they have open."""
        # Remove the record first, so that the remains of an interrupted deletion are not a snapshot.
        (self.directory(key) / RECORD).unlink(missing_ok=True)
        shutil.rmtree(self.directory(key), ignore_errors=True)

    def sweep(self) -> None:
        """Remove what interrupted attempts and deletions have left. The caller holds the lock."""
        for directory in self._home.snapshots.iterdir():
            if directory.is_dir() and not (directory / RECORD).exists():
                shutil.rmtree(directory, ignore_errors=True)

    def delete_all(self, image: str, guest: str) -> None:
        """Delete all snapshots of an image."""
        for one in self.list():
            if (one.image, one.guest) == (image, guest):
                self.delete(one.key)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock for taking snapshots. Raises CONFLICT if another process holds it."""
        make_private(self._home.snapshots)
        handle = os.open(self._home.snapshots / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DrumheadError(ErrorCode.CONFLICT, "another command is taking a snapshot; wait for it") from error
            yield
        finally:
            os.close(handle)


def snapshot_key(
    guest: Guest, image: Image, files: ImageFiles, *, memory: int, cpus: int, accelerator: Accelerator
) -> str:
    """Return a digest that identifies a snapshot: of everything that QEMU and the guest saw while it was taken.

    With KVM this includes the host's processor.
    """
    plan = guest.plan_snapshot(image, files, None, NOWHERE, spare_drives(NOWHERE))
    argv = command_line(
        plan,
        name="snapshot",
        memory=memory,
        cpus=cpus,
        accelerator=accelerator,
        cards=saved_cards(),
        state=NOWHERE,
        saved=Saved(memory=NOWHERE / MEMORY),
    )
    processor = PROCESSOR.read_text().split("\n\n")[0].split("cpu MHz")[0] if accelerator == "kvm" else ""
    seen = [*argv, *guest.warm_interpreter(image).argv, encode(image).decode(), qemu_identity(), processor]
    return hashlib.sha256("\0".join(seen).encode()).hexdigest()
