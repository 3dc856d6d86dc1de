"""What opening the page costs: bytes, requests, and time until a person can use it.

    PYTHONPATH=tests python benchmarks/web.py [--runs 7] [--tasks 200]

Usable means: the page is drawn, knows its recipes, follows the changes, and shows the first results. Each run has an
empty cache; then one more is opened with a full one.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

from playwright.async_api import BrowserContext

from safelight.client.master import Client
from support.browser import chromium
from support.photos import photo
from support.system import system

USABLE = """() => document.querySelector(".lamp.live") && document.querySelector("#recipe option")
    && document.querySelector(".card img.shown") ? performance.now() : false"""
LOADED = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter((entry) => !entry.name.includes("/task/"))
    .map((entry) => [entry.name.slice(location.origin.length).replace(/[?]v=.*/, ""), entry.transferSize])"""


async def measure(context: BrowserContext, address: str) -> tuple[float, dict[str, int]]:
    page = await context.new_page()
    await page.goto(f"http://{address}/")
    usable = await (await page.wait_for_function(USABLE, polling="raf")).json_value()
    loaded = dict(await page.evaluate(LOADED))
    await page.close()
    return usable, loaded


async def main(runs: int, tasks: int) -> None:
    with tempfile.TemporaryDirectory() as data:
        async with system(Path(data), workers=1) as whole, chromium() as browser:
            async with Client.connect(whole.master) as client:
                made = [
                    await client.upload(
                        photo(number % 40, width=320), recipe="thumbnail", filename=f"photo-{number}.png"
                    )
                    for number in range(tasks)
                ]
                await client.wait(made[-1].id, timeout=600)
            fresh: list[float] = []
            for _ in range(runs):
                context = await browser.new_context(viewport={"width": 1280, "height": 860})
                usable, loaded = await measure(context, whole.master)
                fresh.append(usable)
                again, known = await measure(context, whole.master)
                await context.close()
    page_bytes = {name: size for name, size in loaded.items() if name == "/" or name.startswith("/web/")}
    print(f"tasks in the system        {tasks}")
    print(f"page, compressed           {sum(page_bytes.values()) / 1000:.1f} kB in {len(page_bytes)} requests")
    for name, size in sorted(page_bytes.items()):
        print(f"  {name:25}{size / 1000:.1f} kB")
    print(f"with what it asks the API  {sum(loaded.values()) / 1000:.1f} kB in {len(loaded)} requests")
    spread = f"median of {runs}; {min(fresh):.0f} to {max(fresh):.0f}"
    print(f"usable, empty cache        {statistics.median(fresh):.0f} ms ({spread})")
    print(f"usable, full cache         {again:.0f} ms, {sum(known.values()) / 1000:.1f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--tasks", type=int, default=200)
    given = parser.parse_args()
    asyncio.run(main(given.runs, given.tasks))
