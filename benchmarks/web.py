"""Measure what opening the page costs: bytes, requests, and the time until a person can use it.

    PYTHONPATH=tests python -m benchmarks.web [--runs 7] [--tasks 200] [--many 10000]

The page is usable when it is drawn, has loaded its recipes, follows the changes, and shows the first results. Each run
has an empty cache; one more run then has a full one. At the end the system holds many tasks, and the program scrolls
through the whole gallery and the whole list. It prints the page's longest tasks, by the clock and in processor time
(which other load on the machine does not lengthen), and the memory that the page's scripts hold.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext

from safelight.client.master import Client
from support.many import make_many
from support.pages.browser import chromium
from support.photos import photo
from support.programs.system import system

VIEWS = ("photos", "tasks")
USABLE = """() => document.querySelector(".lamp.live") && document.querySelector("#recipe option")
    && document.querySelector(".card img.shown") ? performance.now() : false"""
LOADED = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter((entry) => !entry.name.includes("/task/"))
    .map((entry) => [entry.name.slice(location.origin.length).replace(/[?]v=.*/, ""), entry.transferSize])"""

SCROLL = """async ({ most, name }) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const deadline = performance.now() + most;
  while (performance.now() < deadline) {
    scrollBy(0, 1500);
    await frame();
    const seen = [...document.querySelectorAll(".name, .photo a")].some((one) => one.textContent === name);
    if (seen) return true;
  }
  return false;
}"""
MOST = 240_000
"""Milliseconds after which scrolling counts as failed."""


def longest(events: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the longest tasks of the page's main thread, in milliseconds by the clock and of processor time."""
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        event
        for event in events
        if event["name"] == "ThreadControllerImpl::RunTask" and (event["pid"], event["tid"]) in threads
    ]
    clock, processor = (max(event.get(key, 0) for event in tasks) / 1000 for key in ("dur", "tdur"))
    return clock, processor


async def scroll(browser: Browser, address: str, view: str, oldest: str) -> str:
    """Scroll through a view to its oldest task; return a text with the cost."""
    context = await browser.new_context(viewport={"width": 1280, "height": 860})
    page = await context.new_page()
    await browser.start_tracing(page=page, categories=["toplevel"])
    await page.goto(f"http://{address}/#/{view}")
    await page.locator(".card, .table .row").first.wait_for()
    came = await page.evaluate(SCROLL, {"most": MOST, "name": oldest})
    clock, processor = longest(json.loads(await browser.stop_tracing())["traceEvents"])
    session = await context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    heap = (await session.send("Runtime.getHeapUsage"))["usedSize"]
    nodes = await page.evaluate("document.querySelectorAll('*').length")
    await context.close()
    reached = "" if came else " (did not reach the end)"
    tasks = f"longest task {clock:.0f} ms by the clock, {processor:.0f} ms of processor time"
    return f"{tasks}, heap {heap / 1e6:.1f} MB, {nodes} elements{reached}"


async def measure(context: BrowserContext, address: str) -> tuple[float, dict[str, int]]:
    page = await context.new_page()
    await page.goto(f"http://{address}/")
    usable = await (await page.wait_for_function(USABLE, polling="raf")).json_value()
    loaded = dict(await page.evaluate(LOADED))
    await page.close()
    return usable, loaded


async def main(runs: int, tasks: int, many: int) -> None:
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
            await whole.kill("worker-0")
            await make_many(whole, finished=many, batch="many")
            scrolled = {
                view: await scroll(browser, whole.master, f"{view}?batch=many", "photo-0.png") for view in VIEWS
            }
    page_bytes = {name: size for name, size in loaded.items() if name == "/" or name.startswith("/web/")}
    print(f"tasks in the system        {tasks}")
    print(f"page, compressed           {sum(page_bytes.values()) / 1000:.1f} kB in {len(page_bytes)} requests")
    for name, size in sorted(page_bytes.items()):
        print(f"  {name:25}{size / 1000:.1f} kB")
    print(f"with what it asks the API  {sum(loaded.values()) / 1000:.1f} kB in {len(loaded)} requests")
    spread = f"median of {runs}; {min(fresh):.0f} to {max(fresh):.0f}"
    print(f"usable, empty cache        {statistics.median(fresh):.0f} ms ({spread})")
    print(f"usable, full cache         {again:.0f} ms, {sum(known.values()) / 1000:.1f} kB")
    for view, cost in scrolled.items():
        print(f"{many} {view:20}{cost}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--many", type=int, default=10_000)
    given = parser.parse_args()
    asyncio.run(main(given.runs, given.tasks, given.many))
