"""Test accessibility: axe-core finds nothing serious on any view, and the page works zoomed and by keyboard."""

import re
from contextlib import suppress

import pytest
from playwright.async_api import expect

from support.pages.axe import findings
from support.pages.browser import opened
from support.photos import photo
from support.programs.until import until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


SIZES = {"desktop": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 844}}


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
async def test_no_serious_finding(browser, whole, client, directory, size, scheme):
    await upload_some(client)
    async with opened(browser, whole.master, color_scheme=scheme, viewport=SIZES[size], bypass_csp=True) as page:
        problems: dict[str, list[str]] = {}
        await look_at_photos(page, problems)
        await look_at_tasks(page, problems)
        await look_at_batches_recipes_and_system(page, problems)
        await look_at_uploads(page, problems, directory)
    assert {view: found for view, found in problems.items() if found} == {}


async def upload_some(client):
    """Upload two photos and a broken one."""
    for number in range(2):
        # Nothing listens there, so the call stays in the list and can be repeated.
        hook = "http://127.0.0.1:1/hook" if number else None
        task = await client.upload(photo(number, width=300), recipe="web", filename=f"photo-{number}.png", webhook=hook)
        await client.wait(task.id, timeout=90)
    await client.upload(photo(3)[:5000], filename="cut-off.png", batch="autumn")


async def look_at_photos(page, problems):
    await expect(page.locator(".card:not(.in-progress-card)")).to_have_count(3)
    problems["photos"] = await findings(page)
    await page.get_by_role("checkbox", name="Select photo-1.png").check()
    await expect(page.get_by_text("1 selected")).to_be_visible()
    problems["selection"] = await findings(page)
    await page.get_by_role("button", name="Delete", exact=True).click()
    problems["question"] = await findings(page)
    await page.get_by_role("button", name="Keep").click()
    await page.get_by_role("link", name="photo-1.png").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    problems["photo"] = await findings(page)
    await page.get_by_role("button", name="Share").click()
    await page.get_by_role("button", name="Make link").click()
    await expect(page.get_by_role("button", name="Copy link")).to_be_visible()
    problems["share"] = await findings(page)
    await page.keyboard.press("Escape")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Access").click()
    await expect(page.get_by_role("heading", name="Tenants")).to_be_visible()
    problems["access"] = await findings(page)
    await page.keyboard.press("Escape")


async def look_at_tasks(page, problems):
    await page.get_by_role("link", name="Tasks", exact=True).click()
    await expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    problems["tasks"] = await findings(page)
    await page.get_by_role("link", name="cut-off.png").click()
    await expect(page.get_by_role("region", name="Attempts")).to_contain_text("damaged")
    problems["task"] = await findings(page)
    await page.get_by_role("button", name="Run with a recipe").click()
    problems["another recipe"] = await findings(page)
    await page.get_by_role("button", name="Keep").click()
    await page.keyboard.press("?")
    problems["keys"] = await findings(page)
    await page.keyboard.press("Escape")


async def look_at_batches_recipes_and_system(page, problems):
    await page.get_by_role("link", name="Batches").click()
    await expect(page.get_by_role("link", name="autumn")).to_be_visible()
    problems["batches"] = await findings(page)
    await page.get_by_role("link", name="autumn").click()
    await expect(page.get_by_role("heading", name="autumn")).to_be_visible()
    problems["batch"] = await findings(page)
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_role("link", name="web").click()
    await expect(page.locator(".facts-line")).to_contain_text("×")
    await page.get_by_text("Encoding").click()
    problems["recipes"] = await findings(page)
    await page.get_by_role("link", name="System").click()
    await expect(page.get_by_text("Ready").first).to_be_visible()
    calls = page.get_by_role("region", name="Webhook calls")
    await expect(calls.get_by_role("button", name="Send").first).to_be_visible()
    problems["system"] = await findings(page)
    await page.get_by_role("button", name="Pause the queue").click()
    problems["pause"] = await findings(page)
    await page.get_by_role("button", name="Keep").click()
    await page.get_by_role("button", name="24 hours").click()
    await page.get_by_role("button", name="Drain the worker").click()
    problems["drain"] = await findings(page)
    await page.get_by_role("button", name="Keep").click()
    await expect(page.get_by_role("table", name="Photos in 15 minutes")).to_be_attached()
    problems["day"] = await findings(page)


