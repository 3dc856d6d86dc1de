"""Logs: text on a terminal, one JSON object per line elsewhere.

Log a sentence for people and, in `extra`, fields for programs: `log.info("Listening", extra={"port": 8001})`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Literal

import msgspec

from safelight.errors import escaped
from safelight.untrusted.text import printable, printable_json, printable_lines

service: ContextVar[str] = ContextVar("service", default="")
"""The service that runs in this context, if several share a process."""

Format = Literal["auto", "text", "json"]
Level = Literal["debug", "info", "warning", "error"]
Levels = Mapping[str, Level]
"""The level of each service of a process."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


_SERVICES = frozenset({"keyvaluestore", "db", "storage", "master", "worker"})


_SPARING = 60.0
"""Seconds between two lines of `Sparing`."""


class Sparing:
    """Logs what may fail every second for days: once a minute, because the log may be on a disk that is full.

    What happens in between is logged at debug level.
    """

    def __init__(self, log: logging.Logger, level: int) -> None:
        self._log = log
        self._level = level
        self._next = float("-inf")

    def __call__(self, message: str, *values: object) -> None:
        """Log a message, whose values are formatted into it."""
        due = (now := time.monotonic()) >= self._next
        self._next = now + _SPARING if due else self._next
        self._log.log(self._level if due else logging.DEBUG, message, *values)


def service_of(record: logging.LogRecord, default: str) -> str:
    """Return the service of a record: its logger's, or the one that runs in this context."""
    package, _, rest = record.name.partition(".")
    name = rest.partition(".")[0]
    return name if package == "safelight" and name in _SERVICES else service.get() or default


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _OWN}


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time (RFC 3339, UTC), level, service, message, extra fields, and traceback if any."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": moment, "level": record.levelname.lower(), "service": service_of(record, self._service)}
        line |= {"logger": record.name, "message": record.getMessage()} | _fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # The name of a file may not be UTF-8.
        line = {name: escaped(value) if isinstance(value, str) else value for name, value in line.items()}
        return printable_json(msgspec.json.encode(line, enc_hook=_text).decode())


def _text(value: object) -> str:
    return escaped(str(value))


class TextFormatter(logging.Formatter):
    """Formats a record as text: the level unless it is info, the sentence, and the extra fields.

    With `named`, each line has its service and a tab in front.
    """

    def __init__(self, *, named: bool = False) -> None:
        super().__init__()
        self._named = named

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items())
        text = printable(f"{level}{record.getMessage()}" + (f"  [{fields}]" if fields else ""))
        if record.exc_info:
            text += "\n" + printable_lines(self.formatException(record.exc_info))
        if self._named:
            front = f"{service_of(record, '')}\t"
            text = front + text.replace("\n", f"\n{front}")
        return text


_shown_to_people = False


def each(log: logging.Logger, message: str, *values: object, **fields: object) -> None:
    """Log an event of a single photo: at level `info` in text logs, at `debug` in JSON logs.

    In JSON logs, a line for each photo would cost more than all other work of the event loops.
    """
    log.log(logging.INFO if _shown_to_people else logging.DEBUG, message, *values, extra=fields)


def configure(name: str, format: Format = "auto", level: Level = "info", *, several: Levels | None = None) -> None:
    """Send all logs of this process to stderr.

    If it runs `several` services, each line names its service, and each service has its own level.
    """
    global _shown_to_people  # noqa: PLW0603 - the logs of a process are configured once
    handler = logging.StreamHandler(sys.stderr)
    _shown_to_people = text = format == "text" or (format == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter(named=bool(several)) if text else JsonFormatter(name))
    numbers = {service: logging.getLevelNamesMapping()[each.upper()] for service, each in (several or {}).items()}
    lowest = min(numbers.values(), default=logging.getLevelNamesMapping()[level.upper()])
    handler.addFilter(lambda record: record.levelno >= numbers.get(service_of(record, name), lowest))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(lowest)
    logging.getLogger("asyncio").setLevel(max(root.level, logging.WARNING))
    logging.getLogger("aiohttp.server").addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    """Filter out aiohttp's records about malformed requests: they were answered with 400, and may be many."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or "BadHttpMessage" not in {base.__name__ for base in kind.__mro__}
