"""All services in one process: `python -m safelight.allinone NAME ARGUMENTS -- NAME ARGUMENTS …`.

Each service is set up as if it ran alone: with the same flags, its own port and its own access control. Only the calls
between services are direct, since a store has the methods of its client. Services start in the order in which they need
one another and stop in the opposite order. If one of them ends, the process ends, and its supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from safelight import logs, serve, settings, tracing
from safelight.db import __main__ as db
from safelight.files.standard_streams import prepare_standard_streams
from safelight.keyvaluestore import __main__ as keyvaluestore
from safelight.master import __main__ as master
from safelight.start_failure import explained
from safelight.storage import __main__ as storage

log = logging.getLogger(__name__)

SERVICES: dict[str, Any] = {"keyvaluestore": keyvaluestore, "db": db, "storage": storage, "master": master}
"""The programs of the services, in the order in which they start."""

_USAGE = """\
usage: python -m safelight.allinone NAME [ARGUMENTS] [-- NAME [ARGUMENTS]]...

Run several services in one process. NAME is keyvaluestore, db, storage or master; the arguments are those of
`python -m safelight.NAME`. `safelight up` runs this.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the services until SIGTERM, SIGINT or an authorised POST /shutdown to any of them."""
    prepare_standard_streams()
    configs = load(sys.argv[1:] if argv is None else argv)
    first = next(iter(configs.values()))
    logs.configure("services", first.log_format, several={name: config.log_level for name, config in configs.items()})
    serve.prepare(*configs.values())
    serve.trace("services", *configs.values())
    try:
        with explained("services", *(config.data for config in configs.values())):
            asyncio.run(_run(configs))
    finally:
        tracing.flush()
    atexit.register(serve.end_at_once)


def load(argv: Sequence[str]) -> dict[str, serve.StandaloneConfig]:
    """Read the settings of each service that the arguments name; a mistake ends the program with status 2."""
    given: dict[str, list[str]] = {}
    name = None
    for argument in ("--", *argv):
        if argument == "--":
            name = None
        elif name is not None:
            given[name].append(argument)
        elif argument in SERVICES and argument not in given:
            given[name := argument] = []
        else:
            sys.stderr.write(_USAGE)
            raise SystemExit(0 if argument in ("-h", "--help") else 2)
    if not given:
        sys.stderr.write(_USAGE)
        raise SystemExit(2)
    return {
        name: settings.load(program.Config, given[name], section=name, program=f"safelight {name}")
        for name, program in SERVICES.items()
        if name in given
    }


async def _run(configs: dict[str, serve.StandaloneConfig]) -> None:
    with serve.cancelled_at_signals():
        async with running(configs) as services:
            stopping = asyncio.Event()
            serve.at_signals(stopping.set)
            for service in services.values():
                service.on_stop(stopping.set)  # by a request
                if service.stopping.is_set():
                    stopping.set()
            await stopping.wait()


@asynccontextmanager
async def running(configs: dict[str, serve.StandaloneConfig]) -> AsyncIterator[dict[str, serve.Service]]:
    """Run services that call one another directly until the context ends.

    The services are given in the order of `SERVICES`. Raises the error of a service that does not start, once those
    before it have stopped.
    """
    neighbours = serve.Neighbours()
    services = {}
    async with AsyncExitStack() as stack:
        for name, config in configs.items():
            services[name] = await stack.enter_async_context(_service(name, config, neighbours))
        yield services


@asynccontextmanager
async def _service(
    name: str, config: serve.StandaloneConfig, neighbours: serve.Neighbours
) -> AsyncIterator[serve.Service]:
    """Run one service in a task whose context names the service for log lines."""
    started: asyncio.Future[serve.Service] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def run() -> None:
        logs.service.set(name)
        settings.set_program(f"safelight {name}")
        async with serve.running(name, config, SERVICES[name].build, neighbours) as service:
            started.set_result(service)
            await leave.wait()
            log.info("%s is stopping", service.title)

    task = asyncio.create_task(run(), name=name)
    try:
        await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await task  # raises the reason why it has not started
        yield started.result()
    finally:
        leave.set()
        if not started.done():
            task.cancel()
        await asyncio.wait((task,))
        if started.done():
            task.result()


if __name__ == "__main__":
    main()
