"""The whole system as real processes that can be killed and started again at the same place."""

import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from safelight.client.master import Client
from support.processes import Program, service

SERVICES = ("keyvaluestore", "db", "storage", "master")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class System:
    """Services and workers under names; each keeps its port and its data over its lives."""

    def __init__(
        self, data: Path, settings: dict[str, list[str]], environments: dict[str, dict[str, str]] | None = None
    ) -> None:
        self.data = data
        self._settings = settings
        self._environments = environments or {}
        self._stack = contextlib.AsyncExitStack()
        self.ports = {name: free_port() for name in SERVICES}
        self.running: dict[str, Program] = {}
        self.dead: list[Program] = []

    @property
    def keyvaluestore(self) -> str:
        return f"127.0.0.1:{self.ports['keyvaluestore']}"

    @property
    def master(self) -> str:
        return f"127.0.0.1:{self.ports['master']}"

    async def start(self, name: str) -> Program:
        """Start a service, or a worker (`worker-1`, …)."""
        kind = name.partition("-")[0]
        argv = [] if kind == "keyvaluestore" else [self.keyvaluestore]
        if kind in self.ports:
            argv += ["--port", str(self.ports[kind])]
        argv += ["--data", str(self.data / name), *self._settings.get(kind, [])]
        self.running[name] = await self._stack.enter_async_context(
            service(kind, *argv, env=self._environments.get(kind))
        )
        return self.running[name]

    async def kill(self, name: str) -> None:
        """Kill without warning, and wait until it is gone."""
        victim = self.running.pop(name)
        victim.send(signal.SIGKILL)
        await victim.ended()
        self.dead.append(victim)

    async def ready(self) -> None:
        """Wait until the master says that it is ready."""
        await self.running["master"].address()
        async with Client.connect(self.master) as client:
            assert await client.is_ready(wait=60.0), "the master did not become ready"

    async def aclose(self) -> None:
        for program in self.running.values():
            program.send(signal.SIGTERM)
        await self._stack.aclose()


@asynccontextmanager
async def system(
    data: Path,
    *,
    workers: int = 0,
    settings: dict[str, list[str]] | None = None,
    environments: dict[str, dict[str, str]] | None = None,
) -> AsyncIterator[System]:
    """Run the four services and some workers; settings and environments are those of each kind."""
    whole = System(data, settings or {}, environments)
    try:
        for name in (*SERVICES, *(f"worker-{n}" for n in range(workers))):
            await whole.start(name)
        await whole.ready()
        yield whole
    finally:
        await whole.aclose()
