"""Test live views: a running task, an upload in progress, and touch gestures on photos."""

import asyncio
import re

import pytest
from playwright.async_api import expect

from support.pages.browser import opened
from support.photos import photo

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SLOW = {"outputs": {"image": {"operations": [{"op": "blur", "sigma": 90}], "format": "avif", "effort": 10}}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


async def test_the_page_of_a_task_while_it_runs_and_when_it_has_finished(page, whole, client):
    running = await client.upload(photo(4, width=3600, kind="JPEG"), recipe=SLOW, filename="heavy.jpg")
    await page.goto(f"http://{whole.master}/#/tasks/{running.id}")
    attempts, events = page.get_by_role("region", name="Attempts"), page.get_by_role("region", name="Events")
    await expect(attempts.get_by_text("Working")).to_be_visible()
    await expect(attempts.get_by_text("Attempt 1")).to_be_visible()
    await expect(events.get_by_text("Taken by a worker")).to_be_visible()
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await expect(attempts.get_by_text("Cancelled")).to_be_visible()
    await expect(events.get_by_text("Cancelled")).to_be_visible()

    done = await client.wait((await client.upload(photo(5, width=300), recipe="thumbnail")).id, timeout=90)
    await page.goto(f"http://{whole.master}/#/tasks/{done.id}")
    await expect(attempts.get_by_role("listitem")).to_contain_text(
        re.compile("Attempt 1.*Finished.*Worker .*processing")
    )
    files = page.get_by_role("region", name="Files").get_by_role("listitem")
    await expect(files).to_have_text([re.compile("Original.*PNG"), re.compile("image.*WEBP · 300 × 200")])
    await expect(page.get_by_role("region", name="Files").locator("img.shown")).to_have_count(2)
    await page.get_by_role("link", name="Compare before and after").click()
    await expect(page.get_by_role("dialog").locator(".stage img.shown")).to_have_count(2)


async def test_the_time_passes_where_nothing_happens(browser, whole, client):
    """A page that is left open does not say for hours that a photo has just been changed."""
    await client.wait((await client.upload(photo(3), recipe="thumbnail", filename="old.png")).id)
    async with opened(browser, whole.master) as page:
        await page.clock.install()
        for view in ("tasks", "photos"):
            await page.goto(f"http://{whole.master}/#/{view}")
            await page.reload()
            await expect(page.get_by_text("old.png")).to_be_visible()
            await expect(page.get_by_text("Live", exact=True)).to_be_visible()
            await page.context.set_offline(True)  # no answer tells the page that it is not so late
            await page.clock.fast_forward("02:00:00")
            await expect(page.get_by_text("2 h ago")).to_be_visible()
            await page.context.set_offline(False)


async def test_speed_and_time_left_are_shown_during_an_upload(page, directory):
    (directory / "large.tif").write_bytes(photo(0, width=2400, kind="TIFF"))
    line = await page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2_000_000}
    await line.send("Network.emulateNetworkConditions", slow)
    await page.get_by_label("Choose photos").set_input_files(directory / "large.tif")
    tray = page.get_by_role("region", name="Uploads")
    await expect(tray).to_contain_text(re.compile(r"[0-9.]+ MB of 17.3 MB · [0-9.]+ [kM]B/s · [0-9]+(\.[0-9])? s left"))
    await line.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    await expect(tray.get_by_role("heading")).to_have_text("1 photo uploaded")
    await expect(tray).not_to_contain_text("left")


async def test_photos_are_seen_while_they_are_uploaded(page, directory):
    (directory / "seen.png").write_bytes(photo(1, width=900))
    line = await page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2_000}
    await line.send("Network.emulateNetworkConditions", slow)
    await page.get_by_label("Choose photos").set_input_files(directory / "seen.png")
    tray = page.get_by_role("region", name="Uploads")
    await expect(tray.get_by_role("listitem")).to_contain_text(re.compile("[0-9]+ % of"))
    await expect(tray.locator("img")).to_have_js_property("naturalWidth", 900)
    await expect(tray.locator("img")).to_have_js_property("draggable", False)  # dropped, it would be a photo to upload
    await line.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    await expect(tray.get_by_role("heading")).to_have_text("1 photo uploaded")


