"""Run the whole system with `safelight up`, on free ports and with temporary data."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.support.cost import Cost, costs, counting


class Running:
    """A running system: the `host:port` of each service, the data directory, and the costs."""

    def __init__(self, where: dict[str, str], data: str, pid: int, environment: dict[str, str]) -> None:
        self.where = where
        self.master = where["master"]
        self.data = data
        self._pid = pid
        self._environment = environment

    def costs(self) -> dict[str, Cost]:
        """Return the costs so far by program."""
        return costs(self._pid, self._environment)


@asynccontextmanager
async def running(*argv: str) -> AsyncIterator[str]:
    """Run the system with further arguments for `safelight up`; yield the master's `host:port` when all is ready."""
    async with system(*argv) as found:
        yield found.master


def _environment(tree: Path | None) -> dict[str, str]:
    return counting() | ({} if tree is None else {"PYTHONPATH": str(tree.resolve() / "src")})


@asynccontextmanager
async def system(*argv: str, tree: Path | None = None) -> AsyncIterator[Running]:
    """Run the system from this checkout, or from `tree`, which needs the same libraries, and count its flushes."""
    environment = _environment(tree)
    with tempfile.TemporaryDirectory(prefix="safelight-benchmark-") as data:
        command = (sys.executable, "-m", "safelight.cli", "up", "--port", "0", "--json", "--data", data, *argv)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        assert process.stdout is not None
        try:
            yield Running(json.loads(await process.stdout.readline()), data, process.pid, environment)
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


class OnServers:
    """A system on the servers of distributed backends: the `host:port` of its master. Its costs are not counted."""

    def __init__(self, master: str) -> None:
        self.master = master

    def costs(self) -> dict[str, Cost]:
        """Return an empty mapping."""
        return {}


@asynccontextmanager
async def on_servers(data: Path) -> AsyncIterator[OnServers]:
    """Run one of each service and a worker on PostgreSQL, etcd and SeaweedFS; PYTHONPATH must name `tests`."""
    from support.servers.cluster import KINDS, Cluster  # noqa: PLC0415 - imported only when it is needed

    whole = Cluster(data, dict.fromkeys(KINDS, 1), {})
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, whole.postgres.directory, ignore_errors=True)
        stack.push_async_callback(whole.close)
        await whole.open()
        yield OnServers(whole.addresses("master"))
