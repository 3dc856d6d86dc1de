"""Check a page with axe-core."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page

AXE = Path(__file__).parents[3] / "web/node_modules/axe-core/axe.min.js"

_CHECK = """async () => {
  const found = await axe.run({ resultTypes: ["violations"], selectors: false });
  return found.violations
    .filter(({ impact }) => ["moderate", "serious", "critical"].includes(impact))
    .map(({ id, impact, help, nodes }) =>
      `${id} (${impact}): ${help}: ${nodes.slice(0, 3).map(({ html }) => html.slice(0, 150)).join(", ")}`);
}"""
"""A function that returns a sentence for each finding."""


async def findings(page: Page) -> list[str]:
    """Return the findings of at least moderate impact on a page that was opened with `bypass_csp`.

    axe runs outside the page's own content security policy, as a browser extension does.
    """
    if not await page.evaluate("'axe' in window"):
        await page.add_script_tag(path=AXE)
    found: list[str] = await page.evaluate(_CHECK)
    return found
