"""Test the page below a path of a public address: all of its requests stay below that path."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from access.tenants import Api
from support.pages.browser import chromium, opened
from support.photos import photo
from support.programs.ports import free_port

pytestmark = pytest.mark.slow


async def test_the_page_works_below_a_path(plane, http, tmp_path):
    port = free_port()
    below = f"127.0.0.1:{port}/photos/ours"
    await plane.start_all(master={"port": port, "public_url": f"http://{below}"})
    await plane.start("worker", slots=1, isolation="thread")
    root = Api(http, f"http://{below}", plane.key)
    made = await root.call("POST", "/keys", {"name": "me", "scopes": ["upload", "read", "operate", "administer"]})
    (tmp_path / "one.png").write_bytes(photo(1, width=200))
    async with chromium() as browser, opened(browser, below) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.get_by_label("API key", exact=True).fill(made["token"])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_label("Choose photos").set_input_files(tmp_path / "one.png")
        await expect(page.locator(".card img.shown")).to_have_count(1)
        await page.wait_for_function("() => navigator.serviceWorker.controller !== null")
        scope = await page.evaluate("navigator.serviceWorker.ready.then((one) => one.scope)")
        assert scope == f"http://{below}/"
        manifest = await page.evaluate("document.querySelector('link[rel=manifest]').href")
        start = (await (await page.request.get(manifest)).json())["start_url"]
        assert await page.evaluate("([text, base]) => new URL(text, base).href", [start, manifest]) == scope
        await page.context.set_offline(True)
        await page.reload()
        await expect(page.get_by_role("heading", name="Add your photos")).to_be_visible()
        await page.context.set_offline(False)
        for view in ("Tasks", "Batches", "Recipes", "System"):
            await page.get_by_role("link", name=view, exact=True).click()
            await expect(page.get_by_role("heading", name=view).first).to_be_visible()
        assert asked and all(url.startswith((f"http://{below}/", "blob:")) for url in asked)
