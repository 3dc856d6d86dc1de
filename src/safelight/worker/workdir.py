"""A worker's own directory: its scratch files, and the information that other workers need if it dies.

It is locked while the worker lives. The locks tell a worker that starts later on the same data directory which workers
have died. It returns their leases at once, and removes their directories. Only the leases of photos that were being
decoded are left to expire, which counts as a death, because each of those photos may have killed its worker. A worker
that stops while no master answers writes down the leases, possibly none, whose end it could not report, and leaves its
directory in place.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

_LEASE = 96
"""The most bytes that one lease takes in the list of those being decoded."""


class Predecessor:
    """A worker that died: its id, and the leases whose photos it was decoding, or None if unknown.

    `unreported` lists the leases whose end it could not report because no master answered when it stopped; None if it
    did not stop like this.
    """

    def __init__(self, directory: Path) -> None:
        self.id = directory.name
        self._directory = directory
        self.decoding: list[str] | None = None
        with suppress(OSError, ValueError):
            self.decoding = json.loads((directory / "decoding").read_text())
        self.unreported: list[str] | None = None
        with suppress(OSError, ValueError):
            self.unreported = json.loads((directory / "unreported").read_text())

    def remove(self) -> None:
        """Remove its directory."""
        shutil.rmtree(self._directory, ignore_errors=True)


class Workdir:
    """The directory of this worker."""

    def __init__(self, directory: Path, slots: int, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._decoding: set[str] = set()
        self._stays = False
        self._size = slots * _LEASE + 2
        self._file = os.open(directory / "decoding", os.O_RDWR | os.O_CREAT, 0o644)
        stack.callback(os.close, self._file)
        self._note()

    @classmethod
    @contextmanager
    def open(cls, data: Path, worker: str, slots: int) -> Iterator[Self]:
        """Make the directory and lock it; it is removed when the context ends."""
        # Names with a dot are ignored, so that other workers see the directory only once it is locked.
        made, directory = data / f".{worker}", data / worker
        made.mkdir(parents=True)
        with ExitStack() as stack:
            lock = stack.enter_context((made / "lock").open("w"))
            with suppress(OSError):  # without locks no worker can see that this one died, and its leases expire
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            made.rename(directory)
            workdir = cls(directory, slots, stack)
            stack.callback(workdir._remove)
            yield workdir

    def leave(self, unreported: list[str]) -> None:
        """Leave leases that have ended without a report to the next worker on this data directory."""
        with suppress(OSError):
            (self._directory / "unreported").write_text(json.dumps(unreported))
            self._stays = True

    def _remove(self) -> None:
        if not self._stays:
            shutil.rmtree(self._directory, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Return the path of a scratch file."""
        return self._directory / name

    @contextmanager
    def decoding(self, lease: str) -> Iterator[None]:
        """Record that the photo of a lease is being decoded (a write of a few microseconds, not flushed)."""
        self._decoding.add(lease)
        self._note()
        try:
            yield
        finally:
            self._decoding.discard(lease)
            self._note()

    def predecessors(self) -> list[Predecessor]:
        """Return the workers of this data directory that died, and lock their directories."""
        found = []
        for directory in self._directory.parent.iterdir():
            if directory == self._directory or directory.name.startswith(".") or not directory.is_dir():
                continue
            with ExitStack() as held, suppress(OSError):  # it is locked: the worker lives, or another one handles it
                lock = held.enter_context((directory / "lock").open("r+"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._stack.push(held.pop_all())
                found.append(Predecessor(directory))
        return found

    def _note(self) -> None:
        # A single write of a fixed length, so that readers see the list before or after it, even if this worker dies
        # meanwhile.
        os.pwrite(self._file, json.dumps(sorted(self._decoding)).ljust(self._size).encode(), 0)
