"""Test the page over plain HTTP under a name of the local network, where browsers trust it less than on the machine."""

from __future__ import annotations

import zipfile

import pytest

from access.conftest import ELSEWHERE
from access.tenants import Api, finish_one
from support.pages.browser import chromium, opened
from support.photos import photo

pytestmark = pytest.mark.slow


async def test_chosen_photos_are_downloaded_under_a_name_of_the_network(plane, http):
    await plane.start_all(trusted_proxies=ELSEWHERE, master={"allowed_hosts": "photos.lan"})
    root = Api(http, plane.url("master"), plane.key)
    made = await root.call("POST", "/keys", {"name": "me", "scopes": ["upload", "read"]})
    async with Api(http, root.url, made["token"]).client() as client:
        for number, name in enumerate(("one.png", "two.png")):
            await client.upload(photo(number), filename=name)
            await finish_one(plane, photo(9))
    address = f"photos.lan:{plane.services['master'].port}"
    async with chromium("--host-resolver-rules=MAP photos.lan 127.0.0.1") as browser, opened(browser, address) as page:
        assert not await page.evaluate("isSecureContext")
        await page.get_by_label("API key", exact=True).fill(made["token"])
        await page.get_by_role("button", name="Sign in").click()
        for name in ("one.png", "two.png"):
            await page.get_by_role("checkbox", name=f"Select {name}").check()
        async with page.expect_download(timeout=20_000) as download:
            await page.get_by_role("button", name="Download ZIP").click()
        with zipfile.ZipFile(await (await download.value).path()) as archive:
            assert len(archive.namelist()) == 2
