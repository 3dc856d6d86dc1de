"""A worker's own directory: its scratch files, and what a successor needs to know when it dies.

It is locked for as long as its worker lives, however that ends. Whoever starts later on the same data directory sees
by the lock which workers died, gives their leases back at once, and removes what they left. Only images that were
being decoded at that moment stay theirs until the leases lapse: each may be why its worker died, and a lapse counts
as a death.
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
"""Bytes that one lease takes in the list of what is being decoded, at most."""


class Predecessor:
    """A worker that died: its id, and the leases whose images it was decoding (None where that is not known)."""

    def __init__(self, directory: Path) -> None:
        self.id = directory.name
        self._directory = directory
        self.decoding: list[str] | None = None
        with suppress(OSError, ValueError):
            self.decoding = json.loads((directory / "decoding").read_text())

    def forget(self) -> None:
        """Remove what it left."""
        shutil.rmtree(self._directory, ignore_errors=True)


class Workdir:
    """The directory of a worker that lives."""

    def __init__(self, directory: Path, slots: int, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._decoding: set[str] = set()
        self._size = slots * _LEASE + 2
        self._file = os.open(directory / "decoding", os.O_RDWR | os.O_CREAT, 0o644)
        stack.callback(os.close, self._file)
        self._note()

    @classmethod
    @contextmanager
    def open(cls, data: Path, worker: str, slots: int) -> Iterator[Self]:
        """Make the directory of a worker, locked; it is removed on leaving."""
        # Nobody looks at a name with a dot: the directory is seen only once it is locked.
        made, directory = data / f".{worker}", data / worker
        made.mkdir(parents=True)
        with ExitStack() as stack:
            lock = stack.enter_context((made / "lock").open("w"))
            with suppress(OSError):  # without locks nobody can tell that we died: then our leases lapse
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            made.rename(directory)
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            yield cls(directory, slots, stack)

    def path(self, name: str) -> Path:
        """Return where a scratch file may be written."""
        return self._directory / name

    @contextmanager
    def decoding(self, lease: str) -> Iterator[None]:
        """Note that the image of a lease is being decoded (a write of some microseconds, not flushed)."""
        self._decoding.add(lease)
        self._note()
        try:
            yield
        finally:
            self._decoding.discard(lease)
            self._note()

    def predecessors(self) -> list[Predecessor]:
        """Return the workers of the same data directory that died; they are ours to deal with."""
        found = []
        for directory in self._directory.parent.iterdir():
            if directory == self._directory or directory.name.startswith(".") or not directory.is_dir():
                continue
            with ExitStack() as held, suppress(OSError):  # no lock to be had: it lives, or another successor has it
                lock = held.enter_context((directory / "lock").open("r+"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._stack.push(held.pop_all())
                found.append(Predecessor(directory))
        return found

    def _note(self) -> None:
        # One write of one length: a reader finds the list as it was before or after, even if we die in between.
        os.pwrite(self._file, json.dumps(sorted(self._decoding)).ljust(self._size).encode(), 0)
