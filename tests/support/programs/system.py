"""Run the whole system as real processes that can be killed and restarted with the same ports and data."""

import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from safelight.client.master import Client
from support.programs.ports import free_port
from support.programs.processes import Program, service
from support.servers.places import Loopback, Namespaces, Places

_JSON = ("--log-format", "json")

SERVICES = ("keyvaluestore", "db", "storage", "master")


class System:
    """Services and workers by name; each keeps its port and its data over restarts."""

    def __init__(
        self,
        data: Path,
        settings: dict[str, list[str]],
        environments: dict[str, dict[str, str]] | None = None,
        *,
        together: bool = False,
        places: Places | None = None,
        programs: dict[str, Sequence[str]] | None = None,
    ) -> None:
        """Describe a system. With `together`, the services are one program, `allinone`. `places` says where programs
        run.

        `programs` are modules of the tests that run a kind in place of its own module, with their first arguments.
        """
        self._programs = programs or {}
        self.places = places or Loopback()
        self.services = ("allinone",) if together else SERVICES
        self.data = data
        self._settings = settings
        self._environments = environments or {}
        self._stack = contextlib.AsyncExitStack()
        self.ports = {name: free_port() for name in SERVICES}
        self.running: dict[str, Program] = {}
        self.dead: list[Program] = []

    @property
    def keyvaluestore(self) -> str:
        return self.address("keyvaluestore")

    @property
    def master(self) -> str:
        return self.address("master")

    def address(self, name: str) -> str:
        """Return the `HOST:PORT` of a service."""
        return f"{self.places.host(name)}:{self.ports[name]}"

    async def start(self, name: str) -> Program:
        """Start a service, or a worker (`worker-1`, …)."""
        argv = self._argv(name)
        if name == "allinone":
            argv = [argument for service in SERVICES for argument in ("--", service, *self._argv(service), *_JSON)][1:]
        kind = name.partition("-")[0]
        self.running[name] = await self._stack.enter_async_context(
            service(
                kind,
                *argv,
                env=self._environments.get(kind),
                prefix=self.places.prefix(name),
                module=self._programs.get(kind),
            )
        )
        return self.running[name]

    def _argv(self, name: str) -> list[str]:
        kind = name.partition("-")[0]
        argv = [] if kind == "keyvaluestore" else [self.keyvaluestore]
        if isinstance(self.places, Namespaces):
            argv += ["--host", self.places.host(name), "--open"]
        if kind in self.ports:
            argv += ["--port", str(self.ports[kind])]
        return [*argv, "--data", str(self.data / name), *self._settings.get(name, self._settings.get(kind, []))]

    async def kill(self, name: str) -> None:
        """Kill a program with SIGKILL, and wait for its end."""
        victim = self.running.pop(name)
        victim.send(signal.SIGKILL)
        await victim.ended()
        self.dead.append(victim)

    async def ready(self) -> None:
        """Wait until the master reports that it is ready, and can be found in the key-value store."""
        await self.running[self.services[-1]].log("Master is listening on")
        async with Client.connect(self.master) as client:
            is_ready = await client.is_ready(wait=60.0)
        last = {name: [line["message"] for line in one.lines[-6:]] for name, one in self.running.items()}
        assert is_ready, f"the master did not become ready; the last lines were {last}"
        await self.running[self.services[-1]].log("Master endpoint registered")

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
    together: bool = False,
    places: Places | None = None,
    programs: dict[str, Sequence[str]] | None = None,
) -> AsyncIterator[System]:
    """Run the four services and some workers; settings are those of a program or of its kind, environments of a kind.

    With `together`, the services run in one process, `allinone`. `programs` are those of `System`.
    """
    whole = System(data, settings or {}, environments, together=together, places=places, programs=programs)
    try:
        for name in (*whole.services, *(f"worker-{n}" for n in range(workers))):
            await whole.start(name)
        await whole.ready()
        yield whole
    finally:
        await whole.aclose()
