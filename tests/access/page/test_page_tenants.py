"""Test that a system administrator can view another tenant on the page, and act for it."""

import re
import zipfile

import pytest
from playwright.async_api import expect

from access.tenants import Api, finish_one, keyed_tenant
from support.pages.axe import findings
from support.pages.browser import chromium, opened
from support.photos import photo

pytestmark = pytest.mark.slow


async def sign_in(page, api):
    await page.get_by_label("API key", exact=True).fill(api.token)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("navigation", name="Main").wait_for()


async def test_tasks_are_found_by_tenant_and_acted_on(keyed, http, tmp_path):
    root = Api(http, keyed.url("master"), keyed.key)
    acme = await keyed_tenant(root, "acme")
    made = await root.call("POST", "/keys", {"name": "root", "scopes": ["upload", "read", "operate", "administer"]})
    async with acme.client() as theirs, Api(http, root.url, made["token"]).client() as ours:
        await theirs.upload(photo(1), filename="their-first.png")
        await finish_one(keyed, photo(2))
        await theirs.upload(photo(3), filename="their-second.png")
        await ours.upload(photo(4), filename="our-own.png")
        async with chromium() as browser, opened(browser, root.url.removeprefix("http://"), bypass_csp=True) as page:
            await sign_in(page, Api(http, root.url, made["token"]))
            await page.get_by_role("link", name="Tasks", exact=True).click()
            rows = page.locator(".table .virtual .row")
            await expect(rows).to_have_text(re.compile("our-own.png"))
            await page.get_by_label("Tenant").select_option("acme")
            await expect(rows).to_have_count(2)
            assert page.url.endswith("#/tasks?tenant=acme")
            await expect(page.get_by_text("You see the data of the tenant acme")).to_be_visible()
            assert await findings(page) == []
            # changes of the tenant appear live; actions, pictures and uploads belong to the tenant
            await theirs.upload(photo(5), filename="their-third.png")
            await expect(rows).to_have_count(3)
            await page.get_by_role("button", name="Cancel their-second.png").click()
            await expect(rows.filter(has_text="their-second.png")).to_contain_text("Cancelled")
            await page.get_by_role("link", name="Photos", exact=True).click()
            await expect(page.locator(".card img.shown")).to_have_count(1)
            (tmp_path / "for-them.png").write_bytes(photo(6))
            await page.get_by_label("Choose photos").set_input_files(tmp_path / "for-them.png")
            await expect(page.get_by_text("1 photo uploaded", exact=True)).to_be_visible()
            await page.reload()
            await expect(page.locator(".card img.shown")).to_have_count(1)
            await page.get_by_role("link", name="System").click()
            await expect(page.locator(".system .error")).to_have_count(0)
            await page.get_by_role("link", name="Back to your own").click()
            await page.get_by_role("link", name="Tasks", exact=True).click()
            await expect(rows).to_have_count(1)
            assert "tenant" not in page.url
        names = {task.filename for task in (await theirs.tasks()).tasks}
        assert names == {"their-first.png", "their-second.png", "their-third.png", "for-them.png"}
        assert [task.filename for task in (await ours.tasks()).tasks] == ["our-own.png"]


async def test_all_outputs_of_a_photo_of_another_tenant_are_downloaded(keyed, http):
    root = Api(http, keyed.url("master"), keyed.key)
    acme = await keyed_tenant(root, "acme")
    made = await root.call("POST", "/keys", {"name": "root", "scopes": ["administer"]})
    async with acme.client() as theirs:
        task = await theirs.upload(photo(1), filename="theirs.png")
    await finish_one(keyed, photo(2), outputs=("small", "large"))
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await sign_in(page, Api(http, root.url, made["token"]))
        await page.goto(f"{root.url}/#/photos/{task.id}?tenant=acme")
        async with page.expect_download() as download:
            await page.get_by_role("link", name="All outputs as ZIP").click()
        with zipfile.ZipFile(await (await download.value).path()) as archive:
            assert sorted(archive.namelist()) == ["theirs.large.png", "theirs.small.png"]


async def test_nobody_else_looks_at_another_tenant(keyed, http):
    root = Api(http, keyed.url("master"), keyed.key)
    acme, other = await keyed_tenant(root, "acme"), await keyed_tenant(root, "other")
    async with acme.client() as theirs:
        await theirs.upload(photo(1), filename="theirs.png")
    async with chromium() as browser, opened(browser, root.url.removeprefix("http://")) as page:
        await sign_in(page, other)
        await page.get_by_role("link", name="Tasks", exact=True).click()
        await expect(page.get_by_text("There are no tasks.")).to_be_visible()
        assert await page.get_by_label("Tenant").count() == 0
        await page.goto(f"{root.url}/#/tasks?tenant=acme")
        await expect(page.get_by_text(re.compile("Only administrators of the tenant default")).first).to_be_visible()
        assert await page.get_by_text("theirs.png").count() == 0
