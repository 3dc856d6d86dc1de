"""Test finding tasks, actions on many, the pages of a task and a batch, reviewing uploads, and comparing recipes."""

import io
import json
import re
import zipfile
from functools import partial

import pytest
import pytest_asyncio
from playwright.async_api import expect

from safelight.client.access import AccessClient
from safelight.recipe import load_file
from safelight.wire import TaskFilter
from safelight.wire.accounts import Limits
from support.many import make_many
from support.pages.browser import opened
from support.photos import photo
from support.programs.until import until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module")
async def many(whole, client):
    """Make photos of two batches, some failed and some waiting, without a worker."""
    await whole.kill("worker-0")
    await make_many(whole, finished=120, failed=30, batch="summer")
    await make_many(whole, finished=3, waiting=20, batch="winter")
    yield whole
    await whole.start("worker-0")


async def test_find_and_act_on_many(browser, many, client):
    async with opened(browser, many.master, viewport={"width": 1280, "height": 1900}) as page:
        groups = page.locator("h3.group")  # the newest batch comes first, and each has its day
        await expect(groups.first).to_have_text(re.compile("^winter.*20[0-9]{2}"))
        await expect(groups.get_by_role("link", name="summer")).to_have_attribute("href", "#/batches/summer")
        await page.goto(f"http://{many.master}/#/tasks")
        states = page.get_by_role("group", name="State")
        await expect(states.get_by_role("button", name="All 173")).to_be_visible()
        await states.get_by_role("button", name="Failed 30").click()
        await page.get_by_label("Reason").select_option("damaged_image")
        await page.keyboard.press("/")
        await page.keyboard.type("photo-14")
        await expect(states.get_by_role("button", name="Failed 10")).to_be_visible()
        # the address contains all filters
        assert {"state=failed", "reason=damaged_image", "search=photo-14"} <= set(page.url.partition("?")[2].split("&"))
        await page.reload()
        await expect(page.locator(".table .virtual .row")).to_have_count(10)
        await retry_and_cancel(page, states, client)
        assert (await client.count(TaskFilter(state="cancelled"))).total == 30
        await page.goto(f"http://{many.master}/#/tasks?batch=winter")
        await rerun_by_hand(page)
        assert (await client.count(TaskFilter(recipe="thumbnail", batch="winter"))).total == 2
        await download_and_delete_a_batch(page, f"http://{many.master}/#/batches/summer")
        assert (await client.batch("summer")).tasks == {"cancelled": 10}


async def retry_and_cancel(page, states, client):
    """Check that an action on all matching tasks shows which tasks it affects, and affects only these.

    A photo that arrives while the page asks is not one of them.
    """
    await page.get_by_role("button", name="Select all that match").click()
    await page.get_by_role("button", name="Retry", exact=True).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Retry 10 photos?")
    await dialog.get_by_role("button", name="Retry").click()
    await expect(page.get_by_text("10 photos sent back to the queue.")).to_be_visible()
    await page.get_by_role("button", name="Clear filters").click()
    await states.get_by_role("button", name="Waiting 30").click()
    await page.get_by_role("button", name="Select all that match").click()
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await expect(dialog).to_contain_text("Cancel 30 photos?")
    late = await client.upload(photo(0), filename="late.png")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_text("30 photos cancelled.")).to_be_visible()
    await client.delete(late.id)


async def rerun_by_hand(page):
    """Check that tasks that cannot be changed stay as they are, and run photos again with another recipe."""
    dialog = page.get_by_role("dialog")
    await page.get_by_role("checkbox", name="Select photo-22.png").check()
    await page.get_by_role("checkbox", name="Select photo-0.png").check()
    await page.get_by_role("button", name="Retry", exact=True).click()
    await expect(dialog).to_contain_text("1 photo of the selection cannot be changed this way")
    await dialog.get_by_role("button", name="Keep").click()
    await page.get_by_role("button", name="Run with a recipe").click()
    await dialog.get_by_label("Recipe").select_option("thumbnail")
    await dialog.get_by_role("button", name="Run with a recipe").click()
    await expect(page.get_by_text("2 photos queued again.")).to_be_visible()


async def download_and_delete_a_batch(page, address):
    """Open a batch's failures, download its ZIP, and delete all matching tasks."""
    dialog = page.get_by_role("dialog")
    await page.get_by_role("link", name="Batches").click()
    summer = page.get_by_role("listitem").filter(has=page.get_by_role("link", name="summer", exact=True))
    await expect(summer).to_contain_text("150 photos")
    async with page.expect_download() as download:
        await summer.get_by_role("link", name="Download ZIP of 120 photos").click()
    with zipfile.ZipFile(io.BytesIO((await (await download.value).path()).read_bytes())) as archive:
        assert len(archive.namelist()) == 120
    await summer.get_by_role("link", name="20 photos failed").click()
    await expect(page.locator(".table .virtual .row").first).to_contain_text("Failed")
    await page.goto(address)
    await page.get_by_role("button", name="Select all that match").click()
    await expect(page.get_by_text("140 selected")).to_be_visible()  # including those that were retried and cancelled
    await page.get_by_role("button", name="Delete", exact=True).click()
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page.get_by_text("140 photos deleted.")).to_be_visible()


