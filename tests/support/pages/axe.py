"""Check a page with axe-core."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page

AXE = Path(__file__).parents[3] / "web/node_modules/axe-core/axe.min.js"


async def findings(page: Page) -> list[str]:
    """Return the findings of at least moderate impact on a light page, and those of its contrast when it is dark.

    The page was opened with `bypass_csp`, because axe runs outside the page's own content security policy, as a browser
    extension does.
    """
    # Without motion, so that colours change at once.
    await page.emulate_media(color_scheme="light", reduced_motion="reduce")
    if not await page.evaluate("'axe' in window"):
        await page.add_script_tag(path=AXE)
    light = await _violations(page, "{ resultTypes: ['violations'] }")
    await page.emulate_media(color_scheme="dark")
    dark = await _violations(page, "{ resultTypes: ['violations'], runOnly: ['color-contrast'] }")
    await page.emulate_media(color_scheme="light")
    return [*light, *(f"dark: {one}" for one in dark)]


async def _violations(page: Page, options: str) -> list[str]:
    found = await page.evaluate(f"axe.run({options})")
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'][:150] for node in one['nodes'][:3]]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical", "moderate")
    ]