async def look_at_uploads(page, problems, directory):
    await page.get_by_role("link", name="Photos", exact=True).click()
    (directory / "one.png").write_bytes(photo(5, width=200))
    (directory / "two.png").write_bytes(b"%PDF-1.7")
    await page.get_by_label("Review before sending").check()
    await page.get_by_label("Choose photos").set_input_files(list(directory.iterdir()))
    await page.get_by_role("button", name="Change the name or recipe of one.png").click()
    problems["tray"] = await findings(page)
    await page.get_by_role("button", name="Apply").click()
    await page.get_by_role("button", name="Upload 2 photos").click()
    await expect(page.get_by_text("1 photo uploaded, 1 failed")).to_be_visible()
    problems["tray at the end"] = await findings(page)


STANDING_OUT = """[...document.querySelectorAll('.panel button, .panel .button, .panel input, .drop *')]
  .filter((one) => one.offsetWidth > 2 && one.checkVisibility() && !one.closest('.filters, .list, .strip, .hidden'))
  .filter((one) => one.getBoundingClientRect().right > one.closest('.panel, .drop').getBoundingClientRect().right + 1)
  .map((one) => one.outerHTML.slice(0, 100))"""
"""An expression for the controls that are wider than the panel in which they stand."""
BROKEN = """[...document.querySelectorAll(
    '.mark span, .lamp > span, .options label > span, nav span, .share label > span, dialog kbd')]
  .filter((one) => one.offsetHeight > 2 * parseFloat(getComputedStyle(one).fontSize))
  .map((one) => one.textContent)"""
"""An expression for the words that take several lines, or keys that look like columns."""


@pytest.mark.parametrize("width", [640, 320])
async def test_at_200_percent_and_on_a_phone_no_text_is_cut_off(browser, whole, client, directory, width):
    """A desktop of 1280 pixels zoomed to 200 % is 640 pixels wide. No word of the page itself is broken."""
    task = await client.upload(photo(0, width=300), recipe="web", filename=f"{'long-name-' * 12}.png", batch="b" * 64)
    await client.wait(task.id, timeout=90)
    (directory / f"{'another-name-' * 12}.png").write_bytes(photo(1, width=200))
    async with opened(
        browser, whole.master, viewport={"width": width, "height": 430}, has_touch=width < 400, is_mobile=width < 400
    ) as page:
        await page.get_by_label("Review before sending").check()
        await page.get_by_label("Choose photos").set_input_files(list(directory.iterdir()))
        await expect(page.get_by_role("region", name="Uploads")).to_be_visible()
        titles = {
            "photos": "Photos", "tasks": "Tasks", f"tasks/{task.id}": task.filename, "batches": "Batches",
            f"batches/{'b' * 64}": "b" * 64, "recipes/web": "web", "system": "System",
        }  # fmt: skip
        for view, title in titles.items():
            await page.goto(f"http://{whole.master}/#/{view}")
            await expect(page).to_have_title(f"{title} · safelight")
            await expect(page.get_by_role("heading").first).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, view
            assert await page.evaluate(STANDING_OUT) == [], view
            assert await page.evaluate(BROKEN) == [], view
        await page.goto(f"http://{whole.master}/#/photos")
        heading = page.get_by_role("region", name="Uploads").get_by_role("heading")
        assert (await heading.bounding_box())["height"] < 60
        await look_into_dialogs(page, f"http://{whole.master}/#/photos/{task.id}")


async def look_into_dialogs(page, photo):
    await page.goto(photo)
    await page.get_by_role("button", name="Share").click()
    await page.get_by_role("button", name="Make link").click()
    await expect(page.get_by_role("button", name="Copy link")).to_be_visible()
    assert await page.evaluate(BROKEN) == [], "share"
    for key in ("Escape", "Escape", "?"):
        await page.keyboard.press(key)
    await expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    assert await page.evaluate(BROKEN) == [], "keys"
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Access").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("phone")
    await dialog.get_by_role("button", name="Create key").click()
    await expect(dialog.get_by_role("button", name="Revoke")).to_be_visible()
    assert await page.evaluate(STANDING_OUT) == [], "access"
    for name in ("Revoke", "Really revoke?"):
        await dialog.get_by_role("button", name=name).click()
    await expect(dialog.get_by_role("button", name="Rotate")).to_have_count(1)


