"""Standard input, output and error, which whoever starts a program may have closed or limited."""

from __future__ import annotations

import io
import os
import sys

_NARROWEST = 5
"""Columns below which the library that writes the help never ends, or writes nothing."""


def prepare_standard_streams() -> None:
    """Make the standard streams safe to use.

    /dev/null takes the place of closed ones; otherwise the next file that is opened, such as a database, would get
    their descriptors. What the encoding of the output lacks is printed as an escape. A size of the terminal that is
    none, such as the 0 of a terminal that was never drawn, counts as not told.
    """
    for name in ("COLUMNS", "LINES"):
        if name in os.environ and not _is_size(os.environ[name]):
            del os.environ[name]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
            os.set_inheritable(handle, True)  # noqa: FBT003 - it takes no keywords
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 9 and int(text) >= _NARROWEST


def discard_output() -> None:
    """Discard what standard output has not written, so that it is not tried again at the end of the program."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
