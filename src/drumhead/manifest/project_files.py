"""Read files of an untrusted project in bounded time and memory, and no files of the host.

All well-known files of a project are read here: manifests, ignore files, locks, package.json.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from drumhead.errors import manifest_error

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 16 << 20
MAX_YAML_BYTES = 256 << 10
"""A short YAML file can take long to parse."""


def is_there(root: Path, name: str) -> bool:
    """Return whether a project has an entry of this name. ``read_text`` checks that it is a file of the project.

    One in a directory that may not be searched counts as there, so that ``read_text`` says why it cannot be read.
    """
    try:
        (root / name).lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def read_text(root: Path, name: str, by: tuple[str, int] | None = None, limit: int = MAX_BYTES) -> str:
    """Return the text of a project's file. `by` is the file and line that name it, for messages.

    Raises MANIFEST if the file is outside the project, missing, not a regular file, not text or larger than `limit`.
    """
    file, line = by or (name, 1)
    subject = name if by else "it"
    try:
        place = (root / name).resolve(strict=True)
        if not place.is_relative_to(root.resolve()):
            raise manifest_error(file, line, f"{subject} leads out of the project; replace the link with a copy")
        contents = _read(place, limit)
        if contents is None:
            raise manifest_error(file, line, f"{subject} is not a regular file; replace it with one, or remove it")
        if len(contents) > limit:
            size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
            raise manifest_error(file, line, f"{subject} has more than {size}; shorten it, or remove it")
        return contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"is not text in UTF-8 ({error.reason}); save it as UTF-8"
    except RuntimeError:
        reason = "cannot be read, because its links form a loop; replace it with a file, or remove it"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    raise manifest_error(file, line, f"{subject} {reason}")


def _read(place: Path, limit: int) -> bytes | None:
    """Return up to `limit` bytes and one more of a regular file. Return None for others, without waiting for a pipe."""
    with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(limit + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
