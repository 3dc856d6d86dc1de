"""Test the upload of a thousand files to a server that stops in the middle."""

import asyncio
import re
from pathlib import Path

import pytest
from PIL import Image

from safelight.client.master import Client
from support.photos import photo
from support.programs.command import terminal
from support.programs.system import system

pytestmark = pytest.mark.slow
MANY, DIFFERENT = 1000, 100


async def test_a_thousand_files_survive_a_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    wanted = [f"{number // 100}/{number}" for number in range(MANY)]
    different = [photo(number, width=40) for number in range(DIFFERENT)]
    for number, name in enumerate(wanted):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(different[number % DIFFERENT])  # the others reuse results
    results = tmp_path / "results"
    argv = ("upload", tmp_path / "photos", "-r", "thumbnail", "-o", results)
    async with system(tmp_path / "data", workers=1) as whole:
        with terminal(*argv, SAFELIGHT_MASTER=whole.master, NO_COLOR="1") as shown:
            some = re.compile(r"\b[1-9][0-9]{2}/1000")
            await asyncio.to_thread(shown.until, lambda text: some.search(text[-4000:]) is not None)
            await whole.kill("master")
            assert len(list(results.rglob("*.webp"))) < MANY, "the master was killed too late for this test"
            await whole.start("master")
            await whole.ready()
            assert await asyncio.to_thread(shown.ended) == 0, shown.shown[-2000:]
        async with Client.connect(whole.master) as client:
            tasks = {state: held for state, held in (await client.summary()).tasks.items() if held}
    assert tasks == {"finished": MANY}, "each photo must be uploaded once"
    saved = {str(path.relative_to(results)) for path in results.rglob("*.*")}
    assert saved == {f"{name}.image.webp" for name in wanted}
    for name in wanted[::50]:
        with Image.open(results / f"{name}.image.webp") as made:
            made.load()
    assert f"{MANY:,} photos finished" in shown.shown
    assert not re.search("\x1b\\[[0-9;]*3[0-9]", shown.shown), "NO_COLOR must turn colours off"
