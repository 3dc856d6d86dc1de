"""Tell why services cannot start, and end with the status of the shared table."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from safelight.errors import EXIT_STATUS, Code, Error, status_of

log = logging.getLogger(__name__)

_FULL = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), " Make room on the disk of the data directory.")
"""What to do about a full disk, by the number of the error."""


@contextmanager
def explained(title: str, *directories: str) -> Iterator[None]:
    """End the program with one sentence if an expected failure leaves the block: an error, or a data directory.

    An OSError is expected if this process cannot write one of the data directories, or if a disk is full.
    """
    try:
        yield
    except Error as error:
        log.error("%s cannot start: %s%s", title, error.detail, _advice(directories))  # noqa: TRY400 - that says it all
        raise SystemExit(status_of(error)) from None
    except OSError as error:
        if not (advice := _advice(directories) or _FULL.get(error.errno or 0, "")):
            raise
        log.error("%s cannot start: %s.%s", title, error, advice)  # noqa: TRY400 - as above
        raise SystemExit(EXIT_STATUS[Code.UNAVAILABLE]) from None


def _advice(directories: tuple[str, ...]) -> str:
    """Return what to do about a data directory that this process cannot write, after a space; or nothing."""
    for data in directories:
        if not os.access(data, os.W_OK | os.X_OK):
            return (
                f" The data directory {data} cannot be written by this user ({os.geteuid()}:{os.getegid()}): make it "
                "and give it to that user (chown), or name another one (--data)."
            )
    return ""
