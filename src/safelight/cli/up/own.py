"""What the programs of `safelight up` are given by themselves, in their tables of the settings file or in variables.

It counts more than what `safelight up` passes on to all of them, as it does when a program is started alone.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from safelight import settings

log = logging.getLogger("up")

_IN_VAIN = ("host", "port", "log_format")
"""Settings that everything has from `safelight up`, which must know where its programs are and read what they log."""


class Own:
    """The settings that single programs are given. `path` is the settings file."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._table = settings.read_file(path) if path else {}

    def _given(self, name: str, program: str) -> tuple[str, Any] | None:
        return settings.own(name, program, self._table, self._path)

    def flags(self, program: str, passed: dict[str, str | None]) -> list[str]:
        """Return the flags for those settings that the program is not given by itself. None is a flag without value."""
        left = {name: value for name, value in passed.items() if not self._given(name, program)}
        flags = {f"--{name.replace('_', '-')}": value for name, value in left.items()}
        return [flag if value is None else f"{flag}={value}" for flag, value in flags.items()]

    def data(self, program: str, name: str, root: str) -> Path:
        """Return the data directory of one program, below `root` by default. There may be several masters and workers.

        Each of several has a directory of its own, with its name.
        """
        own = self._given("data", program)
        if own is None:
            return Path(root, name)
        return Path(str(own[1])) if name == program else Path(str(own[1]), name)

    def drain(self, program: str, otherwise: float) -> float:
        """Return how many seconds the program may take to end what is in progress; `up` may pass on `otherwise`."""
        own = self._given("drain", program)
        return otherwise if own is None else settings.seconds(*own)

    def warn(self) -> None:
        """Log a warning for each setting that has no effect."""
        for program in settings.PROGRAMS:
            for name in _IN_VAIN if program != "up" else ():
                if own := self._given(name, program):
                    log.warning("%s has no effect: safelight up gives each program its %s", own[0], name)
