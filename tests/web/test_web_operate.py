"""Test the operators' tasks on the page."""

import asyncio
import json
import re
import shutil

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import expect

from safelight.wire import State
from support.pages.browser import opened
from support.pages.firefox import firefox
from support.photos import photo

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


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
        # a worker is idle, and does not take the task
        await expect(page.get_by_role("region", name="Workers").get_by_text("Idle").first).to_be_visible()
        assert (await client.task(task.id)).state is State.WAITING
        await page.get_by_role("button", name="Resume the queue").click()
        await expect(notice).to_have_count(0)
        assert (await client.wait(task.id, timeout=90)).state is State.FINISHED


async def test_a_recipe_is_paused_and_a_worker_drained_and_both_are_resumed(browser, whole, client):
    async with opened(browser, whole.master) as page:
        await page.goto(f"http://{whole.master}/#/recipes/web")
        await page.get_by_role("button", name="Pause the recipe web").click()
        await page.get_by_role("dialog").get_by_role("button", name="Pause the recipe").click()
        await expect(page.get_by_role("navigation", name="Recipes").get_by_text("paused")).to_have_count(1)
        held = await client.upload(photo(50, width=200), recipe="web", filename="held.png")
        other = await client.upload(photo(51, width=200), recipe="grayscale", filename="other.png")
        assert (await client.wait(other.id, timeout=90)).state is State.FINISHED
        assert (await client.task(held.id)).state is State.WAITING

        await page.get_by_role("link", name="System").click()
        workers = page.get_by_role("region", name="Workers")
        await workers.get_by_role("button", name="Drain the worker").click()
        await page.get_by_role("dialog").get_by_role("button", name="Drain").click()
        await expect(workers.get_by_text("Drained")).to_be_visible()
        await page.get_by_role("button", name="Resume the recipe web").click()
        await expect(page.get_by_text("The recipe web was paused on")).to_have_count(0)
        (seen,) = [each for each in (await client.summary()).workers if each.draining]
        assert seen.holding == 0
        assert (await client.task(held.id)).state is State.WAITING
        await expect(workers.get_by_text(seen.worker.id)).to_be_visible()
        await workers.get_by_role("button", name="Resume the worker").click()
        assert (await client.wait(held.id, timeout=90)).state is State.FINISHED


async def test_free_space_on_the_disk_is_shown(page, whole):
    await page.get_by_role("link", name="System").click()
    kept = page.locator(".tiles > div").filter(has_text="Photos and results")
    figures = await page.evaluate("fetch('/storage').then((answer) => answer.json())")
    disk = shutil.disk_usage(whole.data)
    assert figures["total"] == disk.total
    assert 0 < figures["free"] <= disk.total
    await expect(kept).to_contain_text(re.compile(r"[0-9.]+ [kMGT]B of [0-9.]+ [GT]B free$"))


PRESS = """((within, name) => {
  const found = [...document.querySelectorAll(`${within} button`)].find(
    (one) => (one.getAttribute("aria-label") ?? one.textContent).trim().startsWith(name));
  found?.click();
  return found !== undefined;
})"""
"""A function that presses the first button below a selector whose name begins with a text, if there is one."""
DROP = """((bytes) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
  document.querySelector("main").dispatchEvent(
    new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
})"""


async def press(page, name, within="main"):
    """Press the first button whose name begins with `name`, as soon as it exists."""
    await page.until(f"{PRESS}({json.dumps(within)}, {json.dumps(name)})")


def holds(text, within="main"):
    """Return a JavaScript expression that tells whether a part of the page contains a text."""
    return f"(document.querySelector({json.dumps(within)})?.textContent ?? '').includes({json.dumps(text)})"


async def drain_and_pause(page):
    """Drain and resume a worker, and pause and resume the queue."""
    await press(page, "Drain the worker", ".system")
    await press(page, "Drain", "dialog.confirm")
    await page.until(holds("Drained"))
    await press(page, "Resume the worker", ".system")
    await page.until(f"!{holds('Drained')}")
    await press(page, "Pause the queue")
    await press(page, "Pause the queue", "dialog.confirm")
    await page.until(holds("The queue was paused on"))
    await press(page, "Resume the queue")
    await page.until(f"!{holds('The queue was paused on')}")


async def pause_recipe(page):
    await press(page, "Pause the recipe grayscale")
    await press(page, "Pause the recipe", "dialog.confirm")
    await page.until(holds("paused", "nav[aria-label=Recipes]"))
    await press(page, "Resume the recipe grayscale")
    await page.until(f"!{holds('paused', 'nav[aria-label=Recipes]')}")


