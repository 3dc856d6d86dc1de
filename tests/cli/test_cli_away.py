"""A thousand photos, and a server that goes away in the middle."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from safelight.client.master import Client
from support.command import terminal
from support.photos import photo
from support.system import system

pytestmark = pytest.mark.slow
MANY = 1000


async def test_a_thousand_photos_survive_a_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(photo(1, width=40))
    async with system(tmp_path / "data") as whole:
        with terminal("upload", tmp_path / "one.png", "-n", MANY, SAFELIGHT_MASTER=whole.master, NO_COLOR="1") as shown:
            some = re.compile(r"\b[1-9][0-9]{2}/1000")
            await asyncio.to_thread(shown.until, lambda text: some.search(text) is not None)
            await whole.kill("master")
            gone = time.monotonic()
            await whole.start("master")
            await whole.ready()
            assert await asyncio.to_thread(shown.ended) == 0, shown.shown[-2000:]
        async with Client.connect(whole.master) as client:
            assert (await client.summary()).tasks["waiting"] == MANY
    assert f"Uploaded {MANY:,} photos" in shown.shown
    assert time.monotonic() - gone < 120
    assert not re.search("\x1b\\[[0-9;]*3[0-9]", shown.shown), "no colours where NO_COLOR is set"
