"""Read the command line of Python's interpreter."""

from __future__ import annotations

import re

PYTHON = re.compile(r"python(3(\.[0-9]+)?)?")
"""The names of the interpreter."""
WITH_VALUE = frozenset("WX")
"""Options of the interpreter that take the next argument as their value."""


def split_python(argv: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split off the interpreter's options. The rest is ``-m MODULE …``, ``-c CODE …`` or ``FILE …``, or empty."""
    for at, argument in enumerate(argv):
        if at and argv[at - 1] in {"-W", "-X", "--check-hash-based-pycs"}:
            continue
        if not argument.startswith("-"):
            return argv[:at], argv[at:]
        if argument == "-" or argument.startswith("--"):
            if argument == "--check-hash-based-pycs":
                continue
            return argv, ()
        for place, letter in enumerate(argument[1:], 1):
            if letter in "mc":  # the value is the rest of the argument, or the next one
                before = (*argv[:at], argument[:place]) if place > 1 else argv[:at]
                rest = (argument[place + 1 :], *argv[at + 1 :]) if argument[place + 1 :] else argv[at + 1 :]
                return before, (f"-{letter}", *rest) if rest else ()
            if letter in WITH_VALUE:
                break
            if letter in "hV?":
                return argv, ()
    return argv, ()
