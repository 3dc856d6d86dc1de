"""Test for regressions of former faults of the page."""

import asyncio
import re
import time

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import expect

from support.many import make_many
from support.pages.browser import opened, switch_tab
from support.pages.firefox import firefox
from support.photos import photo

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


def changed(**fields):
    """Return a handler that changes fields of what the service answers."""

    async def handle(route):
        answer = await route.fetch()
        await route.fulfill(response=answer, json={**await answer.json(), **fields})

    return handle


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

DRAWN = "Boolean(document.querySelector('.chart .bar')?.getAttribute('d'))"
"""An expression that tells whether the charts have data."""


@pytest_asyncio.fixture(loop_scope="module")
async def no_worker(whole):
    """Stop the system's worker during the test."""
    await whole.kill("worker-0")
    yield whole
    await whole.start("worker-0")


async def test_without_a_worker_all_other_parts_work(browser, whole, client):
    for number in range(8):
        task = await client.upload(
            photo(number, width=900, kind="TIFF"), recipe="invert", filename=f"scan-{number}.tif"
        )
    await client.wait(task.id, timeout=90)
    await whole.kill("worker-0")
    try:
        async with opened(browser, whole.master) as page:
            await expect(page.get_by_text("Preparing the preview").first).to_be_visible()
            await page.get_by_role("link", name="System").click()
            finished = page.locator(".tiles > div").filter(has_text="Finished this hour").locator("dd")
            await expect(finished).to_have_text(re.compile("[1-9]"), timeout=3000)
            slow = await page.evaluate(
                "Math.max(...performance.getEntriesByType('resource').filter((one) => !one.name.includes('/events'))"
                ".map((one) => one.duration))"
            )
            assert slow < 3000
            await page.get_by_role("link", name="Photos", exact=True).click()
            await whole.start("worker-0")
            await expect(page.locator(".card img.shown")).to_have_count(8)
    finally:
        if "worker-0" not in whole.running:
            await whole.start("worker-0")


async def test_unknown_values_are_shown_as_unknown(browser, whole, client):
    async with opened(browser, whole.master) as page:
        await page.route("**/summary", lambda route: route.abort())
        await page.route("**/services", lambda route: route.abort())
        await page.get_by_role("link", name="System").click()
        waiting = page.locator(".tiles > div").filter(has_text="Waiting").locator("dd")
        await expect(waiting).to_have_text("unknown")
        await expect(page.get_by_role("region", name="Services")).to_contain_text("unknown")
        await expect(page.get_by_text("There are no workers.")).to_have_count(0)


async def test_system_fits_a_phone_and_a_desktop(browser, no_worker, client):
    await make_many(no_worker, finished=30, failed=5)
    for options in (PHONE, {"viewport": {"width": 1280, "height": 860}}):
        async with opened(browser, no_worker.master, **options) as page:
            await page.goto(f"http://{no_worker.master}/#/system")
            await page.wait_for_function(f"() => {DRAWN}")
            width, inner = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert width <= inner
            await expect(page.get_by_role("navigation", name="Main")).to_be_in_viewport()


async def test_firefox_shows_the_same_page(tmp_path, no_worker, client):
    await make_many(no_worker, finished=30, failed=5)
    async with firefox(tmp_path / "profile") as page:
        for width in (390, 1280):
            await page.open(f"http://{no_worker.master}/#/system", width=width, height=844)
            await page.until(DRAWN)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            # The charts' tables are only for screen readers, so their captions must take no visible space.
            seen = "[...document.querySelectorAll('caption')].some((one) => one.closest('.hidden').offsetWidth > 1)"
            assert not await page.evaluate(seen)
        await page.evaluate("document.querySelector('.spans button:last-child').click()")
        await page.until("location.hash === '#/system?span=week' && document.querySelectorAll('.chart').length === 4")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.open(f"http://{no_worker.master}/#/photos", width=1280, height=844)
        await page.until("document.querySelectorAll('.card img.shown').length > 3")
        await page.evaluate("document.querySelector('.card > a[href*=photos]').click()")
        await page.until("document.querySelectorAll('dialog.viewer .stage img.shown').length === 2")
        await page.press("\ue014")
        await page.press("\ue00c")
        await page.until("!document.querySelector('dialog.viewer')")
        assert page.problems == []


