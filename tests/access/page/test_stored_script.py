"""Test that names of photos, batches, recipes and tenants are shown as text, and that no script in them runs."""

from __future__ import annotations

import struct
import zlib
from urllib.parse import quote

import pytest
from playwright.async_api import Error as PlaywrightError

from access.tenants import Api, acting, finish_one
from support.pages.browser import chromium, opened
from support.photos import photo

pytestmark = pytest.mark.slow

SCRIPT = '"><img src=x onerror=pwned=1><svg onload=pwned=1>'
LONG = f"{SCRIPT}<script>pwned=1</script>"
WATCH = "window.pwned = 0"
FOUND = """() => [window.pwned,
  document.querySelectorAll("[onerror],[onload],script:not([src]),a[href^='javascript:' i]").length]"""
VIEWS = "/ /photos/{task} /tasks /tasks/{task} /tasks?batch={batch} /batches /recipes /recipes/{recipe} /system"


def with_text(data: bytes) -> bytes:
    """Return a PNG with the script in a text chunk and in the camera of its EXIF data."""
    camera = LONG.encode() + b"\0"
    exif = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x110, 2, len(camera), 26) + b"\0\0\0\0" + camera
    found = data
    for kind, content in ((b"tEXt", b"Title\0" + LONG.encode()), (b"eXIf", exif)):
        chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        found = found[:33] + chunk + found[33:]  # after IHDR
    return found


async def fill(root: Api, keyed, key: str) -> dict[str, str]:
    """Use the script as the name of everything that has one; return the ids for the addresses of the views."""
    await root.call("POST", "/tenants", {"id": "acme", "name": SCRIPT})
    await root.call("POST", "/keys", {"name": LONG}, headers=acting("acme"))
    recipe = {"description": LONG, "outputs": {"image": {"format": "png"}}}
    await root.call("PUT", "/recipes/strange", recipe)
    async with Api(root.http, root.url, key).client() as client:
        named = {"filename": f"{SCRIPT}.png", "batch": SCRIPT, "recipe": "strange"}
        task = await client.upload(with_text(photo(1)), **named)
        assert await finish_one(keyed, with_text(photo(2))) == task.id
        waiting = await client.upload(with_text(photo(3)), **named)
    assert waiting.filename == f"{SCRIPT}.png"
    return {"task": task.id, "batch": quote(SCRIPT, safe=""), "recipe": "strange"}


async def test_names_are_shown_as_text(keyed, http, tmp_path):
    """Test without the page's content security policy: names are text even if no policy stops scripts."""
    root = Api(http, keyed.url("master"), keyed.key)
    key = (await root.call("POST", "/keys", {"name": LONG, "scopes": ["administer"]}))["token"]
    names = await fill(root, keyed, key)
    drawing = tmp_path / f"{SCRIPT.replace('/', '')}.svg"
    drawing.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" onload="pwned=1">{LONG}</svg>')
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://"), bypass_csp=True) as page:
        await page.add_init_script(WATCH)
        await page.reload()
        await page.get_by_label("API key", exact=True).fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("navigation", name="Main").wait_for()
        for view in VIEWS.format(**names).split():
            await page.goto(f"{root.url}/#{view}")
            await page.reload()
            await page.get_by_role("navigation", name="Main").wait_for()
            if view != "/system":
                await page.wait_for_function("() => document.body.outerHTML.includes('onerror=pwned=1')")
            assert await page.evaluate(FOUND) == [0, 0], view
        await page.get_by_role("button", name="Access: signed in as").click()
        await page.get_by_text("acme").first.click()
        await page.get_by_text(SCRIPT).first.wait_for()
        assert await page.evaluate(FOUND) == [0, 0]
        await page.goto(f"{root.url}/#/")
        await page.get_by_label("Choose photos").set_input_files(drawing)
        await page.get_by_text("SVG files are not accepted").first.wait_for()
        assert await page.evaluate(FOUND) == [0, 0]


HTML = f"<html><body onload=pwned=1>{LONG}</body></html>".encode()
PICTURES = {
    "a JPEG": b"\xff\xd8\xff" + HTML,
    "a GIF that is a script": b"GIF89a/*" + bytes(90) + b"*/=1;pwned=1",
    "a TIFF": b"II*\0" + HTML,
    "a WebP": b"RIFF____WEBP" + HTML,
}


async def test_a_photo_that_is_also_a_page_is_served_as_a_photo(keyed, http):
    """Open the photo by its link, and as the source of a script or a frame of the same origin."""
    root = Api(http, keyed.url("master"), keyed.key)
    key = (await root.call("POST", "/keys", {"scopes": ["upload", "read"]}))["token"]
    api, links = Api(http, root.url, key), {}
    async with api.client() as client:
        for name, data in PICTURES.items():
            task = await client.upload(data, filename="page.html")
            links[name] = (await api.call("POST", f"/task/{task.id}/links", {"original": True}))["url"]
    include = """(url) => new Promise((done) => {
      const script = document.createElement("script");
      script.onload = script.onerror = () => done(window.pwned);
      script.src = url;
      document.head.append(script);
    })"""
    async with chromium() as browser:
        context = await browser.new_context(bypass_csp=True)  # without the page's policy, which would stop a script
        await context.add_init_script(WATCH)
        page = await context.new_page()
        for name, link in links.items():
            async with http.get(link) as answer:
                assert answer.content_type.startswith("image/"), name
                assert "sandbox" in answer.headers["Content-Security-Policy"], name
            try:
                await page.goto(link)
                assert not await page.evaluate("window.pwned"), name
            except PlaywrightError as error:  # the file is downloaded instead of shown
                assert "Download is starting" in str(error), (name, error)
            await page.goto(f"{root.url}/")
            assert not await page.evaluate(include, link), name
        await context.close()
