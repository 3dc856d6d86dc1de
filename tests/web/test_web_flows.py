"""Test the users' tasks on the page, in a real browser with the running system."""

import base64
import io
import json
import re
import zipfile

import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational
from playwright.async_api import expect

from safelight.untrusted.photos import EXTENSIONS
from safelight.wire import State
from support.pages.browser import kept_uploads
from support.photos import photo
from support.programs.until import until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

DROP = """async ([selector, type, files]) => {
  const transfer = new DataTransfer();
  for (const [name, base64] of files) {
    if (name === "cells.txt") { transfer.setData("text/plain", atob(base64)); continue; }
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: name.endsWith("png") ? "image/png" : "text/plain" }));
  }
  const given = { bubbles: true, cancelable: true };
  const event = type === "paste"
    ? new ClipboardEvent(type, { ...given, clipboardData: transfer })
    : new DragEvent(type, { ...given, dataTransfer: transfer });
  document.querySelector(selector).dispatchEvent(event);
}"""


def saved(directory, count, *, start=0):
    paths = [directory / f"photo-{number}.png" for number in range(start, start + count)]
    for number, path in enumerate(paths, start):
        path.write_bytes(photo(number, width=300))
    return paths


async def choose(page, *paths, recipe="invert"):
    await page.locator("#recipe").select_option(recipe)
    await page.get_by_label("Choose photos").set_input_files(paths)


async def given(page, kind, **files):
    await expect(page.locator(".drop")).to_be_visible()
    pairs = [[f"{name}.{ext}", base64.b64encode(data).decode()] for name, (ext, data) in files.items()]
    await page.evaluate(DROP, [".drop", kind, pairs])


async def test_upload_watch_view_and_download(page, client, directory):
    paths = saved(directory, 3)
    await choose(page, *paths)
    cards = page.locator(".card:not(.in-progress-card)")
    await expect(cards).to_have_count(3)
    tasks = {task.filename: task for task in (await client.tasks()).tasks}
    assert set(tasks) == {path.name for path in paths}
    [batch] = {task.batch for task in tasks.values()}
    assert re.fullmatch(r"20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", batch)  # other uploads have another

    # one photo in the viewer: the slider by keyboard, the outputs, a download
    await page.get_by_role("link", name="photo-1.png, invert").click()
    await expect(page).to_have_title("photo-1.png · safelight")
    dialog = page.get_by_role("dialog")
    slider = dialog.get_by_role("slider")
    await slider.focus()
    await page.keyboard.press("Home")
    await expect(dialog.locator(".before")).to_have_css("clip-path", "inset(0px 100% 0px 0px)")
    await expect(dialog.get_by_text("PNG · 300 × 200")).to_be_visible()
    async with page.expect_download() as download:
        await dialog.get_by_role("link", name="Download image").click()
    made = (await (await download.value).path()).read_bytes()
    assert Image.open(io.BytesIO(made)).size == (300, 200)
    assert (await download.value).suggested_filename == "photo-1.image.png"
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()

    # a selection, and then everything, as ZIP
    for name in ("photo-0.png", "photo-2.png"):
        await page.get_by_role("checkbox", name=f"Select {name}").check()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download ZIP").click()
    assert await names_in(download) == ["photo-0.image.png", "photo-2.image.png"]
    await page.get_by_role("button", name="Clear selection").click()
    await page.get_by_label("Time").select_option("Last hour")
    await page.get_by_role("button", name="Select all that match").click()
    await expect(page.get_by_text("3 selected")).to_be_visible()
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download ZIP").click()
    assert len(await names_in(download)) == 3


async def names_in(download):
    """Check a downloaded ZIP, and return the names of its files."""
    with zipfile.ZipFile(await (await download.value).path()) as archive:
        assert archive.testzip() is None
        return sorted(archive.namelist())


async def test_delete_asks_first(page, client, directory):
    await choose(page, *saved(directory, 2))
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(2)
    await page.get_by_role("checkbox", name="Select photo-0.png").check()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("button", name="Keep").click()
    await expect(page.get_by_role("button", name="Delete", exact=True)).to_be_focused()
    assert len((await client.tasks()).tasks) == 2
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.locator(".card")).to_have_count(1)
    assert [task.filename for task in (await client.tasks()).tasks] == ["photo-1.png"]
    await expect(page.locator("main")).to_be_focused()