async def test_discarding_a_draft_needs_confirmation(page):
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_role("link", name="thumbnail").click()
    await page.get_by_text("Add an operation").click()
    await page.get_by_role("button", name="Sepia").click()
    for other in ("System", "grayscale"):
        await page.get_by_role("link", name=other).click()
        await page.get_by_role("button", name="Keep editing").click()
        await expect(page.locator(".step h3")).to_have_text(["Resize", "Sepia"])
        assert page.url.endswith("#/recipes/thumbnail")
    await page.get_by_role("link", name="System").click()
    await page.get_by_role("button", name="Discard").click()
    await expect(page.get_by_role("heading", name="System")).to_be_visible()
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_role("link", name="thumbnail").click()
    await expect(page.locator(".step h3")).to_have_text(["Resize"])


async def test_long_lists_are_loaded_and_drawn_in_parts(browser, no_worker, client):
    await make_many(no_worker, finished=400, failed=250)
    async with opened(browser, no_worker.master) as page:
        cards = page.locator(".card")
        await expect(cards.first).to_be_visible()
        # a failed photo is shown with its reason
        await expect(page.locator(".card .failure").first).to_contain_text("The PNG file is damaged.")
        # Shift selects a range; "Select all that match" also selects rows that are not loaded yet
        await page.get_by_role("checkbox", name="Select photo-649.png").check()
        await page.get_by_role("checkbox", name="Select photo-645.png").click(modifiers=["Shift"])
        await expect(page.get_by_text("5 selected")).to_be_visible()
        await page.get_by_role("button", name="Select all that match").click()
        await expect(page.get_by_text("650 selected")).to_be_visible()
        # only visible rows are in the document
        async with asyncio.timeout(60):
            while not await page.get_by_text("photo-0.png", exact=True).is_visible():
                await page.evaluate(
                    "new Promise((done) => (scrollTo(0, document.body.scrollHeight), requestAnimationFrame(done)))"
                )
        assert await page.evaluate("document.querySelectorAll('*').length") < 3000
        # another list also loads to its end
        await page.goto(f"http://{no_worker.master}/#/tasks?state=failed")
        await expect(page.get_by_text("photo-649.png")).to_be_visible()
        await page.get_by_role("button", name=re.compile("^Finished")).click()
        await expect(page.get_by_text("photo-399.png")).to_be_visible()
        async with asyncio.timeout(60):
            while not await page.get_by_text("photo-0.png", exact=True).is_visible():
                await page.evaluate(
                    "new Promise((done) => (scrollTo(0, document.body.scrollHeight), requestAnimationFrame(done)))"
                )
        # rows are as high as their lines need, also where a phone is turned or the page is zoomed
        row = page.locator(".table .virtual .row").first
        await page.set_viewport_size({"width": 600, "height": 860})
        await page.reload()
        await expect(row).to_be_visible()
        narrow = await row.evaluate("row => row.clientHeight")
        await page.set_viewport_size({"width": 1280, "height": 860})
        await expect(row).not_to_have_js_property("clientHeight", narrow)
        await page.set_viewport_size({"width": 600, "height": 860})
        await expect(row).to_have_js_property("clientHeight", narrow)


async def test_tasks_that_ended_while_the_page_was_hidden_leave_its_lists(browser, no_worker, client):
    await make_many(no_worker, waiting=12)
    tasks = (await client.tasks()).tasks
    async with opened(browser, no_worker.master) as page:
        await page.goto(f"http://{no_worker.master}/#/tasks")
        await expect(page.locator(".table .virtual .row")).to_have_count(12)
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        await switch_tab(page, "hidden")
        for task in tasks[2:]:
            await client.delete(task.id)
        await switch_tab(page, "visible")
        await expect(page.locator(".table .virtual .row")).to_have_count(2)
        await page.get_by_role("link", name="Photos", exact=True).click()
        await expect(page.get_by_text("2 photos in progress")).to_be_visible()
        await switch_tab(page, "hidden")
        for task in tasks[:2]:
            await client.cancel(task.id)
        await switch_tab(page, "visible")
        await expect(page.get_by_text("No results yet.")).to_be_visible()


async def drop(page, name: str) -> None:
    """Drop a file on the page."""
    await page.evaluate(
        "name => document.dispatchEvent(new DragEvent('drop', {bubbles: true, dataTransfer: (() => {"
        "const t = new DataTransfer(); t.items.add(new File(['x'], name)); return t; })()}))",
        name,
    )