async def test_touch_gestures_move_and_zoom(browser, whole, client):
    for number in range(2):
        task = await client.upload(photo(number, width=900), recipe="invert", filename=f"photo-{number}.png")
        await client.wait(task.id, timeout=90)
    async with opened(browser, whole.master, **PHONE) as page:
        line = await page.context.new_cdp_session(page)

        async def touch(*steps):
            for kind, *points in steps:
                given = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
                await line.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

        await page.get_by_role("link", name="photo-1.png").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog.locator(".stage img.shown")).to_have_count(2)
        box = await dialog.locator(".glass").bounding_box()
        left, right, y = box["width"] * 0.2, box["width"] * 0.8, box["y"] + box["height"] / 4
        await touch(("touchStart", (right, y)), ("touchMove", (left, y)), ("touchEnd",))
        await expect(dialog.get_by_role("heading", name="photo-0.png")).to_be_visible()
        await expect(dialog.locator(".stage img.shown")).to_have_count(2)
        await touch(("touchStart", (left, y)), ("touchMove", (right, y)), ("touchEnd",))
        await expect(dialog.get_by_role("heading", name="photo-1.png")).to_be_visible()
        await expect(dialog.locator(".stage img.shown")).to_have_count(2)
        middle = box["width"] / 2
        await touch(
            ("touchStart", (middle - 120, y)),
            ("touchStart", (middle - 120, y), (middle - 80, y)),
            ("touchMove", (middle - 180, y), (middle + 60, y)),
            ("touchEnd",),
        )
        frame = dialog.locator(".frame").first
        scale = float((await frame.get_attribute("style")).partition("scale(")[2].partition(")")[0])
        assert scale > 2
        await expect(dialog.get_by_role("heading", name="photo-1.png")).to_be_visible()


async def test_the_tray_learns_what_became_of_every_photo_after_changes_were_missed(page, client, directory):
    """The stream tells nothing but that something was missed, as when an older copy of the database was restored."""
    for number in range(65):
        (directory / f"{number}.png").write_bytes(photo(number % 3))
    await client.pause()
    await page.get_by_label("Choose photos").set_input_files(sorted(directory.iterdir()))
    tray = page.get_by_role("region", name="Uploads")
    await expect(tray).to_contain_text("Waiting: 65")
    missed = {"content_type": "text/event-stream", "body": "event: missed\ndata: {}\n\n"}
    await page.route(re.compile("/events"), lambda route: route.fulfill(**missed))
    await page.evaluate("window.dispatchEvent(new Event('offline'))")  # it opens the stream anew
    await client.delete((await client.tasks()).tasks[-1].id)
    await client.resume()
    await expect(tray).to_contain_text("Finished: 64")
    await expect(tray).not_to_contain_text("Waiting")


async def test_an_answer_that_is_not_of_the_service_is_told(page):
    """A proxy whose own session has ended answers requests with its form."""
    await page.route("**/batches?*", lambda route: route.fulfill(content_type="text/html", body="<!doctype html>"))
    await page.get_by_role("link", name="Batches").click()
    await expect(page.get_by_text("Something other than the service answered.")).to_be_visible()


OF_A_VIEW = re.compile("/(batches|recipes|tasks?)[/?]|/recipes$")


async def test_every_view_says_that_it_loads_and_tries_again_as_it_says(page, whole, client):
    """A proxy answers in the place of the service for a while; no change of a task makes the page ask again."""
    task = await client.wait((await client.upload(photo(0), recipe="thumbnail", batch="b", filename="a.png")).id)
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    shown = {
        "batches": page.get_by_role("heading", name="b", exact=True),
        "batches/b": page.get_by_text("Finished: 1"),
        "tasks": page.get_by_role("link", name="a.png"),
        f"tasks/{task.id}": page.get_by_role("heading", name="a.png"),
        f"photos/{task.id}": page.get_by_role("dialog").get_by_text("1 output"),
    }
    for view, content in shown.items():
        await fail_and_recover(page, view, content)


async def fail_and_recover(page, view, content):
    held = asyncio.Event()

    async def fail(route):
        await held.wait()
        await route.fulfill(status=502, content_type="text/html", body="<h1>Bad Gateway</h1>")

    await page.route(OF_A_VIEW, fail)
    await page.evaluate(f"location.hash = '#/{view}'")
    await expect(page.get_by_text("Loading …").last).to_be_visible()
    held.set()
    await expect(page.get_by_text("could not be reached. The page keeps trying.").first).to_be_visible()
    await page.unroute(OF_A_VIEW)
    await expect(content).to_be_visible()
    await expect(page.get_by_text("Loading …")).to_have_count(0)
    await expect(page.get_by_text("could not be reached")).to_have_count(0)
    await page.evaluate("location.hash = '#/system'")