CUT_OFF = """[...document.querySelectorAll('.top button, .top .lamp > span')]
  .filter((one) => one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > innerWidth)
  .map((one) => one.outerHTML)"""
"""An expression for what is cut off in the header."""


async def test_nothing_moves_where_motion_is_not_wanted(browser, whole, client):
    await client.upload(photo(0, width=300), recipe="web", filename="one.png")
    async with opened(browser, whole.master, reduced_motion="reduce", locale="ar-EG") as page:
        await expect(page.locator(".card").first).to_be_visible()
        moving = """[...document.querySelectorAll('*')].filter((one) => {
          const style = getComputedStyle(one);
          const long = (text) => text.split(',').some((part) => parseFloat(part) > 0.01);
          return (style.animationName !== 'none' && long(style.animationDuration)) || long(style.transitionDuration);
        }).map((one) => one.outerHTML.slice(0, 100))"""
        assert await page.evaluate(moving) == []
        # Dates stand among English words, so they are English too.
        assert re.search(r"day, \w+ [0-9]{1,2}, 20[0-9][0-9]", await page.locator(".gallery").inner_text())
        # In forced colours, which replace every background, what is chosen still looks chosen.
        await page.emulate_media(forced_colors="active")
        for chosen, other in (("Photos", "Tasks"), ("All", "Finished")):
            role = "link" if chosen == "Photos" else "button"
            both = [page.get_by_role(role, name=name).first for name in (chosen, other)]
            colours = [await one.evaluate("(one) => getComputedStyle(one).backgroundColor") for one in both]
            assert colours[0] != colours[1], chosen
        # On paper, the dark page is dark on white.
        await page.emulate_media(forced_colors="none", color_scheme="dark", media="print")
        assert await page.evaluate("getComputedStyle(document.body).color") == "rgb(35, 29, 26)"
        await expect(page.get_by_role("navigation", name="Main")).to_be_hidden()
        # Between a phone and a desktop, the header has room for everything in it, and says in words whether it is live.
        await page.emulate_media(media="screen")
        for width in (760, 1000):
            await page.set_viewport_size({"width": width, "height": 430})
            # The browser applies the gaps of the new width a moment after the width.
            with suppress(TimeoutError):
                await until(lambda: page.evaluate(f"{CUT_OFF}.length === 0"), timeout=10.0)
            assert await page.evaluate(CUT_OFF) == [], width
        await page.set_viewport_size({"width": 721, "height": 430})  # of a phone that is held sideways
        heading = page.get_by_role("heading", name="Add your photos")
        await until(
            lambda: heading.evaluate("(one) => one.offsetHeight < 2 * parseFloat(getComputedStyle(one).fontSize)")
        )


FOCUSED = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"


async def tab_to(page, name):
    """Press Tab until an element whose text begins with `name` has the focus."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if (await page.evaluate(FOCUSED)).startswith(name):
            return
    raise AssertionError(f"{name} cannot be reached by Tab")


async def test_by_keyboard_alone(browser, whole, client):
    """Find a failed photo, read its page and retry it; open, zoom and close a photo; answer a dialog."""
    good = await client.upload(photo(0, width=300), recipe="web", filename="good.png")
    bad = await client.upload(photo(1)[:5000], recipe="web", filename="bad.png")
    for task in (good, bad):
        await client.wait(task.id, timeout=90)
    async with opened(browser, whole.master) as page:
        await expect(page.get_by_role("heading", name="Results")).to_be_visible()
        await page.keyboard.press("g")
        await page.keyboard.press("t")
        await expect(page.get_by_role("link", name="bad.png")).to_be_visible()
        await page.keyboard.press("/")
        await page.keyboard.type("bad")
        await expect(page.get_by_role("link", name="good.png")).to_have_count(0)
        await tab_to(page, "bad.png")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("region", name="Attempts")).to_contain_text("damaged")
        await tab_to(page, "Delete")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await tab_to(page, "Retry")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("region", name="Attempts").get_by_role("listitem")).to_have_count(2)
        await page.keyboard.press("g")
        await page.keyboard.press("p")
        await expect(page.get_by_role("link", name="good.png, web")).to_be_visible()
        await tab_to(page, "good.png, web")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog", name="good.png")).to_be_visible()
        await page.keyboard.press("+")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        await page.keyboard.press("Escape")
