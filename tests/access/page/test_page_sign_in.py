"""Test sign-in, keys, tenants and sharing on the page, in a browser."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import pytest
from playwright.async_api import expect

from access.tenants import Api, finish_one, keyed_tenant
from support.pages.axe import findings
from support.pages.browser import chromium, opened, switch_tab, wait_upload_kept
from support.photos import photo

pytestmark = pytest.mark.slow


@pytest.fixture
async def root(keyed, http) -> Api:
    return Api(http, keyed.url("master"), keyed.key)


async def limit_of(root: Api, tenant: str) -> int | None:
    """Return how many tasks of a tenant may wait."""
    (found,) = [each["tenant"] for each in await root.call("GET", "/tenants") if each["tenant"]["id"] == tenant]
    return found["limits"]["waiting"]


async def test_a_link_signs_in_and_keys_and_tenants_are_managed(keyed, root):
    link = (await root.call("POST", "/sign-in-links"))["url"]
    address = root.url.removeprefix("http://")
    async with chromium() as browser, opened(browser, address) as page:
        await page.get_by_role("heading", name="Sign in").wait_for()
        assert await page.get_by_role("navigation").count() == 0, "the page must show nothing before sign-in"
        await page.get_by_label("API key", exact=True).fill("sl_wrong_key")
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_text("not known here").wait_for()
        await page.goto("about:blank")
        await page.goto(link)
        await page.get_by_role("navigation", name="Main").wait_for()
        assert "sign-in" not in page.url, "the ticket must not stay in the address"
        await page.get_by_role("button", name="Access: signed in as sign-in link").click()
        await page.get_by_label("Name", exact=True).fill("script")
        await page.get_by_role("button", name="Create key").click()
        token = (await page.locator(".made code").text_content()) or ""
        await Api(root.http, root.url, token).call("GET", "/tasks")
        assert await copied_over_plain_http(page) == token
        await page.get_by_text("upload, read").first.wait_for()
        await page.get_by_label("Id", exact=True).fill("acme")
        await page.get_by_role("button", name="Create tenant").click()
        await page.get_by_text("acme").click()
        form = page.get_by_role("listitem").filter(has_text="acme")
        await form.get_by_label("Maximum waiting tasks").fill("9")
        await form.get_by_role("button", name="Save").click()
        async with asyncio.timeout(60):
            while await limit_of(root, "acme") != 9:
                pass
        # After signing out, the page shows nothing. The new key signs in without the right to manage keys.
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_label("API key", exact=True).fill(token)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("button", name="Access: signed in as script").click()
        assert await page.get_by_role("button", name="Create key").count() == 0
        # The page notices when its session ends.
        (key,) = await root.call("GET", "/keys")
        await root.call("DELETE", f"/keys/{key['id']}", status=204)
        await page.reload()
        await page.get_by_role("heading", name="Sign in").wait_for()


@pytest.mark.parametrize("is_open", [False, True], ids=["in a new tab", "where the page is open"])
async def test_the_page_to_which_a_link_signs_in_works(keyed, root, is_open):
    link = (await root.call("POST", "/sign-in-links"))["url"]
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await page.get_by_role("heading", name="Sign in").wait_for()
        if not is_open:
            await page.goto("about:blank")
        await page.goto(link)
        await page.get_by_label("Search by name or id").fill("beach")
        await page.wait_for_url("**/#/photos?search=beach")
        await page.get_by_text("Nothing matches these filters.").wait_for()


async def check_an_uploaders_page(browser, root, token):
    async with opened(browser, root.url.removeprefix("http://")) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        refused: list[str] = []
        page.on("response", lambda answer: refused.append(answer.url) if answer.status == 403 else None)
        await page.get_by_label("API key", exact=True).fill(token)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_text("Upload only").wait_for()
        await page.get_by_text("Your key may only upload.").wait_for()
        assert [url for url in asked if "/events" in url or "/tasks" in url] == []
        # Views whose requests would all be refused are not offered, and photos are shown in their place.
        views = page.get_by_role("navigation", name="Main").get_by_role("link")
        assert await views.all_inner_texts() == ["Photos", "Recipes"]
        await views.filter(has_text="Recipes").click()
        await page.get_by_role("heading", name="web", exact=True).wait_for()
        for view in ("tasks", "batches", "system"):
            await page.goto(f"{root.url}/#/{view}")
            await page.get_by_role("heading", name="Add your photos").wait_for()
            assert await page.title() == "Photos · safelight"
        assert refused == []


async def copied_over_plain_http(page):
    """Copy the key that is shown as over plain HTTP, where browsers have no `navigator.clipboard`, and paste it."""
    await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    await page.get_by_role("button", name="Copy", exact=True).click()
    await page.get_by_text("Copied.", exact=True).wait_for()
    await page.get_by_label("Name", exact=True).focus()
    await page.keyboard.press("Control+v")
    return await page.get_by_label("Name", exact=True).input_value()


DROP = """() => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(["x"], "dropped.jpg", { type: "image/jpeg" }));
  document.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }));
}"""


async def test_sign_in_and_its_dialogs_are_accessible_and_show_only_what_a_key_permits(keyed, root):
    made = await root.call("POST", "/keys", {"name": "root", "scopes": ["read", "operate", "administer"]})
    reader = await root.call("POST", "/keys", {"name": "reader", "scopes": ["read"]})
    uploader = await root.call("POST", "/keys", {"name": "uploader", "scopes": ["upload"]})
    problems = {}
    async with chromium() as browser:
        async with opened(browser, root.url.removeprefix("http://"), bypass_csp=True) as page:
            await page.get_by_role("heading", name="Sign in").wait_for()
            problems["sign in"] = await findings(page)
            await page.get_by_label("API key", exact=True).fill(made["token"])
            await page.get_by_role("button", name="Sign in").click()
            await page.get_by_role("button", name="Access: signed in as root").click()
            await page.get_by_role("button", name="Show the secret").click()
            shown = await page.locator(".made code").text_content()
            assert shown == (await root.call("GET", "/webhooks/secret"))["secret"]
            await page.get_by_role("listitem").filter(has_text="default").locator("summary").click()
            problems["access"] = await findings(page)
        async with opened(browser, root.url.removeprefix("http://")) as page:
            await page.get_by_label("API key", exact=True).fill(reader["token"])
            await page.get_by_role("button", name="Sign in").click()
            await page.get_by_role("link", name="System").click()
            await page.get_by_role("region", name="Workers").wait_for()
            told = await page.locator(".system .error").all_inner_texts()
            assert [text for text in told if not text.startswith("There are no workers.")] == []
            assert await page.get_by_role("region", name="Services").count() == 0
            assert await page.get_by_role("button", name="Pause the queue").count() == 0
            await page.get_by_role("link", name="Recipes").click()
            await page.get_by_role("heading", name="web").wait_for()
            await page.get_by_text("Your key may not try recipes on photos.").wait_for()
            assert await page.get_by_role("button", name="Save").count() == 0
            await page.get_by_role("link", name="Photos").click()
            await page.get_by_role("heading", name="Results").wait_for()
            assert await page.get_by_role("heading", name="Add your photos").count() == 0
            await page.evaluate(DROP)
            await page.get_by_text("Your key may not upload photos.").wait_for()
        await check_an_uploaders_page(browser, root, uploader["token"])
    assert {view: found for view, found in problems.items() if found} == {}


async def test_a_session_that_has_ended_is_noticed_by_the_next_request(keyed, root, tmp_path):
    """The stream of changes stays open until it is made again, so the page looks live."""
    made = await root.call("POST", "/keys", {"name": "me", "scopes": ["upload", "read"]})
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await page.get_by_label("API key", exact=True).fill(made["token"])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_text("Live", exact=True).wait_for()
        await page.context.clear_cookies()
        await page.get_by_role("link", name="Batches").click()
        await page.get_by_role("heading", name="Sign in").wait_for()
        await page.get_by_label("API key", exact=True).fill(made["token"])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name="Photos", exact=True).click()
        await page.get_by_text("No results yet.").wait_for()
        # An upload that the end of the session has stopped goes on after the next sign-in.
        (tmp_path / "late.png").write_bytes(photo(4))
        await page.context.clear_cookies()
        await page.get_by_label("Choose photos").set_input_files(tmp_path / "late.png")
        await page.get_by_text("or sign in.").or_(page.get_by_role("heading", name="Sign in")).first.wait_for()
        await page.get_by_role("link", name="System").or_(page.get_by_role("heading", name="Sign in")).first.click()
        await page.get_by_label("API key", exact=True).fill(made["token"])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name="Photos", exact=True).click()
        await page.get_by_text("1 photo uploaded", exact=True).wait_for()


async def test_a_recipe_that_is_being_edited_stays_when_the_session_ends(keyed, root):
    made = await root.call("POST", "/keys", {"name": "me", "scopes": ["upload", "read"]})
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await sign_in(page, made["token"])
        await page.get_by_role("link", name="Recipes").click()
        await page.get_by_label("Description", exact=True).fill("for the wall of the kitchen")
        await page.context.clear_cookies()
        await switch_tab(page, "hidden")
        await switch_tab(page, "visible")
        await page.get_by_label("API key", exact=True).fill(made["token"])
        await page.get_by_role("button", name="Sign in").click()
        field = page.get_by_label("Description", exact=True)
        await expect(field).to_have_value("for the wall of the kitchen")
        # It is guarded as before, and what was discarded does not come back.
        await page.get_by_role("link", name="Batches").click()
        await page.get_by_role("button", name="Discard").click()
        await page.get_by_role("heading", name="Batches").wait_for()
        await page.get_by_role("link", name="Recipes").click()
        await expect(field).to_have_value(re.compile("^Three sizes"))


async def sign_in(page, token):
    await page.get_by_label("API key", exact=True).fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("navigation", name="Main").wait_for()
    await page.get_by_role("link", name="Photos", exact=True).click()


async def names(api):
    async with api.client() as client:
        return [task.filename for task in (await client.tasks()).tasks]


@pytest.mark.parametrize("reloaded", [False, True], ids=["in the same tab", "after a reload"])
async def test_photos_that_a_session_left_behind_are_sent_only_by_their_own_user(keyed, root, tmp_path, reloaded):
    acme, beta = await keyed_tenant(root, "acme"), await keyed_tenant(root, "beta")
    for name in ("theirs.png", "ours.png"):
        (tmp_path / name).write_bytes(photo(len(name)))
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await sign_in(page, acme.token)
        await page.get_by_text("Live", exact=True).wait_for()
        await page.context.clear_cookies()
        await page.get_by_label("Choose photos").set_input_files(tmp_path / "theirs.png")
        await wait_upload_kept(page)
        if reloaded:
            await page.reload()
        else:
            await page.evaluate("location.hash = '#/system'")  # asks the service for something, unless the page has
            await page.get_by_text("1 photo is not sent yet").wait_for()
        await sign_in(page, beta.token)
        await page.get_by_label("Choose photos").set_input_files(tmp_path / "ours.png")
        await page.get_by_text("1 photo uploaded", exact=True).wait_for()
        assert (await names(beta), await names(acme)) == (["ours.png"], [])
        await page.get_by_role("button", name="Access: signed in as key of beta").click()
        await page.get_by_role("button", name="Sign out").click()
        await sign_in(page, acme.token)
        await page.get_by_text("1 photo uploaded", exact=True).wait_for()
        assert (await names(beta), await names(acme)) == (["ours.png"], ["theirs.png"])


async def test_the_page_is_live_again_after_its_session_ended_while_it_was_hidden(keyed, root):
    made = await root.call("POST", "/keys", {"name": "me", "scopes": ["upload", "read"]})
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await page.clock.install()
        await page.reload()
        await sign_in(page, made["token"])
        await page.get_by_text("Live", exact=True).wait_for()
        await switch_tab(page, "hidden")
        await page.context.clear_cookies()
        await switch_tab(page, "visible")
        await page.get_by_role("heading", name="Sign in").wait_for()
        await page.clock.fast_forward(60_000)  # the page tries the stream again, without a session
        await sign_in(page, made["token"])
        await page.get_by_text("Live", exact=True).wait_for()


async def test_another_tab_notices_that_somebody_else_has_signed_in(keyed, root):
    acme, beta = await keyed_tenant(root, "acme"), await keyed_tenant(root, "beta")
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await sign_in(page, acme.token)
        await page.get_by_role("button", name="Access: signed in as key of acme").wait_for()
        other = await page.context.new_page()
        await page.context.clear_cookies()
        await other.goto(root.url)
        await sign_in(other, beta.token)
        await page.get_by_role("button", name="Access: signed in as key of beta").wait_for()


async def test_a_result_is_shared_by_a_link(keyed, root):
    made = await root.call("POST", "/keys", {"name": "me", "scopes": ["administer"]})
    async with Api(root.http, root.url, made["token"]).client() as client:
        task = await client.upload(photo(1), filename="beach.png")
    await finish_one(keyed, photo(2))
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await page.get_by_label("API key", exact=True).fill(made["token"])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("navigation", name="Main").wait_for()
        await page.goto(f"{root.url}/#/photos/{task.id}")
        await page.get_by_role("button", name="Share").click()
        await page.get_by_role("button", name="Make link").click()
        link = await page.get_by_label("Link", exact=True).input_value()
    async with aiohttp.ClientSession() as http, http.get(link) as answer:
        assert await answer.read() == photo(2)


HELD = """async () => {
  const personal = /^tus::|^safelight\\.(session|user)$/;
  const held = Object.keys(localStorage).filter((name) => personal.test(name));
  for (const { name } of await indexedDB.databases()) {
    const database = await new Promise((done, failed) => {
      const opening = indexedDB.open(name);
      opening.onsuccess = () => done(opening.result);
      opening.onerror = failed;
    });
    for (const store of database.objectStoreNames) {
      const asked = database.transaction(store).objectStore(store).getAll();
      await new Promise((done) => (asked.onsuccess = done));
      held.push(...asked.result.filter((one) => JSON.stringify(one).includes("private") || one.data));
    }
    database.close();
  }
  for (const name of await caches.keys()) {
    for (const { url } of await (await caches.open(name)).keys()) {
      const { pathname } = new URL(url);
      if (pathname !== "/" && !pathname.startsWith("/web/")) held.push(url);
    }
  }
  return held.length;
}"""
"""An expression for the number of entries that the browser keeps of a signed-in user."""


async def test_nothing_personalis_left_in_the_browser_after_signing_out(keyed, root, tmp_path):
    made = await root.call("POST", "/keys", {"name": "me", "scopes": ["upload", "read"]})
    (tmp_path / "private.png").write_bytes(photo(3))
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await page.get_by_label("API key", exact=True).fill(made["token"])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_label("Review before sending").check()
        await page.get_by_label("Choose photos").set_input_files(tmp_path / "private.png")
        await page.get_by_text("Ready").first.wait_for()
        await page.wait_for_function("() => navigator.serviceWorker.controller !== null")
        while await page.evaluate(HELD) < 3:  # the session, its user, and the photo that waits
            pass
        # a user who is signed in can open the page without a connection
        await page.context.set_offline(True)
        await page.reload()
        await page.get_by_role("heading", name="Add your photos").wait_for()
        await page.context.set_offline(False)
        await page.get_by_text("Live", exact=True).wait_for()
        await page.get_by_role("button", name="Access: signed in as me").click()
        async with page.expect_response(lambda answer: answer.request.method == "DELETE") as ended:
            await page.get_by_role("button", name="Sign out").click()
        assert (await (await ended.value).all_headers())["clear-site-data"] == '"cache"'
        await page.get_by_role("heading", name="Sign in").wait_for()
        assert await page.evaluate(HELD) == 0
        await page.context.set_offline(True)
        await page.reload()
        await page.get_by_role("button", name="Try again").wait_for()
        assert await page.get_by_role("navigation").count() == 0
