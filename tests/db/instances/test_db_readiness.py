"""Test that db says that it is not ready while PostgreSQL cannot be reached, and why."""

from __future__ import annotations

import pytest

from safelight import serve
from safelight.db.__main__ import Config, build
from support.readiness import away_and_back
from support.servers import postgres

pytestmark = pytest.mark.slow


async def test_db_is_not_ready_while_postgresql_is_away(tmp_path):
    with postgres.server(fsync=True) as server:
        config = Config(port=0, data=str(tmp_path), store=await server.empty())
        async with serve.running("db", config, build) as db:
            said = await away_and_back(db.url, "postgresql", stop=server.stop, start=server.start)
    assert "connection refused" in said
