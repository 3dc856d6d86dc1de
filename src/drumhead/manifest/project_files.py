"""Read files of a project, which may come from anywhere, in bounded time and memory, and none of this host's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.errors import manifest_error

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 16 << 20


def read_text(root: Path, name: str, by: tuple[str, int] | None = None) -> str:
    """Return the text of a project's file. `by` is the file and the line that name it, for the message.

    Raises MANIFEST for one that lies elsewhere, is not there or no file, is too long or no text.
    """
    file, line = by or (name, 1)
    path = root / name
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise manifest_error(file, line, f"{name} leads out of the project")
        if (path.exists() and not path.is_file()) or path.stat().st_size > MAX_BYTES:
            raise manifest_error(file, line, f"{name} is not a file of at most {MAX_BYTES >> 20} MiB")
        return path.read_text()
    except UnicodeDecodeError as error:
        raise manifest_error(file, line, f"{name} cannot be read: it is not text in UTF-8") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = error.strerror if isinstance(error, OSError) else "its links lead in a circle"
        raise manifest_error(file, line, f"{name} cannot be read: {reason}") from error
