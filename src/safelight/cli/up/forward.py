"""Merge the logs of many programs: each line starts with the name of its program, or is JSON with a field for it."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from typing import Any

from safelight.logs import JsonFormatter, TextFormatter
from safelight.untrusted.text import printable

_COLORS = {"keyvaluestore": 33, "db": 35, "storage": 34, "master": 32, "worker": 36, "services": 32, "up": 1}
_WIDTH = 13


class Forward:
    """Writes lines to stderr."""

    def __init__(self, *, json: bool, color: bool) -> None:
        self.json = json
        self._color = color

    def line(self, name: str, text: str) -> None:
        """Write one line of a program."""
        self._write(self._as_json(name, text) if self.json else self._as_text(name, text))

    def _write(self, line: str) -> None:
        with suppress(OSError):  # its reader or its terminal is gone, which must not end the services
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def several(self, name: str, text: str) -> None:
        """Write one line of a process that runs several services; the line names its service."""
        if self.json:
            line = self._fields(text)
            return self._write(json.dumps({"program": line.get("service", name)} | line))
        service, tab, rest = text.partition("\t")
        return self._write(self._as_text(service or name, rest) if tab else self._as_text(name, text))

    def handler(self) -> logging.Handler:
        """Return a handler for the log of this program."""
        return _Own(self)

    def _as_text(self, name: str, text: str) -> str:
        front = f"{name:<{_WIDTH}} |"
        if self._color:
            front = f"\x1b[{_COLORS.get(name.partition('-')[0], 0)}m{front}\x1b[0m"
        return f"{front} {printable(text)}"

    def _as_json(self, name: str, text: str) -> str:
        return json.dumps({"program": name, **self._fields(text)})

    def _fields(self, text: str) -> dict[str, Any]:
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        return fields if isinstance(fields, dict) else {"message": text}


class _Own(logging.Handler):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self._forward = forward
        self.setFormatter(JsonFormatter("up") if forward.json else TextFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._forward.line("up", self.format(record))
