"""Run Chromium without its windows, which takes half of the processor time, and open the page in it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Literal

from playwright.async_api import Browser, Page, async_playwright, expect

from support.programs.until import until

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIME_LIMIT = 90_000
"""The time limit of waits for the page in milliseconds, long enough for a busy machine."""
expect.set_options(timeout=TIME_LIMIT)
TOLERATED = ("net::ERR_", "status of 4", "status of 5", "Cross-Origin-Opener-Policy header has been ignored")
"""Console messages about a broken network, refusals and plain HTTP; any other message on the console fails a test."""


@contextlib.asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Browser]:
    """Run a browser with an empty profile."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium-headless-shell", args=[*FLAGS, *flags]
        )
        try:
            yield running
        finally:
            await running.close()


@contextlib.asynccontextmanager
async def opened(browser: Browser, address: str, **options) -> AsyncIterator[Page]:
    """Open the page in a new profile; unexpected messages on its console are errors."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
    context.set_default_timeout(TIME_LIMIT)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    try:
        await page.goto(f"http://{address}/")
        yield page
        assert [text for text in complaints if not any(known in text for known in TOLERATED)] == []
    finally:
        await context.close()


async def switch_tab(page: Page, state: Literal["hidden", "visible"]) -> None:
    """Tell the page that its tab is hidden, or visible again; without windows, no tab ever is hidden."""
    await page.evaluate(
        """(state) => {
          Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )


_KEPT = """() => new Promise((resolve) => {
  const opening = indexedDB.open("uppy-blobs");
  opening.onsuccess = () => {
    const end = (kept) => { opening.result.close(); resolve(kept); };
    const names = [...opening.result.objectStoreNames];
    if (!names.length) return end([]);
    const transaction = opening.result.transaction(names);
    const reads = names.map((name) => transaction.objectStore(name).getAll());
    transaction.oncomplete = () => end(reads.map((one) => one.result.map((record) => JSON.stringify(record))));
  };
})"""


async def kept_uploads(page: Page) -> list[list[str]]:
    """Return what each store of the browser's database has of uploads in progress: their bytes, and what is known."""
    found: list[list[str]] = await page.evaluate(_KEPT)
    return found


async def wait_upload_kept(page: Page) -> None:
    """Wait until the browser's database has an upload in progress, with its bytes."""

    async def is_kept() -> bool:
        stores = await kept_uploads(page)
        return bool(stores) and all(stores)

    # The page's `wait_for_function` would take a promise for true.
    await until(is_kept)
