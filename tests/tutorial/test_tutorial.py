"""Run the commands of docs/guide/tutorial.md one by one in separate processes."""

import asyncio
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
import skimage
from PIL import Image, ImageChops

from support.programs.ports import free_port
from support.walkthrough import Walk, steps

ROOT = Path(__file__).parents[2]
PHOTOS = Path(skimage.__file__).parent / "data"
pytestmark = pytest.mark.slow


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    shutil.copy(PHOTOS / "astronaut.png", tmp_path / "photo.png")
    shutil.copy(PHOTOS / "chelsea.png", tmp_path / "IMG_0995.PNG")
    (tmp_path / "bin").symlink_to(ROOT / "bin")
    ports = {port: free_port() for port in (8000, 8001, 8002, 8003)}
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    environment |= {"SAFELIGHT_LOG_FORMAT": "text", "PYTHONUNBUFFERED": "1"}
    for name, port in zip(("KEYVALUESTORE", "DB", "STORAGE", "MASTER"), ports.values(), strict=True):
        environment[f"SAFELIGHT_{name}_PORT"] = str(port)
    # The page relies on the default address of the key-value store, which is different here.
    environment["SAFELIGHT_KEYVALUESTORE"] = f"localhost:{ports[8000]}"
    return Walk(tmp_path, environment, ports)


@pytest.mark.parametrize("order", ["as written", "shuffled"])
async def test_every_command_of_the_tutorial_works_as_described(walk: Walk, order: str) -> None:
    page = steps((ROOT / "docs/guide/tutorial.md").read_text())
    services, rest = page[:4], page[4:]
    assert [step.serves for step in services] == ["keyvaluestore", "db", "storage", "master"]
    async with walk:
        if order == "shuffled":
            random.shuffle(services)
            # A service waits until the store runs, so start them all at the same time.
            await asyncio.gather(*(walk.do(step) for step in services))
        else:
            for step in services:
                await walk.do(step)
        for step in rest:
            await walk.do(step)
        await inverted_exactly_once(walk)


async def inverted_exactly_once(walk: Walk) -> None:
    """Check that there is exactly one result for each of the 21 photos, and that it is the photo's inverse."""
    script = "safelight tasks --json --limit 100 > tasks.json && safelight download $(seq 1 21) --output all"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=walk.directory, env=walk.environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    results = sorted((walk.directory / "all").iterdir())
    assert len(results) == 21
    for result in results:
        source = "photo.png" if result.name.startswith("photo") else "IMG_0995.PNG"
        with Image.open(walk.directory / source) as before, Image.open(result) as after:
            expected = ImageChops.invert(before.convert("RGB"))
            assert ImageChops.difference(expected, after.convert("RGB")).getbbox() is None
