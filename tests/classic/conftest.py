from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.programs.system import System, system


@pytest.fixture
async def running(tmp_path) -> AsyncIterator[System]:
    """Run the services as processes, with leases of one second for classic workers."""
    async with system(tmp_path, settings={"db": ["--classic-lease-duration", "1s"]}) as whole:
        yield whole