async def test_a_rerun_of_a_filter_waits_for_room_and_makes_no_task_twice(browser, many, client):
    """The tenant may have two more waiting tasks at first, and the first answer that says what was done is lost."""
    lost = []

    async def lose_the_first(route):
        answer = await route.fetch()
        if answer.ok and not lost:
            lost.append(await answer.json())
            await route.abort()
        else:
            await route.fulfill(response=answer)

    run = "Run with a recipe"
    async with AccessClient.connect(many.master) as access, opened(browser, many.master) as page:
        await access.change_tenant("default", name="", weight=1.0, limits=Limits(waiting=22))
        await page.route("**/tasks/actions", lose_the_first)
        await page.goto(f"http://{many.master}/#/tasks?batch=summer&state=failed")
        await page.get_by_role("button", name="Select all that match").click()
        await page.get_by_role("button", name=run).click()
        await page.get_by_role("dialog").get_by_label("Recipe").select_option("thumbnail")
        await page.get_by_role("dialog").get_by_role("button", name=run).click()
        await expect(page.get_by_role("region", name="Selection")).to_contain_text("and your limit is 22")
        await access.change_tenant("default", name="", weight=1.0, limits=Limits())
        await expect(page.get_by_text("30 photos queued again.")).to_be_visible()
    assert [answer["changed"] for answer in lost] == [30]
    assert (await client.count(TaskFilter(recipe="thumbnail"))).total == 30


async def test_the_page_of_a_task(page, whole, client):
    task = await client.upload(photo(0)[:9000], filename="cut-off.png", recipe="web", batch="bad")
    await client.wait(task.id, timeout=90)
    await page.goto(f"http://{whole.master}/#/tasks/{task.id}")
    attempts = page.get_by_role("region", name="Attempts")
    await expect(attempts).to_contain_text("Attempt 1")
    await expect(attempts).to_contain_text("damaged_image")
    workers = [event.worker for event in (await client.changes(0, task=task.id)).events if event.kind == "leased"]
    await expect(attempts).to_contain_text(f"Worker {workers[0]}")
    await expect(page.get_by_role("region", name="Events").get_by_role("listitem")).to_have_count(3)
    await page.get_by_text("Recipe web, as it was at the time").click()
    await expect(page.get_by_text("[outputs.large-webp]")).to_be_visible()
    # live: a second attempt appears by itself
    await page.get_by_role("button", name="Retry").click()
    await expect(attempts.get_by_role("listitem")).to_have_count(2)
    # another recipe makes a new task with its own address
    await page.get_by_role("button", name="Run with a recipe").click()
    await page.get_by_role("dialog").get_by_label("Recipe").select_option("grayscale")
    await page.get_by_role("dialog").get_by_role("button", name="Run with a recipe").click()
    await expect(page.get_by_role("region", name="Details")).to_contain_text("grayscale")
    assert page.url.rpartition("/")[2] != task.id
    again = await client.task(page.url.rpartition("/")[2])
    assert (again.recipe, again.input.digest, again.batch) == ("grayscale", task.input.digest, "bad")
    # a result that was there already needed no worker
    await client.wait((await client.upload(photo(3), recipe="thumbnail")).id, timeout=90)
    second = await client.upload(photo(3), recipe="thumbnail")
    assert second.reused
    await page.goto(f"http://{whole.master}/#/tasks/{second.id}")
    await expect(attempts).to_contain_text("No worker was needed")


async def test_review_rename_and_choose_before_sending(page, client, directory):
    for name in ("one.png", "two.png", "three.png"):
        (directory / name).write_bytes(photo(len(name)))
    await page.get_by_label("Batch").fill("trip")
    await page.get_by_label("Review before sending").check()
    await page.get_by_label("Choose photos").set_input_files(list(directory.iterdir()))
    await expect(page.locator(".tray li")).to_have_count(3)
    assert (await client.tasks()).tasks == []
    await page.get_by_label("Batch").fill("")  # for photos that are added later
    await page.get_by_role("button", name="Change the name or recipe of one.png").click()
    await page.get_by_label("File name").fill("first.png")
    await page.locator(".edit-upload select").select_option("grayscale")
    await page.get_by_role("button", name="Apply").click()
    await page.get_by_role("button", name="Remove two.png").click()
    await page.get_by_role("button", name="Upload 2 photos").click()
    await expect(page.get_by_text("2 photos uploaded", exact=True)).to_be_visible()
    await expect(page.get_by_text("Finished: 2")).to_be_visible()
    tasks = (await client.tasks(batch="trip")).tasks
    assert {(task.filename, task.recipe) for task in tasks} == {("first.png", "grayscale"), ("three.png", "web")}


