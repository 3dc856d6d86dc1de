"""axe-core finds nothing serious on any view, in light and dark, large and small."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from support.browser import opened
from support.photos import photo

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"
SIZES = {"desktop": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 844}}


async def findings(page):
    # axe runs outside the page's own policy, as a person's browser extension would.
    found = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'][:150] for node in one['nodes'][:3]]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical", "moderate")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
async def test_no_serious_finding(browser, whole, client, scheme, size):
    for number in range(2):
        task = await client.upload(photo(number, width=300), recipe="web", filename=f"photo-{number}.png")
        await client.wait(task.id, timeout=45)
    await client.upload(photo(3)[:5000], filename="cut-off.png", batch="autumn")
    async with opened(browser, whole.master, color_scheme=scheme, viewport=SIZES[size], bypass_csp=True) as page:
        await page.add_script_tag(path=AXE)
        problems = {}
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
        await page.keyboard.press("Escape")
        await page.get_by_role("link", name="Tasks", exact=True).click()
        await expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
        problems["tasks"] = await findings(page)
        await page.get_by_role("link", name="cut-off.png").click()
        await expect(page.get_by_role("region", name="Attempts")).to_contain_text("damaged")
        problems["task"] = await findings(page)
        await page.keyboard.press("?")
        problems["keys"] = await findings(page)
        await page.keyboard.press("Escape")
        await page.get_by_role("link", name="Batches").click()
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
        problems["system"] = await findings(page)
    assert {view: found for view, found in problems.items() if found} == {}