async def test_back_closes_the_viewer_at_once_and_focus_is_kept(browser, no_worker, client):
    await make_many(no_worker, finished=5)
    async with opened(browser, no_worker.master) as page:
        await page.get_by_role("link", name="photo-4.png").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog.get_by_role("heading", name="photo-4.png")).to_be_visible()
        assert await page.evaluate("document.activeElement.matches('dialog')")
        for number in (3, 2):
            await page.keyboard.press("ArrowRight")
            await expect(dialog.get_by_role("heading", name=f"photo-{number}.png")).to_be_visible()
        await page.go_back()
        await expect(dialog).to_have_count(0)
        assert page.url.endswith("#/photos") or page.url.endswith("/")
        await expect(page.get_by_role("link", name="photo-4.png")).to_be_focused()
        # keys that are pressed in a dialog above a photo leave the photo alone
        await page.get_by_role("link", name="photo-4.png").click()
        await dialog.get_by_role("button", name="Share").click()
        await page.get_by_role("button", name="Make link").focus()
        shown = await page.locator(".zoom").inner_text()
        for key in ("ArrowRight", "+", "Delete"):
            await page.keyboard.press(key)
        await expect(page.get_by_role("dialog", name="Share by a link")).to_be_visible()
        await expect(page.get_by_role("dialog", name="photo-4.png")).to_be_visible()
        await expect(page.locator("dialog.confirm")).to_have_count(0)
        assert await page.locator(".zoom").inner_text() == shown
        await page.go_back()
        # a message is shown above an open photo
        await page.get_by_role("link", name="photo-4.png").click()
        await drop(page, "n.txt")
        message = page.get_by_text("Not uploaded because they are not photos: n.txt.")
        await expect(message).to_be_visible()
        assert await message.evaluate("(one) => one.closest('.toasts').matches(':popover-open')")
        # photos that are dropped on an open one close it, as their uploads would be below it
        await drop(page, "n.png")
        await expect(dialog).to_have_count(0)
        await expect(page.locator(".tray li")).to_contain_text("n.png")


async def test_a_photo_that_is_gone_is_told(page, whole, client):
    task = await client.wait((await client.upload(photo(5), recipe="thumbnail")).id, timeout=90)
    dialog = page.get_by_role("dialog")
    await page.goto(f"http://{whole.master}/#/photos/{task.id}")
    await expect(dialog.get_by_text("1 output")).to_be_visible()
    await client.delete(task.id)
    await expect(dialog.get_by_text(f"There is no task {task.id}.")).to_be_visible()
    await page.reload()
    await expect(dialog.get_by_text(f"There is no task {task.id}.")).to_be_visible()


async def test_a_zip_that_is_refused_leaves_the_page_where_it_is(page, whole, client):
    await client.wait((await client.upload(photo(6), recipe="thumbnail", filename="z.png")).id, timeout=90)
    await page.get_by_role("link", name="Tasks", exact=True).click()
    await page.get_by_role("checkbox", name="Select z.png").check()
    refusal = {"detail": "Storage is away.", "code": "unavailable"}
    await page.route("**/archive", lambda route: route.fulfill(status=503, json=refusal))
    await page.get_by_role("button", name="Download ZIP").click()
    await expect(page.get_by_text("Storage is away.")).to_be_visible()
    assert page.url == f"http://{whole.master}/#/tasks"
    await page.unroute("**/archive")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download ZIP").click()
    assert (await download.value).suggested_filename.endswith(".zip")


async def test_sizes_and_times_are_rounded_into_the_next_unit(page):
    await page.route("**/summary", changed(bytes=999_700, oldest_waiting=119.7))
    await page.get_by_role("link", name="System").click()
    await expect(page.locator(".tiles")).to_contain_text(re.compile("Photos and results.*1.0 MB"))
    await expect(page.locator(".tiles")).to_contain_text("2 min 0 s")


async def test_hand_written_addresses(page, whole, client):
    await client.upload(photo(1), filename="été.png")
    await page.goto(f"http://{whole.master}/#/tasks?search=e%CC%81t")
    await expect(page.get_by_role("link", name="été.png")).to_be_visible()
    for address, heading in (("#/photos/%", "Add your photos"), ("#/%zz", "Add your photos"), ("#/tasks/none", None)):
        await page.goto(f"http://{whole.master}/{address}")
        if heading:
            await expect(page.get_by_role("heading", name=heading, include_hidden=True)).to_have_count(1)
        else:
            await expect(page.locator("#main").get_by_text("There is no task none.")).to_be_visible()


