"""Save results in a directory, under safe names that do not replace other files."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from safelight.client.master import Client, output_filename
from safelight.errors import Code, Error
from safelight.files.opening import opened
from safelight.files.replacing import remove_left
from safelight.untrusted import filenames
from safelight.wire import State, Task

_FORBIDDEN_NAME = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SHORT = 60  # bytes


class Saved(NamedTuple):
    """The saved files, and the last error if not all could be saved."""

    paths: list[Path]
    problem: Error | None


class Reserved(NamedTuple):
    """The name of a result, and whether an empty file of ours keeps it free until the result replaces that file."""

    path: Path
    ours: bool

    def close(self) -> None:
        """Remove the empty file, unless it has been replaced by a result."""
        with suppress(FileNotFoundError):
            if self.ours and self.path.lstat().st_size == 0:
                self.path.unlink()


class ResultDirectory:
    """A directory that receives results. With `overwrite`, they replace files of the same name."""

    def __init__(self, path: Path, *, overwrite: bool = False, at_once: int = 4) -> None:
        self._path = path
        self._overwrite = overwrite
        self._turns = asyncio.Semaphore(at_once)
        self._taken: set[Path] = set()
        self._looked: set[Path] = set()
        self._reserving = Lock()  # names are reserved in threads

    def prepare(self) -> None:
        """Make the directory, in any thread, before results are waited for. Raises INVALID_REQUEST, STORAGE_FULL."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            if not os.access(self._path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise _unwritable(self._path, error) from None

    async def save(self, client: Client, task: Task, outputs: Sequence[str] = (), *, within: Path = Path()) -> Saved:
        """Save the outputs of a task (all, or those named) below the subdirectory `within`. Every output is tried.

        The problem is CONFLICT if the task is not finished, NOT_FOUND for an output that it does not have, STORAGE_FULL
        if the disk is full, INVALID_REQUEST for a file that cannot be written for another reason.
        """
        if task.state is not State.FINISHED:
            return Saved([], Error(Code.CONFLICT, f"Task {task.id} has no result: it is {task.state.name.lower()}."))
        saved: list[Path] = []
        problem: Error | None = None
        for name in outputs or [output.name for output in task.outputs]:
            async with self._turns:
                try:
                    place = within / output_filename(task, name)
                    size = next(output.size for output in task.outputs if output.name == name)
                    saved.append(await self._save(client, task, name, place, size))
                except OSError as error:
                    problem = _unwritable(self._path / within, error)
                except Error as error:
                    problem = error
        return Saved(saved, problem)

    async def _save(self, client: Client, task: Task, output: str, place: Path, size: int) -> Path:
        async with opened(lambda: self.reserve(place, task.id)) as (path, _):
            await asyncio.to_thread(_check_room, path.parent, size)
            await client.save(task.id, path, output=output, limit=size)
            return path

    def reserve(self, place: Path, id: str) -> Reserved:
        """Reserve a name for a result of a task, in any thread."""
        with self._reserving:
            return self._reserve_any(place, id)

    def _reserve_any(self, place: Path, id: str) -> Reserved:
        """Reserve a name that the file system accepts: a shorter or simpler one if it rejects the first."""
        stem, dot, extension = place.name.partition(".")
        shorter = filenames.shortened(stem, _SHORT) + dot + extension
        for name in (place.name, shorter):
            try:
                return self._reserve(place.parent, name)
            except (OSError, UnicodeEncodeError) as error:
                if isinstance(error, OSError) and error.errno not in _FORBIDDEN_NAME:
                    raise
        return self._reserve(place.parent, f"{id}{dot}{extension}")

    def _reserve(self, within: Path, filename: str) -> Reserved:
        """Reserve a free name by creating an empty file."""
        directory = self._path / within
        directory.mkdir(parents=True, exist_ok=True)
        if directory not in self._looked:
            self._looked.add(directory)
            remove_left(directory)
        path, number = directory / filename, 1
        while True:
            # Within one run, results of photos with the same name are kept side by side even when overwriting.
            if path not in self._taken:
                if self._overwrite and path.exists():
                    self._taken.add(path)
                    return Reserved(path, ours=False)
                try:
                    path.touch(exist_ok=False)
                except FileExistsError:
                    pass
                else:
                    self._taken.add(path)
                    return Reserved(path, ours=True)
            number += 1
            stem, dot, extension = filename.rpartition(".")
            path = directory / f"{stem}-{number}{dot}{extension}"


def _check_room(directory: Path, size: int) -> None:
    """Refuse a result that does not fit before it fills the disk and makes smaller results fail."""
    if shutil.disk_usage(directory).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unwritable(directory: Path, error: OSError) -> Error:
    code = Code.STORAGE_FULL if error.errno in _FULL else Code.INVALID_REQUEST
    return Error(code, f"Results cannot be written to {directory}: {error.strerror}.")
