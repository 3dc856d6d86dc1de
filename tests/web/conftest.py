from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from safelight.client.master import Client
from support.pages.browser import chromium, opened
from support.programs.system import System, system


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def whole(tmp_path_factory) -> AsyncIterator[System]:
    """Run all services and a worker as processes, with short leases."""
    settings = {"worker": ["--lease-duration", "3", "--slots", "2"], "master": ["--webhook-allow-private"]}
    async with system(tmp_path_factory.mktemp("system"), workers=1, settings=settings) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(whole) -> AsyncIterator[Client]:
    """Return a client of the system after deleting the tasks of other tests."""
    async with Client.connect(whole.master) as connected:
        while found := (await connected.tasks(limit=1000)).tasks:
            for task in found:
                await connected.delete(task.id)
        yield connected


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser, whole, client) -> AsyncIterator[Page]:
    async with opened(browser, whole.master) as shown:
        yield shown


@pytest.fixture
def directory(tmp_path) -> Path:
    """Return a directory for a test's photos."""
    path = tmp_path / "photos"
    path.mkdir()
    return path
