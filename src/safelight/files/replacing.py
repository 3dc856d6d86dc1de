"""Replace a file by what is downloaded, once all of it has arrived."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import BinaryIO

from safelight.files.opening import opened

_UNFINISHED = re.compile(r"\.safelight-[0-9a-f]{16}\.part")
_LEFT = 86400.0
"""Seconds after which an unfinished file to which nothing was written was left by a killed program."""


class _Unfinished:
    """A new file beside the one that it will replace.

    Its name is its own, since several programs may write the same file, and short, since that of the other may be long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = path.with_name(f".safelight-{secrets.token_hex(8)}.part")
        self.file = self._own.open("xb")  # never follow an existing link

    def replace(self) -> None:
        """Take the place of the other file."""
        self.file.close()
        self._own.replace(self._path)

    def close(self) -> None:
        """Remove the file if it has not taken the other's place."""
        try:
            self.file.close()
        finally:
            self._own.unlink(missing_ok=True)


@asynccontextmanager
async def replaced(path: Path) -> AsyncIterator[BufferedWriter]:
    """Yield a file that replaces `path` when the context ends and is removed after an error. Raises OSError."""
    async with opened(lambda: _Unfinished(path)) as unfinished:
        yield unfinished.file
        await asyncio.to_thread(unfinished.replace)


def emptied(file: BinaryIO) -> None:
    """Drop what was written to a file, to begin anew."""
    file.seek(0)
    file.truncate()


def remove_left(directory: Path) -> None:
    """Remove the unfinished files that killed programs have left in a directory, if this user may."""
    with suppress(OSError):
        for path in directory.iterdir():
            if _UNFINISHED.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _LEFT:
                path.unlink()
