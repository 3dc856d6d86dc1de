"""Simulated disks: what of a machine's files is durable, and what is left of them after a crash.

The files themselves are real ones, in memory: they are the volatile picture, which running programs see. The durable
picture is taken when something is flushed: the content of a file by `fsync` of the file, the names in a directory by
`fsync` of the directory. After a power cut, whatever differs between the two may have reached the disk or not, each
name and each write by itself; the seed decides. Only a rename is one step, in two directories too, as it is in the
journal of ext4, XFS, Btrfs and ZFS. After a kill, the volatile picture stays as it is.

Each run of a program begins on a copy in a directory of its own, so that nothing the dead one still holds matters.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_SECTOR = 512


class _Write(NamedTuple):
    """A write of SQLite that is not flushed; without data, the file was cut off at `offset`."""

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
        """Of each flushed directory: the names in it."""
        self._content: dict[int, tuple[bytes, int]] = {}
        """Of each flushed file: its bytes, and when it was changed (ns)."""
        self._pending: dict[int, list[_Write]] = {}
        self._databases: dict[int, bytearray] = {}
        """The same of the files of SQLite, of which only writes are noted."""
        self._held: list[int] = []
        self._renamed: dict[int, bool | None] = {}
        """While a copy is made: the files whose rename was not flushed, and whether it took effect."""
        self._keep(os.fspath(root), root.stat().st_ino)

    def flush(self, descriptor: int) -> None:
        """Do what `os.fsync` does."""
        self.before_flush()
        self.flushes += 1
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._names[status.st_ino] = _names(descriptor)
        else:
            self._held.append(os.dup(descriptor))  # its inode is not given to another file
            data = Path(f"/proc/self/fd/{descriptor}").read_bytes()  # it may be open for writing alone
            self._content[status.st_ino] = data, status.st_mtime_ns
            self._pending.pop(status.st_ino, None)

    def flush_names(self, directory: Path) -> None:
        """Flush the names in a directory, as SQLite does by itself for its journals."""
        self._names[directory.stat().st_ino] = _names(directory)

    def flush_database(self, path: Path) -> None:
        """Do what SQLite's xSync does."""
        self.before_flush()
        self.flushes += 1
        inode = path.stat().st_ino
        data = self._databases.get(inode)
        if data is None:
            known = self._content.get(inode)
            data = self._databases[inode] = bytearray(known[0] if known else b"")
        for write in self._pending.pop(inode, ()):
            _apply(data, write.offset, write.data)

    def wrote(self, path: Path, offset: int, data: bytes | None) -> None:
        """Note a write of SQLite."""
        self._pending.setdefault(path.stat().st_ino, []).append(_Write(offset, data))

    def copy(self, target: Path, *, power_cut: bool) -> None:
        """Write what is left after a crash into a new directory."""
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
        """Return what a name is after a power cut. A rename takes effect in both directories or in none."""
        renamed = next((node.inode for node in (now, then) if node is not None and node.inode in self._renamed), None)
        if renamed is None:
            return self._rng.choice((now, then))
        if self._renamed[renamed] is None:
            self._renamed[renamed] = self._rng.choice((True, False))
        return now if self._renamed[renamed] else then

    def _renames(self) -> set[int]:
        """Return the files that have left one name for another, neither of which is flushed."""
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
        """Return what is left of a file that was changed and not flushed."""
        old, new = then[0] if then else b"", now[0]
        if old == new:
            return old, self._rng.choice((now[1], then[1] if then else now[1]))
        half = self._rng.randint(0, len(new))
        zeros = bytes(len(new) - half)
        return self._rng.choice((old, new, new[:half], new[:half] + zeros, new[:half] + old[half:])), now[1]

    def _with_some(self, data: bytes, writes: list[_Write]) -> bytes:
        """Apply some of the writes that were not flushed, or some sectors of them."""
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
        """Take everything below a directory for durable. Paths are texts: a disk has hundreds of directories."""
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
    """Do a write, or without data cut the file off."""
    if data is None:
        del made[offset:]
        return
    if len(made) < offset:
        made.extend(bytes(offset - len(made)))
    made[offset : offset + len(data)] = data