async def test_the_tray_counts_and_names_uploads_and_closes(page, client, directory):
    assert await page.locator("#recipe").input_value() == "web"  # not "invert", the default of the classic protocol
    await page.get_by_role("link", name="Tasks", exact=True).click()
    await page.evaluate(
        """async (bytes) => {
          const transfer = new DataTransfer();
          const png = { type: "image/png" };
          for (let n = 0; n < 6; n += 1) transfer.items.add(new File([new Uint8Array(bytes)], `drop-${n}.png`, png));
          transfer.items.add(new File(["x"], "notes.txt", {type: "text/plain"}));
          transfer.items.add(new File(["%PDF-1.7 and so on"], "report.png", png));
          window.counts = [];
          new MutationObserver(() => {
            const heading = document.querySelector(".tray h2");
            if (heading) window.counts.push(heading.textContent);
          }).observe(document.body, { childList: true, subtree: true, characterData: true });
          document.querySelector("main").dispatchEvent(
            new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
        }""",
        list(photo(0, width=200)),
    )
    await expect(page.get_by_text("Not uploaded because they are not photos: notes.txt.")).to_be_visible()
    tray = page.get_by_role("region", name="Uploads")
    await expect(tray.get_by_role("heading")).to_have_text("6 photos uploaded, 1 failed")
    assert {count.partition(" of ")[2] for count in await page.evaluate("window.counts") if " of " in count} <= {
        "7 photos uploaded"
    }
    await expect(tray.get_by_text("Finished: 6")).to_be_visible()
    await expect(tray.locator("li.failed")).to_contain_text("report.png")
    await expect(tray.locator("li.failed .error")).to_contain_text("PDF")
    batch = (await client.batches()).batches[0]
    assert sum(batch.tasks.values()) == 6
    await tray.get_by_role("button", name="Close").click()
    await expect(tray).to_have_count(0)


COUNTED = """(() => {
  const real = window.fetch;
  let at_once = 0;
  window.most = 0;
  window.fetch = async (...given) => {
    if (!String(given[0]).includes("/rendition")) return real(...given);
    window.most = Math.max(window.most, ++at_once);
    return real(...given).finally(() => (at_once -= 1));
  };
})()"""
"""A script that counts in `window.most` how many pictures were requested at once."""


async def test_renditions_load_a_few_at_a_time_and_again_after_a_failure(browser, no_worker, client):
    await make_many(no_worker, finished=40)
    answered, broken = asyncio.Event(), True

    async def held(route):
        await answered.wait()
        await (route.fulfill(status=503) if broken else route.continue_())

    async with opened(browser, no_worker.master) as page:
        await page.add_init_script(COUNTED)
        await page.route("**/rendition?*", held)
        await page.reload()
        await expect(page.locator(".card").nth(8)).to_be_visible()
        # requests for pictures are held, and everything else is answered
        await page.get_by_role("link", name="Tasks", exact=True).click()
        await expect(page.get_by_text("photo-39.png")).to_be_visible()
        await page.get_by_role("link", name="Photos", exact=True).click()
        answered.set()
        await expect(page.locator(".card .no-image.preparing").first).to_be_visible()
        broken = False
        await expect(page.locator(".card .no-image")).to_have_count(0)
        assert 0 < await page.evaluate("window.most") <= 4


async def test_a_browser_whose_clock_is_wrong_shows_the_workers(browser, whole):
    async with opened(browser, whole.master) as page:
        await page.clock.set_system_time(time.time() + 200)
        await page.get_by_role("link", name="System").click()
        await expect(page.get_by_role("region", name="Workers").get_by_text("Idle").first).to_be_visible()


async def test_a_dead_worker_is_not_shown_as_busy(browser, whole, client):
    slow = {"outputs": {"image": {"operations": [{"op": "blur", "sigma": 90}], "format": "avif", "effort": 10}}}
    async with opened(browser, whole.master) as page:
        await page.get_by_role("link", name="System").click()
        workers = page.get_by_role("region", name="Workers")
        task = await client.upload(photo(4, width=3600, kind="JPEG"), recipe=slow, filename="heavy.jpg")
        try:
            await expect(workers.get_by_text("Busy", exact=True)).to_be_visible()
            await whole.kill("worker-0")
            await client.cancel(task.id)
            # let a minute pass
            workers_then = [
                msgspec.to_builtins(each) | {"last_seen": each.last_seen - 60}
                for each in (await client.summary()).workers
            ]
            await page.route("**/summary", changed(workers=workers_then))
            await page.reload()
            await expect(workers.get_by_text("Silent").first).to_be_visible()
            text = await workers.inner_text()
            assert not {"Busy", "Idle"} & set(text.split())
            assert "· ·" not in text
        finally:
            await whole.start("worker-0")
