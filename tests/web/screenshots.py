"""Make the pictures of docs/guide/page.md: PYTHONPATH=tests python tests/web/screenshots.py docs/images

It runs a whole system on photos from scikit-image's wheel, so that the page shows what it shows to people.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from PIL import Image

from safelight.client.master import Client
from support.pages.browser import chromium, opened
from support.photos import PHOTOS
from support.system import system

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
DESKTOP = {"viewport": {"width": 1280, "height": 820}}
SCALE = 0.7
"""Pictures in the docs are small; the page itself is sharp."""
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}


async def fill(master: str) -> None:
    async with Client.connect(master) as client:
        tasks = [await client.upload(PHOTOS / name, recipe=recipe) for name, recipe in SHOWN]
        broken = (PHOTOS / "chelsea.png").read_bytes()[:20_000]
        tasks.append(await client.upload(broken, filename="cut-off.png"))
        for task in tasks:
            await client.wait(task.id, timeout=60)


async def shoot(browser, master: str, target: Path, scheme: str, device: str, views: str, options: dict) -> None:
    async def keep(name: str) -> None:
        if name not in views.split():
            return
        await page.wait_for_timeout(900)  # pictures fade in
        path = target / f"web-{name}-{device}-{scheme}.png"
        await page.screenshot(path=path)
        with Image.open(path) as shot:
            small = shot.convert("RGB").resize((round(shot.width * SCALE), round(shot.height * SCALE)), Image.LANCZOS)
        small.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)

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
        await keep("system")


async def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as data:
        async with system(Path(data), workers=1) as whole, chromium() as browser:
            await fill(whole.master)
            await shoot(browser, whole.master, target, "light", "desktop", "photos recipes", DESKTOP)
            await shoot(browser, whole.master, target, "dark", "desktop", "photo system", DESKTOP)
            await shoot(browser, whole.master, target, "dark", "phone", "photos photo tasks recipes", PHONE)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs/images")))