async def test_the_keyboard_goes_on_at_the_place_of_what_is_gone(page, directory):
    await choose(page, *saved(directory, 3))
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(3)
    await page.get_by_role("link", name="Tasks").click()
    rows = page.get_by_role("row").filter(has=page.get_by_role("checkbox", name=re.compile("^Select photo-")))
    for left, place in ((2, 1), (1, 0), (0, 0)):
        await expect(rows).to_have_count(left + 1)
        await rows.nth(place).get_by_role("button", name=re.compile("^Delete ")).press("Enter")
        await page.get_by_role("dialog").get_by_role("button", name="Delete").press("Enter")
        await expect(rows).to_have_count(left)
        follows = rows.nth(min(place, left - 1)).get_by_role("button", name=re.compile("^Delete "))
        await expect(follows if left else page.locator("main")).to_be_focused()


async def test_drop_paste_and_folder(page, client, directory):
    await given(page, "drop", dropped=("png", photo(0)), notes=("txt", b"no picture"), nothing=("png", b""))
    await expect(page.get_by_text("Not uploaded because they are empty: nothing.png.")).to_be_visible()
    await expect(page.get_by_text("Not uploaded because they are not photos: notes.txt.")).to_be_visible()
    await given(page, "paste", pasted=("png", photo(1)))
    # cells of a spreadsheet, of which a picture comes too, are text where text is written
    await page.evaluate(
        DROP,
        [
            "#search",
            "paste",
            [[name, base64.b64encode(data).decode()] for name, data in (("image.png", photo(3)), ("cells.txt", b"1"))],
        ],
    )
    inside = directory / "summer"
    inside.mkdir()
    (inside / "beach.png").write_bytes(photo(2))
    (inside / "list.txt").write_text("no picture")
    (inside / "._beach.png").write_bytes(b"what a Mac notes about a file")
    (directory / ".thumbnails").mkdir()
    (directory / ".thumbnails" / "beach.png").write_bytes(photo(4))
    await page.get_by_label("A folder").set_input_files(directory)
    await expect(page.get_by_text("3 photos uploaded", exact=True)).to_be_visible()
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(3)
    names = {task.filename for task in (await client.tasks()).tasks}
    assert names == {"dropped.png", "pasted.png", "beach.png"}


async def test_every_kind_of_photo_that_the_service_reads_is_taken(page, client):
    names = {f"photo.{extension}" for extension in EXTENSIONS.values()}
    await page.locator("#recipe").select_option("invert")
    await page.evaluate(
        """([names, bytes]) => {
          const dataTransfer = new DataTransfer();
          for (const name of names) dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
          document.querySelector(".drop").dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer }));
        }""",
        [sorted(names), list(photo(1, width=20))],
    )
    await expect(page.get_by_text(f"{len(names)} photos uploaded", exact=True)).to_be_visible()
    assert {task.filename for task in (await client.tasks()).tasks} == names
    # The dialog that chooses files offers them, and so do other programs that share photos.
    offered = set((await page.get_by_label("Choose photos").get_attribute("accept") or "").split(","))
    assert {f".{extension}" for extension in EXTENSIONS.values()} < offered
    address = await page.evaluate("document.querySelector('link[rel=manifest]').href")
    (shared,) = (await (await page.request.get(address)).json())["share_target"]["params"]["files"]
    assert set(shared["accept"]) == offered


async def test_a_file_that_was_changed_or_deleted_since_it_was_added_is_told(page, client, directory):
    paths = [directory / name for name in ("deleted.png", "changed.png", "kept.png")]
    for number, path in enumerate(paths):
        path.write_bytes(photo(number))
    await page.get_by_label("Review before sending").check()
    await page.get_by_label("Choose photos").set_input_files(paths)
    await page.get_by_role("button", name="Upload 3 photos").wait_for()
    paths[0].unlink()
    paths[1].write_bytes(photo(3, width=77))
    await page.get_by_role("button", name="Upload 3 photos").click()
    await expect(page.get_by_text("The file can no longer be read")).to_have_count(2)
    await expect(page.get_by_text("1 photo uploaded, 2 failed", exact=True)).to_be_visible()
    assert [task.filename for task in (await client.tasks()).tasks] == ["kept.png"]


async def both_refused(page):
    """Return whether the browser's database has two uploads as refused."""
    return sum(one.count("refused") for store in await kept_uploads(page) for one in store) == 2


