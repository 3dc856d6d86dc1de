"""Test that photos wait on the page while their tenant's queue is full, for as long as that takes."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from access.tenants import Api, keyed_tenant
from support.pages.browser import chromium, opened
from support.photos import photo

pytestmark = pytest.mark.slow

MANY = 50
"""More refusals than the attempts after which the page gives up on a broken server."""
LONGEST_DELAY = 15_000
"""Milliseconds between attempts in the end."""


@pytest.fixture
async def root(keyed, http) -> Api:
    return Api(http, keyed.url("master"), keyed.key)


async def test_refused_photos_wait_for_room_however_often_they_are_refused(keyed, root, tmp_path):
    limited = await keyed_tenant(root, "limited", waiting=1)
    photos = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(photos):
        path.write_bytes(photo(number))
    async with limited.client() as client, chromium() as browser, opened(browser, root.url[7:]) as page:
        await client.upload(photo(9), filename="before.png")
        await page.clock.install()
        await page.reload()
        await page.get_by_label("API key", exact=True).fill(limited.token)
        await page.get_by_role("button", name="Sign in").click()
        statuses: list[int] = []
        page.on("response", lambda answer: statuses.append(answer.status) if answer.url.endswith("/uploads") else None)
        await page.get_by_label("Choose photos").set_input_files(photos)
        tray = page.get_by_role("region", name="Uploads")
        async with asyncio.timeout(60):
            while statuses.count(429) < len(photos) * MANY:
                await page.clock.fast_forward(LONGEST_DELAY)
        await expect(tray).to_contain_text("and its limit is 1. Try again later. The page tries again by itself.")
        await expect(tray.locator("li")).to_have_count(len(photos))
        assert await tray.locator("li.failed").count() == 0
        await root.call("PUT", "/tenants/limited", {"name": "", "weight": 1, "limits": {}, "disabled": False})
        async with asyncio.timeout(60):
            while statuses.count(201) < len(photos):
                await page.clock.fast_forward(LONGEST_DELAY)
        await expect(page.get_by_text("4 photos uploaded", exact=True)).to_be_visible()
        assert await tray.get_by_text("The page tries again by itself.").count() == 0
        assert len((await client.tasks()).tasks) == 1 + len(photos)
