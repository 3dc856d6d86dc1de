from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from safelight.client.master import Client
from support.programs.processes import Program
from support.programs.system import System, system

Start = Callable[..., Awaitable[Program]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Run the four services; tests start the workers that they need."""
    async with system(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(whole: System) -> AsyncIterator[Client]:
    async with Client.connect(whole.master) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def start(whole: System) -> AsyncIterator[Start]:
    """Return a function that starts a worker with one slot and the given arguments; workers end with the test."""
    names: list[str] = []

    async def start_worker(*argv: str) -> Program:
        names.append(f"worker-{len(names)}")
        whole._settings["worker"] = ["--slots", "1", *argv]
        return await whole.start(names[-1])

    yield start_worker
    for name in names:
        await whole.kill(name)
