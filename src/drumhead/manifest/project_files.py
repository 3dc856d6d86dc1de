"""Read files of a project, which may come from anywhere, in bounded time and memory, and none of this host's.

Everything that is read from a project by its name is read here: manifests, ignore files, locks, package.json.
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
"""A short file of YAML can be long to read."""


def is_there(root: Path, name: str) -> bool:
    """Tell whether a project has anything of this name; ``read_text`` refuses what is not a file of the project."""
    return os.path.lexists(root / name)


def read_text(root: Path, name: str, by: tuple[str, int] | None = None, limit: int = MAX_BYTES) -> str:
    """Return the text of a project's file. `by` is the file and the line that name it, for the message.

    Raises MANIFEST for one that lies elsewhere, is missing, no regular file or no text, or has over `limit` bytes.
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
        reason = "cannot be read, as its links lead in a circle; replace it with a file, or remove it"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    raise manifest_error(file, line, f"{subject} {reason}")


def _read(place: Path, limit: int) -> bytes | None:
    """Return a file up to one byte over `limit`; None for a pipe, which is not waited for, a directory or a device."""
    with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(limit + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