async def test_recipes_that_cannot_be_read_are_told(page, whole):
    await page.route(OF_A_VIEW, lambda route: route.fulfill(status=502, body="Bad Gateway"))
    await page.reload()
    await page.get_by_role("link", name="Recipes", exact=True).click()
    await expect(page.get_by_text("could not be reached. The page keeps trying.").first).to_be_visible()
    await page.unroute(OF_A_VIEW)
    await expect(page.get_by_role("link", name="thumbnail")).to_be_visible()
    await page.get_by_role("link", name="Tasks", exact=True).click()
    await page.goto(f"http://{whole.master}/#/recipes?tenant=none")
    await expect(page.get_by_text("There is no tenant none.")).to_be_visible()
    await page.get_by_role("link", name="Tasks", exact=True).click()  # and nobody is asked about changes
    await expect(page.get_by_role("heading", name="Tasks")).to_be_visible()


async def test_a_key_that_may_only_upload_sees_what_recipes_do(page, whole):
    """It gets no live connection, for which the editor waited."""

    async def only_uploading(route):
        answer = await route.fetch()
        await route.fulfill(response=answer, json={**await answer.json(), "scopes": ["upload"]})

    await page.route("**/session", only_uploading)
    await page.reload()
    await page.get_by_role("link", name="Recipes", exact=True).click()
    await page.get_by_role("link", name="thumbnail").click()
    await expect(page.get_by_role("button", name="Remove Resize")).to_be_visible()


HEBREW = "התמונה הראשונה מהטיול הארוך שלנו אל הים עם כל המשפחה והחברים בקיץ שעבר.png"
SHOWN = """(name) => {
  const text = document.createTreeWalker(name, NodeFilter.SHOW_TEXT).nextNode();
  const box = name.getBoundingClientRect();
  return [0, text.length - 1].map((place) => {
    const range = document.createRange();
    range.setStart(text, place);
    range.setEnd(text, place + 1);
    const one = range.getBoundingClientRect();
    return one.left >= box.left - 1 && one.right <= box.right + 1;
  });
}"""
"""A function that tells of a name whether its first and its last character are within its box."""


async def test_of_a_long_name_the_end_is_cut_off_also_where_it_is_written_from_the_right(page, client, directory):
    (directory / HEBREW).write_bytes(photo(0))
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.get_by_label("Choose photos").set_input_files(directory / HEBREW)
    card = page.locator(".card:not(.in-progress-card) .name")
    await expect(card).to_be_visible()
    assert await card.evaluate(SHOWN) == [True, False]
    assert await page.locator(".tray .name").evaluate(SHOWN) == [True, False]
    await page.locator(".card a").first.click()
    assert await page.get_by_role("heading", name=HEBREW).evaluate(SHOWN) == [True, False]
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="Tasks", exact=True).click()
    assert await page.locator(".photo a").evaluate(SHOWN) == [True, False]


async def test_a_photo_whose_recipe_was_deleted_elsewhere_is_sent_with_another_one(page, client, directory):
    await client.save_recipe("gone", {"outputs": {"image": {"format": "webp"}}})
    await page.reload()
    await page.locator("#recipe").select_option("gone")
    await client.delete_recipe("gone")
    (directory / "one.png").write_bytes(photo(0))
    await page.get_by_label("Choose photos").set_input_files(directory / "one.png")
    await expect(page.locator(".tray .error")).to_contain_text("There is no recipe called 'gone'.")
    await expect(page.locator("#recipe")).to_have_value("web")
    await page.get_by_role("button", name="Change the name or recipe of one.png").click()
    tray = page.get_by_role("region", name="Uploads")
    await tray.get_by_label("Recipe").select_option("thumbnail")
    await tray.get_by_role("button", name="Apply").click()
    await expect(page.get_by_text("1 photo uploaded", exact=True)).to_be_visible()
    assert [task.recipe for task in (await client.tasks()).tasks] == ["thumbnail"]