ADD = """(count) => {
  const given = new DataTransfer();
  for (let n = 0; n < count; n += 1) given.items.add(new File(["photo"], `${n}.png`, { type: "image/png" }));
  const field = document.querySelector("input[type=file][multiple]");
  field.files = given.files;
  let walks = 0;
  const { values } = Object;
  Object.values = (all) => {
    const found = values(all);
    if (found.length > 100) walks += 1;
    return found;
  };
  field.dispatchEvent(new Event("change"));
  Object.values = values;
  return walks;
}"""


async def test_a_thousand_photos_are_added_at_once(page):
    """What is kept of all photos is not gone through for each of them, for which the page would stand still."""
    await page.get_by_label("Review before sending").check()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    assert await page.evaluate(ADD, 1000) < 100
    await expect(page.get_by_role("button", name="Upload 1,000 photos")).to_be_visible()


COUNT = """() => {
  window.walks = 0;
  const { fromEntries } = Object;
  Object.fromEntries = (entries) => {
    if (entries.length > 20) window.walks += 1;
    return fromEntries(entries);
  };
  const { openCursor } = IDBIndex.prototype;
  IDBIndex.prototype.openCursor = function (range) {
    window.walks += 1;
    return openCursor.call(this, range);
  };
}"""
"""Count how often the page goes through all files, and the browser through all that it keeps."""


async def test_no_photo_is_sent_more_slowly_because_of_the_others(page, client, directory):
    for number in range(60):
        (directory / f"{number}.png").write_bytes(photo(number % 3))
    await client.pause()
    await page.evaluate(COUNT)
    await page.get_by_label("Choose photos").set_input_files(list(directory.iterdir()))
    await expect(page.get_by_text("60 photos uploaded", exact=True)).to_be_visible()
    await client.resume()
    assert await page.evaluate("window.walks") < 60


async def test_a_photo_that_is_smaller_than_the_window_is_shown_at_its_size(browser, whole, client):
    task = await client.upload(photo(0, width=240, kind="JPEG"), recipe="invert", filename="small.jpg")
    await client.wait(task.id, timeout=90)
    async with opened(browser, whole.master) as page:
        await page.goto(f"http://{whole.master}/#/photos/{task.id}")
        shown = page.locator(".stage img.shown")
        await expect(shown).to_have_count(2)
        zoom = page.get_by_role("button", name="Shown at")
        fit = (await zoom.inner_text()).strip()

        async def is_wide(width):
            return abs((await shown.first.bounding_box())["width"] - width) < 3

        fitted = (await shown.first.bounding_box())["width"]
        for percent, width in (("100 %", 100 * fitted / float(fit.removesuffix(" %"))), (fit, fitted)):
            await zoom.click()
            await expect(zoom).to_have_text(percent)
            await until(partial(is_wide, width))
        await page.keyboard.press("1")
        await expect(zoom).to_have_text("100 %")


async def test_zoom_and_photo_data(browser, whole, client):
    task = await client.upload(photo(0, width=1600, kind="JPEG"), recipe="web", filename="large.jpg")
    await client.wait(task.id, timeout=90)
    async with opened(browser, whole.master) as page:
        await page.goto(f"http://{whole.master}/#/photos/{task.id}")
        frames = page.locator(".stage .frame")
        await expect(page.locator(".stage img.shown")).to_have_count(2)
        size = re.compile(r"\([+−±]\d+ %\)")
        await expect(page.locator(".outputs li").first).to_contain_text(size)  # compared with the original

        async def transforms():
            return await frames.evaluate_all("(all) => all.map((one) => one.style.transform)")

        await page.keyboard.press("1")
        await expect(page.get_by_role("button", name=re.compile("Shown at 100 %"))).to_be_visible()
        await page.mouse.move(500, 400)
        await page.mouse.wheel(0, -800)
        before, after = await transforms()
        assert before == after != "translate(0px, 0px) scale(1)"
        await page.mouse.move(300, 300)
        await page.mouse.down()
        await page.mouse.move(340, 330)
        await page.mouse.up()
        moved = await transforms()
        assert moved[0] == moved[1] != before
        await page.keyboard.press("0")
        assert await transforms() == ["translate(0px, 0px) scale(1)"] * 2
        await page.keyboard.press("b")
        await expect(page.locator(".layer.before")).to_have_css("clip-path", "inset(0px 0% 0px 0px)")


