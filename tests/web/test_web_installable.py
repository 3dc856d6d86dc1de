"""Test the page as an installed app: without a connection, and as a target for shared photos."""

import io

import pytest
from PIL import Image
from playwright.async_api import expect

from support.pages.browser import opened
from support.photos import photo

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CONTROLLED = "() => navigator.serviceWorker.controller !== null"
KEPT = """async () => {
  const requests = [];
  for (const name of await caches.keys()) requests.push(...await (await caches.open(name)).keys());
  return requests.map((one) => one.url);
}"""
"""An expression for the addresses of all entries in the browser's caches."""


async def test_the_manifest_names_existing_files(page, whole):
    address = await page.evaluate("document.querySelector('link[rel=manifest]').href")
    manifest = await (await page.request.get(address)).json()

    async def resolved(text):
        return await page.evaluate("([text, base]) => new URL(text, base).href", [text, address])

    assert await resolved(manifest["start_url"]) == await resolved(manifest["scope"]) == f"http://{whole.master}/"
    for icon in manifest["icons"]:
        answer = await page.request.get(await resolved(icon["src"]))
        assert answer.headers["content-type"] == icon["type"]
        if icon["type"] == "image/png":
            width, height = Image.open(io.BytesIO(await answer.body())).size
            assert icon["sizes"] == f"{width}x{height}"


async def test_photos_are_added_without_a_connection_and_sent_when_it_is_back(browser, whole, client, directory):
    (directory / "offline.png").write_bytes(photo(0, width=200))
    async with opened(browser, whole.master) as page:
        await page.wait_for_function(CONTROLLED)
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        await page.context.set_offline(True)
        await expect(page.get_by_text("Offline", exact=True)).to_be_visible()
        await page.get_by_role("link", name="Recipes", exact=True).click()
        await expect(page.locator(".editor, .edit > .quiet")).to_contain_text("There is no connection to the service.")
        await page.context.set_offline(False)
        await expect(page.get_by_role("group", name="Outputs")).to_be_visible()
        await page.get_by_role("link", name="Photos", exact=True).click()
        await page.context.set_offline(True)
        await page.reload()
        await expect(page.get_by_role("heading", name="Add your photos")).to_be_visible()
        await page.get_by_label("Choose photos").set_input_files(directory / "offline.png")
        await expect(page.get_by_role("region", name="Uploads")).to_contain_text("offline.png")
        assert (await client.tasks()).tasks == []
        await page.context.set_offline(False)
        await expect(page.get_by_text("1 photo uploaded", exact=True)).to_be_visible()
        await expect(page.locator("#recipe option[value=thumbnail]")).to_have_count(1)
        assert [task.recipe for task in (await client.tasks()).tasks] == ["web"]


async def test_photos_that_are_shared_are_uploaded_and_only_the_page_itself_is_kept(browser, whole, client):
    async with opened(browser, whole.master) as page:
        await page.wait_for_function(CONTROLLED)
        # what a phone does with the manifest's share_target
        await page.evaluate(
            """(bytes) => {
              const transfer = new DataTransfer();
              transfer.items.add(new File([new Uint8Array(bytes)], "shared.png", { type: "image/png" }));
              const form = Object.assign(document.createElement("form"), {
                action: "share", method: "post", enctype: "multipart/form-data" });
              const field = Object.assign(document.createElement("input"), { type: "file", name: "photos" });
              field.files = transfer.files;
              form.append(field);
              document.body.append(form);
              form.submit();
            }""",
            list(photo(0, width=200)),
        )
        asked = page.get_by_role("dialog", name="Upload what was shared?")
        await asked.get_by_role("button", name="Upload").click()
        await expect(page.get_by_text("1 photo uploaded", exact=True)).to_be_visible()
        await expect(page.locator(".card img.shown")).to_have_count(1)
        assert "shared" not in page.url
        assert [task.filename for task in (await client.tasks()).tasks] == ["shared.png"]
        await page.reload()
        await expect(page.locator(".card")).to_have_count(1)  # and the photo is not uploaded again
        assert len((await client.tasks()).tasks) == 1
        kept = {url.removeprefix(f"http://{whole.master}/").partition("?")[0] for url in await page.evaluate(KEPT)}
        assert kept == {"", "web/app.js", "web/style.css", "web/icon.svg"}


KEEPS_NOTHING = """
  const deny = () => { throw new DOMException("Access is denied for this document.", "SecurityError"); };
  Object.defineProperty(window, "localStorage", { get: deny });
  IDBFactory.prototype.open = deny;
  for (const [of, name] of [[IDBFactory, "databases"], [LockManager, "request"], [ServiceWorkerContainer, "register"]])
    of.prototype[name] = async () => deny();
"""


async def test_a_browser_that_may_keep_nothing_shows_the_page(browser, whole, client, directory):
    """Chromium's and Firefox's settings that block all cookies deny every store with an error."""
    (directory / "sent.png").write_bytes(photo(6))
    async with opened(browser, whole.master) as page:
        await page.add_init_script(KEEPS_NOTHING)
        await page.reload()
        await page.locator("#recipe").select_option("thumbnail")
        await page.get_by_label("Choose photos").set_input_files(directory / "sent.png")
        await expect(page.get_by_text("Finished: 1")).to_be_visible()
        await page.get_by_role("button", name="Colours: auto").click()
        await expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert [task.recipe for task in (await client.tasks()).tasks] == ["thumbnail"]
