"""Choose the ports of `safelight up`, and refuse those that it cannot listen on."""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
import socket
from typing import NoReturn

from safelight import settings
from safelight.access.connections.listener import listen
from safelight.cli.printing import complain
from safelight.errors import EXIT_STATUS, Code
from safelight.service import in_url

LAST_PORT = 65_535
_UNASSIGNED = range(10_000, 32_768)
"""Ports outside the system's ephemeral range, so that none is taken before its service listens."""


def ports_of(first: int, workers: int, masters: int) -> list[int]:
    """Return ports for the four services, the workers and several masters' own: from `first`, or free ones if it is 0.

    The masters' own ports begin at `first` + 100, unless there are so many workers.
    """
    if first:
        own = first + max(101, 10 + workers)
        return [*range(first, first + 4), *range(first + 10, first + 10 + workers), *range(own, own + masters)]
    free = (port for port in random.sample(_UNASSIGNED, len(_UNASSIGNED)) if _is_free(port))
    return list(itertools.islice(free, 4 + workers + masters))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


async def _taken(host: str, ports: dict[str, int]) -> tuple[str, int, OSError] | None:
    """Return the first program and port that cannot be listened on, and why."""
    for name, port in ports.items():
        try:
            for listener in await listen(host, port):
                listener.close()
        except OSError as error:
            return name, port, error
    return None


def check_free(host: str, ports: dict[str, int]) -> None:
    """End with an error if another program listens on one of the ports, which would answer in our place.

    A host that is not this machine ends with an error, too.
    """
    if (taken := asyncio.run(_taken(host, ports))) is None:
        return
    name, port, error = taken
    sentence = f"{name} cannot listen on {in_url(host)}:{port}: {error.strerror}."
    if error.errno == errno.EADDRINUSE:
        refuse(f"{sentence} Stop what uses the port, or give another --port or --host.")
    elif error.errno == errno.EACCES:
        refuse(f"{sentence} Give another --port.")
    settings.fail(f"{sentence} Give --host an address of this machine.")


def refuse(sentence: str) -> NoReturn:
    """End the program with an error, since something else uses what it needs."""
    complain(sentence, program="safelight up")
    raise SystemExit(EXIT_STATUS[Code.CONFLICT])