async def rename_upload(page):
    await page.until("document.querySelector('#recipe option')")
    await page.evaluate("document.querySelector('input[type=checkbox]').click()")
    await page.evaluate(f"{DROP}({list(photo(71, width=200))})")
    await press(page, "Change the name or recipe of dropped.png", ".tray")
    await page.evaluate("document.querySelector('.tray input[name=name]').value = 'renamed.png'")
    await press(page, "Apply", ".tray")
    await page.until(holds("renamed.png", ".tray"))
    await press(page, "Upload 1 photo", ".tray")
    await page.until("document.querySelector('.tray h2')?.textContent === '1 photo uploaded'")


async def test_operating_works_in_firefox(tmp_path, whole, client):
    """Pause and resume the queue and a recipe, drain and resume a worker, resend a call, rename an upload."""
    answers = [500]
    called: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        called.put_nowait(await request.read())
        return web.Response(status=answers.pop() if answers else 204)

    app = web.Application()
    app.router.add_post("/firefox", receive)
    size = {"width": 1280, "height": 860}
    async with TestServer(app) as receiver, firefox(tmp_path / "profile") as page:
        hook = str(receiver.make_url("/firefox"))
        await client.upload(photo(70, width=200), recipe="web", filename="told.png", webhook=hook)
        first = await asyncio.wait_for(called.get(), 45)
        await page.open(f"http://{whole.master}/#/system", **size)
        await press(page, f"Send again: {hook}", ".calls")
        assert await asyncio.wait_for(called.get(), 45) == first
        await drain_and_pause(page)
        await page.open(f"http://{whole.master}/#/recipes/grayscale", **size)
        await pause_recipe(page)
        await page.open(f"http://{whole.master}/#/photos", **size)
        await rename_upload(page)
        assert "renamed.png" in {task.filename for task in (await client.tasks()).tasks}
        assert page.problems == []


async def test_a_webhook_that_failed_is_shown_with_its_answer_and_sent_again(browser, whole, client):
    answers = [web.Response(status=500, text="The receiver is <b>out of order</b>.")]
    called: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        called.put_nowait(await request.read())
        return answers.pop() if answers else web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", receive)
    async with TestServer(app) as receiver, opened(browser, whole.master) as page:
        url = str(receiver.make_url("/hook"))
        task = await client.upload(photo(60, width=200), recipe="web", filename="told.png", webhook=url)
        first = await asyncio.wait_for(called.get(), 45)
        await page.goto(f"http://{whole.master}/#/system")
        row = page.get_by_role("region", name="Webhook calls").get_by_role("listitem").filter(has_text=url)
        await expect(row).to_contain_text("To be repeated")
        await expect(row).to_contain_text("500 The receiver is <b>out of order</b>.")
        await row.get_by_role("button", name="Send").click()
        assert await asyncio.wait_for(called.get(), 45) == first
        await page.reload()
        await expect(row).to_contain_text("Delivered")
        await row.get_by_role("link", name="told.png").click()
        await expect(page).to_have_url(re.compile(task.id))


async def test_all_webhook_calls_are_shown_however_many_are_new(browser, whole, client):
    calls = 0
    told = asyncio.Condition()

    async def receive(_request: web.Request) -> web.Response:
        nonlocal calls
        async with told:
            calls += 1
            told.notify_all()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", receive)
    async with TestServer(app) as receiver, opened(browser, whole.master) as page:
        url = str(receiver.make_url("/hook"))

        async def call(count: int) -> None:
            """Let webhooks be called, and wait until they are listed."""
            before = calls
            for number in range(before, before + count):
                await client.upload(photo(200 + number, width=20), recipe="thumbnail", webhook=url)
            async with asyncio.timeout(60), told:
                await told.wait_for(lambda: calls == before + count)
            async with asyncio.timeout(60):
                while [one.url for one in (await client.webhook_calls(limit=1000)).calls].count(url) < calls:
                    pass

        region = page.get_by_role("region", name="Webhook calls")
        rows = region.get_by_role("listitem").filter(has_text=url)
        for new, counts in ((25, (20, 25)), (45, (40, 60, 70))):
            await page.get_by_role("link", name="Tasks", exact=True).click()
            await call(new)
            await page.get_by_role("link", name="System", exact=True).click()
            await expect(rows).to_have_count(counts[0])
            for count in counts[1:]:
                await region.get_by_role("button", name="Show more").click()
                await expect(rows).to_have_count(count)
