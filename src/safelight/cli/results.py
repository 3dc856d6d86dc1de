"""Save results in a directory, under safe names that replace no other file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from safelight.client.master import Client, output_filename
from safelight.errors import Code, Error
from safelight.wire import State, Task


class ResultDirectory:
    """A directory that receives results. With `overwrite`, they replace files of the same name."""

    def __init__(self, path: Path, *, overwrite: bool = False, at_once: int = 4) -> None:
        self._path = path
        self._overwrite = overwrite
        self._turns = asyncio.Semaphore(at_once)
        self._taken: set[Path] = set()

    async def save(self, client: Client, task: Task, outputs: Sequence[str] = ()) -> list[Path]:
        """Save the outputs of a finished task (all, unless some are named); return the files.

        Raises CONFLICT where the task is not finished, NOT_FOUND for an output that it does not have.
        """
        if task.state is not State.FINISHED:
            raise Error(Code.CONFLICT, f"Task {task.id} has no result: it is {task.state.name.lower()}.")
        saved = []
        for name in outputs or [output.name for output in task.outputs]:
            filename = output_filename(task, name)
            size = next(output.size for output in task.outputs if output.name == name)
            async with self._turns:
                saved.append(await self._save(client, task, name, filename, size))
        return saved

    async def _save(self, client: Client, task: Task, output: str, filename: str, size: int) -> Path:
        path, ours = await asyncio.to_thread(self._reserve, filename)
        try:
            await client.save(task.id, path, output=output, limit=size)
        except BaseException:
            if ours:
                path.unlink(missing_ok=True)
            raise
        return path

    def _reserve(self, filename: str) -> tuple[Path, bool]:
        """Reserve a free name by creating an empty file; return whether the file is ours to remove."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            path, number = self._path / filename, 1
            while True:
                # Within one run results of photos of the same name stand beside each other even when overwriting.
                if path not in self._taken:
                    if self._overwrite and path.exists():
                        self._taken.add(path)
                        return path, False
                    try:
                        path.touch(exist_ok=False)
                    except FileExistsError:
                        pass
                    else:
                        self._taken.add(path)
                        return path, True
                number += 1
                stem, dot, extension = filename.rpartition(".")
                path = self._path / f"{stem}-{number}{dot}{extension}"
        except OSError as error:
            detail = f"Results cannot be written to {self._path}: {error.strerror}."
            raise Error(Code.INVALID_REQUEST, detail) from None
