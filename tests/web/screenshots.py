"""Make the screenshots for docs/guide/page.md: PYTHONPATH=tests python tests/web/screenshots.py docs/images

With `--all DIRECTORY` it makes screenshots of every view in both themes and sizes.

It runs a whole system with photos from scikit-image's wheel, so that the page shows real results.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.async_api import Page

from safelight.client.master import Client
from support.pages.browser import chromium, opened
from support.photos import PHOTOS
from support.programs.system import system

ROOT = Path(__file__).parents[2]
SHOWN = (
    ("coins.png", "invert"),
    ("grass.png", "invert"),
    ("brick.png", "grayscale"),
    ("color.png", "invert"),
    ("ihc.png", "thumbnail"),
    ("motorcycle_left.png", "grayscale"),
    ("retina.jpg", "invert"),
    ("hubble_deep_field.jpg", "invert"),
    ("rocket.jpg", "web"),
    ("astronaut.png", "web"),
    ("coffee.png", "invert"),
    ("chelsea.png", "invert"),
)
VIEWS = "photos photo tasks task batches batch recipes system week"
DESKTOP = {"viewport": {"width": 1280, "height": 820}}
SCALE = 0.7
"""Pictures in the docs are small; the page itself is sharp."""
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}


async def fill(master: str) -> None:
    async with Client.connect(master) as client:
        tasks = [await client.upload(PHOTOS / name, recipe=recipe, batch="Autumn 2026") for name, recipe in SHOWN]
        broken = (PHOTOS / "chelsea.png").read_bytes()[:20_000]
        tasks.append(await client.upload(broken, filename="cut-off.png", batch="Autumn 2026"))
        for task in tasks:
            await client.wait(task.id, timeout=60)


async def take(page: Page, path: Path) -> None:
    await page.wait_for_timeout(900)  # until images have faded in
    await page.screenshot(path=path)
    with Image.open(path) as shot:
        small = shot.convert("RGB").resize((round(shot.width * SCALE), round(shot.height * SCALE)), Image.LANCZOS)
    small.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)


async def shoot(browser, master: str, target: Path, scheme: str, device: str, views: str, options: dict) -> None:
    async def keep(name: str) -> None:
        if name in views.split():
            await take(page, target / f"web-{name}-{device}-{scheme}.png")

    async with opened(browser, master, color_scheme=scheme, **options) as page:
        await page.locator(".card img.shown").nth(3).wait_for()
        await keep("photos")
        await page.get_by_role("link", name="coffee.png").click()
        await page.locator(".stage img.shown").nth(1).wait_for()
        await keep("photo")
        await page.keyboard.press("Escape")
        await page.get_by_role("link", name="Tasks", exact=True).click()
        await page.get_by_text("cut-off.png").wait_for()
        await keep("tasks")
        await page.get_by_role("link", name="cut-off.png").click()
        await page.get_by_role("region", name="Attempts").get_by_text("damaged").first.wait_for()
        await keep("task")
        await page.get_by_role("link", name="Batches").click()
        await page.get_by_role("link", name="Autumn 2026").wait_for()
        await keep("batches")
        await page.get_by_role("link", name="Autumn 2026").click()
        await page.get_by_role("heading", name="Autumn 2026").wait_for()
        await keep("batch")
        await page.get_by_role("link", name="Recipes", exact=True).click()
        await page.get_by_role("link", name="thumbnail").click()
        await page.get_by_text("Add an operation").click()
        await page.get_by_role("button", name="Sepia").click()
        await page.get_by_text("Add an operation").click()
        await page.locator(".stage:not(.busy) img.shown").nth(1).wait_for()
        await keep("recipes")
        await page.get_by_role("link", name="System").click()
        await page.get_by_role("button", name="Discard").click()
        await page.get_by_text("Ready").nth(3).wait_for()
        await page.get_by_role("region", name="Slowest photos").get_by_role("link").first.wait_for()
        await keep("system")
        await page.get_by_role("button", name="7 days").click()
        await page.get_by_role("table", name="Photos in 2 hours").wait_for(state="attached")
        await page.get_by_role("region", name="Workers").scroll_into_view_if_needed()
        await keep("week")


async def main(target: Path, *, everything: bool) -> None:
    with tempfile.TemporaryDirectory() as data:
        async with system(Path(data), workers=1) as whole, chromium() as browser:
            await fill(whole.master)
            if everything:
                for scheme in ("light", "dark"):
                    for device, options in (("desktop", DESKTOP), ("phone", PHONE)):
                        await shoot(browser, whole.master, target, scheme, device, VIEWS, options)
                return
            await shoot(browser, whole.master, target, "light", "desktop", "photos recipes", DESKTOP)
            await shoot(browser, whole.master, target, "dark", "desktop", "photo system", DESKTOP)
            await shoot(browser, whole.master, target, "dark", "phone", "photos photo tasks recipes", PHONE)


if __name__ == "__main__":
    places = [argument for argument in sys.argv[1:] if argument != "--all"]
    asyncio.run(main(Path(places[0]) if places else ROOT / "docs/images", everything="--all" in sys.argv))
