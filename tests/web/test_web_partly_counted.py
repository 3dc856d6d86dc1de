"""Test the page on a system with more tasks than are counted, of which only older ones match."""

import pytest
from playwright.async_api import expect

from master.conftest import System
from safelight.client.db import DbClient
from safelight.db.calls.tasks import batches, searching
from safelight.wire import TaskFilter
from support.pages.browser import chromium, opened
from support.tasks import new_task

pytestmark = pytest.mark.slow


async def test_tasks_that_were_not_counted_can_be_changed(tmp_path, monkeypatch):
    for module in (batches, searching):
        monkeypatch.setattr(module, "SEARCHED", 3)
    async with System.at(tmp_path) as system, DbClient.connect(system.address("db")) as db, chromium() as browser:
        await db.create([new_task(batch="old", recipe="web") for _ in range(5)])
        await db.create([new_task(batch="new", recipe="invert") for _ in range(4)])
        address = (await system.master()).url.removeprefix("http://")
        async with opened(browser, address) as page:
            await page.goto(f"http://{address}/#/tasks?batch=old&state=waiting")
            await page.get_by_role("button", name="Select all that match").click()
            bar = page.get_by_role("region", name="Selection")
            await expect(bar.get_by_role("status")).to_have_text("0 or more selected")
            assert await bar.get_by_role("button", name="Retry").count() == 0, "no waiting task can be retried"
            await bar.get_by_role("button", name="Cancel").click()
            question = page.get_by_role("dialog")
            await expect(question).to_contain_text("Cancel all photos that match?")
            await question.get_by_role("button", name="Cancel", exact=True).last.click()
            await expect(page.get_by_text("5 photos cancelled.")).to_be_visible()
            await page.get_by_role("link", name="Batches").click()
            for name in ("new", "old"):
                batch = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name))
                await expect(batch).to_contain_text("4 photos")
                await expect(batch).to_contain_text("The counts cover the newest 100,000.")
                await expect(batch.get_by_role("link", name="Download ZIP")).to_be_visible()
        states = [task.state.name for task in (await db.find(TaskFilter(batch="old").page())).tasks]
        assert states == ["CANCELLED"] * 5
