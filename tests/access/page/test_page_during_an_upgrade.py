"""Test the page while masters of two versions answer: it works, and the browser keeps no file under a wrong version."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from playwright.async_api import expect

import safelight.web
from support.pages.browser import chromium, opened

STATIC = safelight.web._STATIC
EARLIER = b"\n/* earlier */"
INSTALLED = """async () => {
  const { installing, waiting, active } = await navigator.serviceWorker.register("service-worker.js");
  const worker = installing ?? waiting ?? active;
  const over = () => ["activated", "redundant"].includes(worker.state);
  while (!over()) await new Promise((changed) => worker.addEventListener("statechange", changed, { once: true }));
  return worker.state;
}"""
"""An expression that installs the service worker and tells how that ended."""
KEPT = """async () => {
  const texts = [];
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) texts.push(await (await cache.match(request)).text());
  }
  return texts;
}"""
"""An expression for the files in the browser's caches."""


def version(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:12]


@pytest.fixture
def earlier(tmp_path):
    """Build an earlier version of the page, with another script."""
    made = shutil.copytree(STATIC, tmp_path / "earlier")
    versions = {}
    for name, changed in (("app.js", EARLIER), ("index.html", b"")):
        before, now = (STATIC / name).read_bytes(), (made / name).read_bytes() + changed
        (made / name).write_bytes(now)
        versions[version(before)] = version(now)
        for user in ("index.html", "service-worker.js"):
            text = (made / user).read_text()
            (made / user).write_text(text.replace(version(before), version(now)))
    return made


@pytest.fixture
async def masters(plane, earlier, monkeypatch) -> tuple[str, str]:
    """Run a master with the earlier page and one with the current page; return their addresses."""
    monkeypatch.setattr(safelight.web, "_STATIC", earlier)
    await plane.start_all()
    before = plane.url("master")
    monkeypatch.setattr(safelight.web, "_STATIC", STATIC)
    return before, (await plane.start("master")).url


@asynccontextmanager
async def between(http, before: str, now: str, stale: set[str]) -> AsyncIterator[str]:
    """Run a proxy before both masters, which passes the paths `stale` to the earlier one; yield its address."""

    async def forward(request: web.Request) -> web.StreamResponse:
        target = before if request.path in stale else now
        async with http.request(
            request.method, target + request.raw_path, headers=request.headers, data=await request.read() or None
        ) as answer:
            dropped = ("Content-Length", "Transfer-Encoding")
            headers = {name: value for name, value in answer.headers.items() if name not in dropped}
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_only_the_file_of_a_version_is_kept_under_its_address(masters, http):
    before, now = masters
    script = version((STATIC / "app.js").read_bytes())
    for address, kept in (
        (f"{now}/web/app.js?v={script}", True), (f"{before}/web/app.js?v={script}", False),
        (f"{now}/web/app.js?v=", False), (f"{now}/web/app.js", False),
    ):  # fmt: skip
        async with http.get(address) as answer:
            assert answer.status == 200
            assert ("immutable" in answer.headers["Cache-Control"]) == kept, address
            assert ("no-cache" in answer.headers["Cache-Control"]) != kept, address


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/web/app.js", "/"], ids=["script", "page"])
async def test_the_page_works_and_nothing_of_another_version_stays(masters, http, path):
    stale = {path}
    async with (
        between(http, *masters, stale) as address,
        chromium() as browser,
        opened(browser, address, bypass_csp=True) as page,
    ):
        await expect(page.get_by_role("heading", name="Add your photos")).to_be_visible()
        assert await page.evaluate(INSTALLED) == "redundant"
        assert await page.evaluate(KEPT) == []
        stale.clear()
        await page.reload()
        assert await page.evaluate(INSTALLED) == "activated"
        names = ("index.html", "app.js", "style.css", "icon.svg")
        assert sorted(await page.evaluate(KEPT)) == sorted((STATIC / name).read_text() for name in names)
        await page.context.set_offline(True)
        await page.reload()
        await expect(page.get_by_role("heading", name="Add your photos")).to_be_visible()