async def test_a_refusal_is_explained(page, directory):
    path = directory / "report.png"
    path.write_bytes(b"%PDF-1.7" + b" " * 4000)
    await choose(page, path)
    await expect(page.locator(".tray .error")).to_have_text(re.compile("PDF files are not accepted"))
    # after a reload, nobody is asked to add a file again that was refused
    with (directory / "large.tif").open("wb") as file:
        file.truncate(300 * 1024**2)
    await choose(page, directory / "large.tif")
    await expect(page.locator(".tray .error")).to_have_count(2)
    await until(lambda: both_refused(page))
    await page.reload()
    await expect(page.locator(".tray .error")).to_have_count(1)
    assert await page.get_by_text("Add these files again").count() == 0
    await page.get_by_role("button", name="Clear failed").click()
    await expect(page.locator(".tray")).to_have_count(0)


async def test_a_failure_is_explained_and_can_be_retried(page, client, directory):
    path = directory / "cut-off.png"
    path.write_bytes(photo(0, width=300)[:9000])
    await choose(page, path)
    await page.get_by_role("link", name="Tasks", exact=True).click()
    row = page.get_by_role("row").filter(has_text="cut-off.png")
    await expect(row.get_by_text("Failed")).to_be_visible()
    await expect(row).to_contain_text("damaged")
    before = (await client.tasks()).tasks[0].seq
    await row.get_by_role("button", name="Retry cut-off.png").click()
    await expect(row.get_by_text("Failed")).to_be_visible()

    async def tried_again():
        return (await client.tasks()).tasks[0].seq > before + 1

    await until(tried_again)
    await row.get_by_role("button", name="Delete cut-off.png").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(row).to_have_count(0)


async def test_a_waiting_task_is_cancelled(page, whole, client, directory):
    await whole.kill("worker-0")
    try:
        await choose(page, *saved(directory, 1))
        await page.get_by_role("link", name="Tasks", exact=True).click()
        row = page.get_by_role("row").filter(has_text="photo-0.png")
        await expect(row.get_by_text("Waiting")).to_be_visible()
        await row.get_by_role("button", name="Cancel photo-0.png").click()
        await expect(row.get_by_text("Cancelled")).to_be_visible()
        assert (await client.tasks()).tasks[0].state is State.CANCELLED
        await page.get_by_role("button", name="Failed", exact=False).click()
        await expect(page.get_by_text("Nothing matches these filters.")).to_be_visible()
    finally:
        await whole.start("worker-0")


async def test_edit_a_recipe_with_preview_save_it_and_use_it(page, client, directory):
    await choose(page, *saved(directory, 1))
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(1)
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_role("link", name="thumbnail").click()
    preview = page.get_by_label("Preview")
    await expect(preview.get_by_text("WEBP · 300 × 300")).to_be_visible()
    await page.get_by_text("Add an operation").click()
    await page.get_by_role("button", name="Sepia").click()
    await page.get_by_role("button", name="Move Sepia up").click()
    await expect(page.locator(".step h3")).to_have_text(["Sepia", "Resize"])
    await page.get_by_role("spinbutton", name="Width").fill("120")
    await page.keyboard.press("Tab")
    await expect(preview.get_by_text("WEBP · 120 × 120")).to_be_visible()
    await page.get_by_role("textbox", name="Output").fill("Small Photo")
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("A name has up to 64 lower-case letters")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Output")).to_have_value("image")
    await page.get_by_label("Name to save under").fill("Old Style")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_label("Name to save under").fill("old-style")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("heading", name="old-style")).to_be_visible()
    spec = json.loads(bytes((await client.recipe("old-style")).spec))
    assert [operation["op"] for operation in spec["outputs"]["image"]["operations"]] == ["sepia", "resize"]
    await page.get_by_role("button", name="Use for uploads").click()
    await page.get_by_role("link", name="Photos").click()
    await choose(page, *saved(directory, 1, start=5), recipe="old-style")
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(2)
    assert (await client.tasks()).tasks[0].recipe == "old-style"
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_role("button", name="Delete the recipe old-style").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("link", name="old-style")).to_have_count(0)
    await page.evaluate("location.hash = '#/recipes/old-style'")
    await expect(page.get_by_text("There is no recipe old-style.")).to_be_visible()
    await page.get_by_role("link", name="Photos").click()  # so that the last preview is deleted