async def restored_by_import(page, client, path, exported: str, saved: dict) -> None:
    """Check that importing an exported recipe restores what was saved, under another name."""
    path.write_text(exported.replace('name = "grey-web"', 'name = "grey-again"'))
    assert set(load_file(path)["grey-again"].outputs) == set(saved["outputs"])
    await page.get_by_label("A recipe as TOML or JSON").set_input_files(path)
    await expect(page.get_by_label("Name to save under")).to_have_value("grey-again")
    await page.get_by_role("button", name="Remove Grayscale").click()
    await expect(page.locator(".step h3")).to_have_text(["Resize"])
    await page.get_by_role("button", name="Undo").click()
    await expect(page.locator(".step h3")).to_have_text(["Resize", "Grayscale"])
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_role("heading", name="grey-again")).to_be_visible()
    assert json.loads(bytes((await client.recipe("grey-again")).spec)) == {**saved, "name": "grey-again"}
    await client.delete_recipe("grey-again")


async def test_recipes_undo_all_outputs_compare_export_and_import(page, client, directory):
    (directory / "a.png").write_bytes(photo(0, width=400))
    await page.get_by_label("Choose photos").set_input_files(directory / "a.png")
    await expect(page.get_by_text("Finished: 1")).to_be_visible()
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_role("link", name="web", exact=False).first.click()
    await page.get_by_role("button", name="Duplicate web").click()
    outputs = page.get_by_role("group", name="Outputs")
    await expect(outputs.get_by_role("button", name=re.compile(r"small-webp .*kB"))).to_be_visible()
    await page.get_by_role("button", name="Compare with these settings").click()
    await page.get_by_label("Apply changes to all outputs").check()
    await page.get_by_text("Add an operation").click()
    await page.get_by_role("button", name="Grayscale").click()
    await expect(page.locator(".stage .tag.one")).to_have_text("Earlier")
    await page.get_by_label("Description").fill("Grey for the web")
    await page.get_by_label("Name to save under").fill("grey-web")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Export as TOML").click()
    exported = (await (await download.value).path()).read_text()
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_role("heading", name="grey-web")).to_be_visible()
    saved = json.loads(bytes((await client.recipe("grey-web")).spec))
    kinds = {name: [one["op"] for one in output["operations"]] for name, output in saved["outputs"].items()}
    assert set(map(tuple, kinds.values())) == {("resize", "grayscale")}
    assert len(kinds) == 6
    assert saved["description"] == "Grey for the web"
    await client.delete_recipe("grey-web")
    await restored_by_import(page, client, directory / "grey-web.toml", exported, saved)


async def test_keys(page):
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await page.keyboard.press("?")
    await page.keyboard.press("g")
    await page.keyboard.press("t")
    await expect(page.get_by_role("heading", name="Tasks")).to_be_visible()
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).to_be_focused()


SIZES_COME_LATE = """(() => {
  const told = new Promise((tell) => (window.tellSizes = tell));
  const Own = ResizeObserver;
  window.ResizeObserver = class extends Own {
    constructor(heard) { super((...sizes) => void told.then(() => heard(...sizes))); }
  };
})()"""
"""A script that holds the sizes of elements until `window.tellSizes()`, as a busy browser does for a moment."""


async def test_a_key_before_the_browser_tells_sizes_zooms_to_the_right_scale(browser, whole, client):
    task = await client.upload(photo(3, width=1600, kind="JPEG"), recipe="invert", filename="large.jpg")
    await client.wait(task.id, timeout=90)
    async with opened(browser, whole.master) as page:
        await page.add_init_script(SIZES_COME_LATE)
        await page.goto(f"http://{whole.master}/#/photos/{task.id}")
        await page.reload()
        await expect(page.locator(".stage img.shown")).to_have_count(2)
        await page.keyboard.press("1")
        await page.evaluate("window.tellSizes()")
        await expect(page.get_by_role("button", name="Shown at 100 %")).to_be_visible()


async def test_all_batches_can_be_shown(browser, many):
    await make_many(many, waiting=1010, batch="apart", apart=True)
    async with opened(browser, many.master) as page:
        await page.goto(f"http://{many.master}/#/batches")
        shown = page.locator(".batch-list > li")
        for count in range(50, 1050, 50):
            await expect(shown).to_have_count(count)
            await page.get_by_role("button", name="Show more").click()
        await expect(page.get_by_role("link", name="apart-0", exact=True)).to_be_visible()
        assert await page.locator(".error").count() == 0
