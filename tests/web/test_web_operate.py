"""What operators do on the page."""

import pytest
from playwright.async_api import expect

from safelight.wire import State
from support.pages.browser import opened
from support.photos import photo

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
expect.set_options(timeout=45_000)


async def test_the_queue_is_paused_and_resumed_and_the_pause_outlasts_a_restart(browser, whole, client):
    async with opened(browser, whole.master) as page:
        await page.goto(f"http://{whole.master}/#/system")
        await page.get_by_role("button", name="Pause the queue").click()
        await page.get_by_role("dialog").get_by_role("button", name="Pause the queue").click()
        notice = page.get_by_text("The queue was paused on")
        await expect(notice).to_be_visible()
        task = await client.upload(photo(0, width=200), recipe="web", filename="later.png")
        await whole.kill("db")
        await whole.start("db")
        await whole.ready()
        await page.reload()
        await expect(notice).to_be_visible()
        # the worker is there, and leaves it alone
        await expect(page.get_by_role("region", name="Workers").get_by_text("Idle").first).to_be_visible()
        assert (await client.task(task.id)).state is State.WAITING
        await page.get_by_role("button", name="Resume the queue").click()
        await expect(notice).to_have_count(0)
        assert (await client.wait(task.id, timeout=45)).state is State.FINISHED
