"""Simulated disks: which parts of a machine's files are durable, and what remains of them after a crash.

The files are real files in memory. They are the volatile state, which running programs see. Flushes update the durable
state: `fsync` of a file stores its content, and `fsync` of a directory stores the names in it. After a power cut, each
name and each write that differs between the two states may or may not have reached the disk; the seed decides. Only a
rename is atomic, even between two directories, as it is in the journal of ext4, XFS, Btrfs and ZFS. After a kill, the
volatile state remains unchanged.

Each run of a program starts on a copy in a new directory, so that files that the dead program still holds open do not
matter.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_SECTOR = 512


class FlushFailedError(OSError):
    """The device has refused the bytes of a file. As Linux does, the disk forgets them: no later flush writes them."""


class _Write(NamedTuple):
    """An unflushed write of SQLite; without data, the file was truncated at `offset`."""

    offset: int
    data: bytes | None


class _Node(NamedTuple):
    inode: int
    directory: bool


class Disk:
    """The files below one directory. `before_flush` may raise OSError, or kill the process."""

    def __init__(self, root: Path, rng: random.Random, before_flush: Callable[[], None]) -> None:
        self.root = root
        self.before_flush = before_flush
        self.flushes = 0
        self._rng = rng
        self._names: dict[int, dict[str, _Node]] = {}
        """The names in each flushed directory."""
        self._content: dict[int, tuple[bytes, int]] = {}
        """The bytes and the modification time (ns) of each flushed file."""
        self._pending: dict[int, list[_Write]] = {}
        self._databases: dict[int, bytearray] = {}
        """The same for the files of SQLite, for which only writes are recorded."""
        self._held: list[int] = []
        self._renamed: dict[int, bool | None] = {}
        """During a copy: the files with an unflushed rename, and whether the rename took effect."""
        self._keep(os.fspath(root), root.stat().st_ino)

    def flush(self, descriptor: int) -> None:
        """Do what `os.fsync` does."""
        self.before_flush()
        self.flushes += 1
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._names[status.st_ino] = _names(descriptor)
        else:
            self._held.append(os.dup(descriptor))  # so that its inode is not reused
            data = Path(f"/proc/self/fd/{descriptor}").read_bytes()  # it may be open only for writing
            self._content[status.st_ino] = data, status.st_mtime_ns
            self._pending.pop(status.st_ino, None)

    def flush_names(self, directory: Path) -> None:
        """Flush the names in a directory, as SQLite does for its journals."""
        self._names[directory.stat().st_ino] = _names(directory)

    def flush_database(self, path: Path) -> None:
        """Do what SQLite's xSync does."""
        inode = path.stat().st_ino
        try:
            self.before_flush()
        except FlushFailedError:
            self._pending.pop(inode, None)
            raise
        self.flushes += 1
        data = self._databases.get(inode)
        if data is None:
            known = self._content.get(inode)
            data = self._databases[inode] = bytearray(known[0] if known else b"")
        for write in self._pending.pop(inode, ()):
            _apply(data, write.offset, write.data)

    def wrote(self, path: Path, offset: int, data: bytes | None) -> None:
        """Record a write of SQLite."""
        self._pending.setdefault(path.stat().st_ino, []).append(_Write(offset, data))

    def copy(self, target: Path, *, power_cut: bool) -> None:
        """Write the state after a crash to a new directory."""
        target.mkdir(mode=0o700)
        self._renamed = dict.fromkeys(self._renames(), None) if power_cut else {}
        self._copy(os.fspath(self.root), self.root.stat().st_ino, os.fspath(target), power_cut=power_cut)

    def _copy(self, source: str | None, inode: int, target: str, *, power_cut: bool) -> None:
        volatile = _names(source) if source is not None else {}
        durable = self._names.get(inode, {}) if power_cut else volatile
        for name in sorted(volatile.keys() | durable.keys()):
            now, then = volatile.get(name), durable.get(name)
            found = now if now == then else self._reached(now, then)
            if found is None:
                continue
            path = f"{source}/{name}" if source is not None and found == now else None
            if found.directory:
                Path(target, name).mkdir(mode=0o700)
                self._copy(path, found.inode, f"{target}/{name}", power_cut=power_cut)
            else:
                file = Path(path) if path is not None else None
                self._copy_file(file, found.inode, Path(target, name), power_cut=power_cut)

    def _reached(self, now: _Node | None, then: _Node | None) -> _Node | None:
        """Return the node of a name after a power cut. A rename takes effect in both directories or in none."""
        renamed = next((node.inode for node in (now, then) if node is not None and node.inode in self._renamed), None)
        if renamed is None:
            return self._rng.choice((now, then))
        if self._renamed[renamed] is None:
            self._renamed[renamed] = self._rng.choice((True, False))
        return now if self._renamed[renamed] else then

    def _renames(self) -> set[int]:
        """Return the renamed files whose old and new names are not flushed."""
        volatile = {}
        for directory, _, _ in os.walk(self.root):
            inode = os.stat(directory).st_ino  # noqa: PTH116 - a disk has hundreds of directories
            volatile |= {(inode, name): node.inode for name, node in _names(directory).items()}
        durable = {(inode, name): node.inode for inode, names in self._names.items() for name, node in names.items()}
        came = {inode for place, inode in volatile.items() if durable.get(place) != inode}
        left = {inode for place, inode in durable.items() if volatile.get(place) != inode}
        return came & left

    def _copy_file(self, source: Path | None, inode: int, target: Path, *, power_cut: bool) -> None:
        now = None
        if source is not None:
            now = source.read_bytes(), source.stat().st_mtime_ns
        then = self._content.get(inode)
        if inode in self._databases:
            then = bytes(self._databases[inode]), 0
        if now is not None and not power_cut:
            data, changed = now
        elif inode in self._pending:
            data, changed = self._with_some(then[0] if then else b"", self._pending[inode]), 0
        elif now is None or inode in self._databases:
            data, changed = then or (b"", 0)
        else:
            data, changed = self._torn(now, then)
        target.write_bytes(data)
        os.utime(target, ns=(changed, changed))

    def _torn(self, now: tuple[bytes, int], then: tuple[bytes, int] | None) -> tuple[bytes, int]:
        """Return the remaining content of a file that was changed and not flushed."""
        old, new = then[0] if then else b"", now[0]
        if old == new:
            return old, self._rng.choice((now[1], then[1] if then else now[1]))
        half = self._rng.randint(0, len(new))
        zeros = bytes(len(new) - half)
        return self._rng.choice((old, new, new[:half], new[:half] + zeros, new[:half] + old[half:])), now[1]

    def _with_some(self, data: bytes, writes: list[_Write]) -> bytes:
        """Apply some of the unflushed writes, or some of their sectors."""
        made = bytearray(data)
        for write in writes:
            kept = self._rng.random()
            if kept < 0.4:
                continue
            part = write.data
            if kept > 0.9 and part is not None:
                part = part[: self._rng.randint(0, len(part) // _SECTOR) * _SECTOR]
            _apply(made, write.offset, part)
        return bytes(made)

    def _keep(self, directory: str, inode: int) -> None:
        """Mark everything below a directory as durable. Paths are strings for speed: a disk has hundreds of
        directories."""
        names = self._names[inode] = _names(directory)
        for name, node in names.items():
            path = f"{directory}/{name}"
            if node.directory:
                self._keep(path, node.inode)
            else:
                self._content[node.inode] = Path(path).read_bytes(), Path(path).stat().st_mtime_ns


def _names(directory: str | int | Path) -> dict[str, _Node]:
    with os.scandir(directory) as entries:
        return {entry.name: _Node(entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries}


def _apply(made: bytearray, offset: int, data: bytes | None) -> None:
    """Apply a write, or truncate the file if there is no data."""
    if data is None:
        del made[offset:]
        return
    if len(made) < offset:
        made.extend(bytes(offset - len(made)))
    made[offset : offset + len(data)] = data
