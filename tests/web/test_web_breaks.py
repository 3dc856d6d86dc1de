"""Test breaks while the page is open: connections, the page itself and workers; and a thousand tasks."""

import asyncio
import hashlib
import re
import time

import pytest
import pytest_asyncio
from playwright.async_api import expect

from safelight.wire import State
from support.broken_network import network
from support.many import make_many
from support.pages.browser import opened, wait_upload_kept
from support.photos import photo
from support.programs.until import until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture
def large(directory):
    """Return a photo that is larger than all buffers on the way."""
    path = directory / "large.tif"
    path.write_bytes(photo(0, width=2400, kind="TIFF"))
    return path


@pytest_asyncio.fixture(loop_scope="module")
async def between(whole):
    """Run a network between the page and the master that can break."""
    async with network(whole.master) as relay:
        yield relay


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser, client, between):
    async with opened(browser, between.address) as shown:
        yield shown


async def start_upload(page, between, path):
    """Start an upload, and hold the network when a part of it has arrived."""
    between.hold(2_000_000)
    await page.get_by_label("Choose photos").set_input_files(path)
    await expect(page.locator(".tray li")).to_contain_text(re.compile("[1-9][0-9]* %"))


async def arrived(client, path):
    async def one():
        return len((await client.tasks()).tasks) >= 1

    await until(one, timeout=90)
    tasks = (await client.tasks()).tasks
    assert len(tasks) == 1
    assert tasks[0].input.digest == hashlib.sha256(path.read_bytes()).hexdigest()


async def test_an_upload_survives_a_network_cut(page, client, between, large):
    await start_upload(page, between, large)
    between.reset()
    between.flow()
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(1)
    await arrived(client, large)


async def test_an_upload_is_paused_and_resumed(page, client, between, large):
    await start_upload(page, between, large)
    await page.get_by_role("button", name="Pause all").click()
    await expect(page.locator(".tray li")).to_contain_text("Paused")
    between.flow()
    await page.get_by_role("button", name="Resume all").click()
    await expect(page.get_by_text("1 photo uploaded", exact=True)).to_be_visible()
    await arrived(client, large)


async def test_an_upload_survives_a_reload_of_the_page(page, client, between, large):
    await start_upload(page, between, large)
    await wait_upload_kept(page)
    await page.reload()
    between.flow()
    await expect(page.get_by_text("Continuing the uploads from before the reload.")).to_be_visible()
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(1)
    await arrived(client, large)


async def test_photos_added_to_restored_uploads_get_a_batch(page, client, between, large, directory):
    (directory / "small.png").write_bytes(photo(1, width=120))
    await start_upload(page, between, large)
    await wait_upload_kept(page)
    await page.reload()
    await expect(page.get_by_text("Continuing the uploads from before the reload.")).to_be_visible()
    await page.get_by_label("Choose photos").set_input_files(directory / "small.png")
    between.flow()
    await expect(page.get_by_text("2 photos uploaded", exact=True)).to_be_visible()
    batches = {task.filename: task.batch for task in (await client.tasks()).tasks}
    assert set(batches) == {"large.tif", "small.png"}
    assert all(batches.values())


async def only_reading(route):
    answer = await route.fetch()
    await route.fulfill(response=answer, json={**await answer.json(), "scopes": ["read"]})


async def test_a_worker_killed_while_the_page_watches(page, whole, client):
    await page.get_by_role("link", name="Tasks", exact=True).click()
    slow = {"outputs": {"image": {"operations": [{"op": "blur", "sigma": 90}], "format": "avif", "effort": 10}}}
    await client.upload(photo(4, width=3600, kind="JPEG"), recipe=slow, filename="heavy.jpg")
    row = page.get_by_role("row").filter(has_text="heavy.jpg")
    working, quarantined = row.get_by_text("Working"), row.get_by_text("Quarantined")
    for _ in range(5):  # a kill before the worker has begun is not charged
        await expect(working.or_(quarantined)).to_be_visible()
        if await quarantined.count():
            break
        await whole.kill("worker-0")
        await expect(working).to_have_count(0)
        await whole.start("worker-0")
    await expect(quarantined).to_be_visible()
    await page.get_by_role("link", name="System").click()
    section = page.get_by_role("region", name="In quarantine")
    await expect(section).to_contain_text("2 deaths")
    assert (await client.tasks()).tasks[0].failure.detail in await section.inner_text()
    await page.route("**/session", only_reading)
    await page.reload()
    await expect(section).to_contain_text("2 deaths")
    await expect(section.get_by_role("button")).to_have_count(0)
    await page.unroute("**/session")
    await page.reload()
    await section.get_by_role("button", name="Release").click()
    await expect(section).to_have_count(0)
    task = (await client.tasks()).tasks[0]
    assert task.state in (State.WAITING, State.WORKING)
    await client.cancel(task.id)


async def test_a_thousand_tasks(page, whole, client):
    await whole.kill("worker-0")
    try:
        await page.get_by_role("link", name="Tasks", exact=True).click()
        await make_many(whole, waiting=1000)
        await expect(page.get_by_text("photo-999.png")).to_be_visible()
        asked = await page.evaluate("performance.getEntriesByType('resource').length")
        assert asked < 60
        oldest = page.get_by_text("photo-0.png", exact=True)
        async with asyncio.timeout(90):
            while not await oldest.is_visible():  # scroll to the end, frame by frame
                await page.evaluate(
                    "new Promise((done) => (scrollTo(0, document.body.scrollHeight), requestAnimationFrame(done)))"
                )
        assert await page.locator(".virtual .row").count() < 80
        start = time.monotonic()
        for place in range(0, 60_000, 3000):
            await page.evaluate(f"new Promise((done) => (scrollTo(0, {place}), requestAnimationFrame(done)))")
        assert time.monotonic() - start < 30
        assert await page.locator(".virtual .row").count() < 80
        await back_from_a_task(page, scrolled=40_000)
    finally:
        await whole.start("worker-0")


async def back_from_a_task(page, *, scrolled):
    """Open a task far down the list with the keyboard, and go back: the same part of the list is shown again."""
    await page.evaluate(f"new Promise((done) => (scrollTo(0, {scrolled}), requestAnimationFrame(done)))")
    box = "element.getBoundingClientRect()"
    name = await page.evaluate(
        "(() => { const links = [...document.querySelectorAll('.virtual .photo a')];"
        f"const link = links.find((element) => {box}.top > innerHeight / 2);"
        "link.focus({ preventScroll: true }); return link.textContent; })()"
    )
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name=name)).to_be_visible()
    await expect(page).to_have_title(f"{name} · safelight")
    await expect(page.locator("#main")).to_be_focused()
    await page.go_back()
    await until(lambda: page.evaluate(f"Math.abs(scrollY - {scrolled}) < 2"))
    await expect(page.get_by_role("link", name=name, exact=True)).to_be_in_viewport()
    await expect(page).to_have_title("Tasks · safelight")