async def test_the_system_view_shows_numbers(page, client, directory):
    await choose(page, *saved(directory, 2, start=20))
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(2)
    await page.get_by_role("link", name="System").click()
    services = page.get_by_role("region", name="Services")
    await expect(services.get_by_text("Ready")).to_have_count(4)
    await expect(page.get_by_role("region", name="Workers").get_by_text("Idle").first).to_be_visible()
    table = page.get_by_role("table", name=re.compile("Photos a minute"))
    await expect(table.get_by_role("row")).not_to_have_count(1)

    async def counted():
        minutes = (await page.evaluate("fetch('/last-hour').then((answer) => answer.json())"))["minutes"]
        assert len(minutes) == 60
        return sum(minute["finished"] for minute in minutes) >= 2 and minutes[-1]["open"] == 0

    await until(counted)  # a master counts changes with a delay of a second

    await page.get_by_role("button", name="7 days").click()
    await expect(page).to_have_url(re.compile(r"#/system\?span=week$"))
    week = page.get_by_role("table", name=re.compile("Photos in 2 hours"))
    await expect(week.get_by_role("row")).not_to_have_count(1)
    await page.reload()
    await expect(week.get_by_role("row")).not_to_have_count(1)
    found = await page.evaluate("fetch('/statistics?span=week').then((answer) => answer.json())")
    assert (len(found["points"]), found["step"]) == (84, 7200)
    assert sum(point["finished"] for point in found["points"]) >= 2
    slowest = page.get_by_role("region", name="Slowest photos").get_by_role("link")
    await expect(slowest).to_have_text([each["filename"] for each in found["slowest"]])
    await page.clock.install()
    await page.reload()
    await expect(week.get_by_role("row")).not_to_have_count(1)
    await page.clock.pause_at(await page.evaluate("Date.now()") + 5000)
    async with page.expect_request("**/statistics?span=hour"):  # at once, not when it is time to read again
        await page.go_back()
        await page.clock.run_for(500)


async def test_the_whole_page_by_keyboard(page, directory):
    await choose(page, *saved(directory, 1))
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(1)
    await page.reload()
    await expect(page.locator(".card")).to_have_count(1)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    for _ in range(24):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.closest('.card') !== null"):
            break
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()


async def test_the_page_loads_nothing_foreign_and_nothing_inline(page, whole):
    answer = await page.request.get(f"http://{whole.master}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    asked = await page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert asked
    assert all(url.startswith(f"http://{whole.master}/") for url in asked)


@pytest.mark.parametrize(
    ("kind", "exposure", "written"),
    [("JPEG", (1, 250), "1/250 s"), ("PNG", (6, 10), "0.6 s"), ("WebP", (10, 3), "3.3 s")],
)
async def test_metadata_of_a_photo_are_shown(page, whole, client, directory, kind, exposure, written):
    """The page must show the values that Pillow wrote to the photo."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Nordlicht", "N-1 Pro"
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.LensModel] = "50 mm F1.8"
    inner[ExifTags.Base.DateTimeOriginal] = "2024:05:17 19:42:08"
    inner[ExifTags.Base.ExposureTime] = IFDRational(*exposure)
    inner[ExifTags.Base.FNumber] = IFDRational(28, 10)
    inner[ExifTags.Base.ISOSpeedRatings] = 640
    inner[ExifTags.Base.FocalLength] = IFDRational(50)
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef], place[ExifTags.GPS.GPSLatitude] = "N", (48.0, 12.0, 36.0)
    place[ExifTags.GPS.GPSLongitudeRef], place[ExifTags.GPS.GPSLongitude] = "W", (16.0, 21.0, 54.0)
    path = directory / f"said.{kind.lower()}"
    Image.new("RGB", (64, 48), (200, 90, 40)).save(path, kind, exif=exif)
    task = await client.upload(path, recipe="web")
    await client.wait(task.id, timeout=90)
    await page.goto(f"http://{whole.master}/#/photos/{task.id}")
    data = page.get_by_role("region", name="Photo data")
    said = {"Camera": "Nordlicht N-1 Pro", "Lens": "50 mm F1.8", "Taken": "2024-05-17 19:42:08", "Exposure": written}
    said |= {"Aperture": "f/2.8", "ISO": "640", "Focal length": "50 mm", "Position": "48.21000, -16.36500"}
    await expect(data).to_be_visible()
    names, values = await data.locator("dt").all_inner_texts(), await data.locator("dd").all_inner_texts()
    assert dict(zip(names, values, strict=True)) == said


async def test_a_photo_never_runs_as_a_page(page, whole, client):
    task = await client.wait((await client.upload(photo(0), filename="<b>.png")).id, timeout=90)
    for path in ("original", "result", "rendition", "rendition?output=image", "original?download=true"):
        answer = await page.request.get(f"http://{whole.master}/task/{task.id}/{path}")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
