"""Test that no user action is lost while the page is drawn, when data arrives, or by older answers."""

import asyncio
import json
import re

import pytest
import pytest_asyncio
from playwright.async_api import expect

from safelight.client.master import Client
from safelight.wire import State
from support.broken_network import network
from support.many import make_many
from support.pages.browser import opened, wait_upload_kept
from support.photos import photo

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

WHEN_DRAWN = """(([selector, act]) => {
  const watcher = new MutationObserver(() => {
    if (!document.querySelector(selector)) return;
    watcher.disconnect();
    act();
  });
  watcher.observe(document, { childList: true, subtree: true });
})"""
"""A script that acts as soon as an element exists, before anything is painted."""

DROPPED = """() => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(window.photo)], "early.png", { type: "image/png" }));
  document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""

SLOW_DATABASE = """(() => {
  const open = IDBFactory.prototype.open;
  window.held = [];
  IDBFactory.prototype.open = function (...given) {
    const request = open.apply(this, given);
    request.addEventListener("success", (event) => {
      if (!window.held) return;
      event.stopImmediatePropagation();
      window.held.push(() => request.dispatchEvent(new Event("success")));
    });
    return request;
  };
})()"""
"""A script that holds the answers of the browser's database until `window.held` is released."""

NOTHING_MORE_IS_KEPT = """() => {
  for (const name of ["put", "delete"]) IDBObjectStore.prototype[name] = function () { return this.count(); };
}"""
"""A script after which the browser's database stays as it is, as if the page were reloaded before it is written."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def crowd(whole):
    """Make thirty photos without a worker."""
    await whole.kill("worker-0")
    await make_many(whole, finished=20, failed=10, batch="crowd")
    yield whole
    await whole.start("worker-0")


async def test_keys_work_from_the_first_moment(browser, crowd):
    async with opened(browser, crowd.master) as page:
        press = "(key) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }))"
        act = f"() => {{ const press = {press}; press('p'); window.at = location.hash; press('/'); "
        act += "window.focused = document.activeElement.id; }"
        await page.add_init_script(f"{WHEN_DRAWN}(['#search', {act}])")
        await page.goto(f"http://{crowd.master}/?fresh#/tasks?state=failed")
        await expect(page.get_by_role("heading", name="Tasks")).to_be_visible()
        assert await page.evaluate("[window.at, window.focused]") == ["#/tasks?state=failed", "search"]
        # In a view without a search, the key / opens one that has it, and the letters typed next go into the search.
        await page.get_by_role("link", name="System").click()
        await page.get_by_role("heading", name="System").wait_for()
        await page.keyboard.type("/photo-1")
        await expect(page.get_by_role("searchbox")).to_have_value("photo-1")
        await page.wait_for_url("**/?fresh#/photos?search=photo-1")


async def test_a_search_keeps_every_letter_and_filter(browser, crowd):
    async with opened(browser, crowd.master) as page:
        await page.goto(f"http://{crowd.master}/#/tasks")
        await page.get_by_role("searchbox").focus()
        async with asyncio.TaskGroup() as both:
            both.create_task(make_many(crowd, waiting=60, batch="more"))
            for letter in "photo-1":
                await page.keyboard.press(letter)
        failed = page.get_by_role("group", name="State").get_by_role("button", name="Failed")
        await failed.click()  # before the search is in the address
        await page.wait_for_function(
            "() => location.hash.includes('search=photo-1') && location.hash.includes('state=failed')"
        )
        await expect(page.get_by_role("searchbox")).to_have_value("photo-1")
        # A search that is cleared while someone types stays clear, and going back restores it.
        await page.get_by_role("searchbox").press_sequentially("5")
        await page.get_by_role("button", name="Clear filters").click()
        await expect(page.get_by_role("searchbox")).to_have_value("")
        await page.get_by_role("searchbox").focus()
        await page.go_back()
        await expect(page.get_by_role("searchbox")).to_have_value(re.compile("^5?photo-1$"))  # as in the former address
        # A link that is followed while someone types leads to its target.
        await page.get_by_role("searchbox").press_sequentially("6")
        await page.get_by_role("link", name="System").click()
        await expect(page.get_by_role("heading", name="System")).to_be_visible()
        assert page.url.endswith("#/system")


async def test_a_confirmation_names_the_selection_that_it_acts_on(browser, crowd):
    async with opened(browser, crowd.master) as page:
        await page.goto(f"http://{crowd.master}/#/tasks?batch=crowd")
        await page.get_by_role("checkbox", name="Select photo-29.png").check()
        bar = page.get_by_role("region", name="Selection")
        await expect(bar).to_contain_text("1 selected")
        seen = await page.evaluate(
            """async () => {
              const bar = document.querySelector(".selection-bar");
              [...bar.querySelectorAll("button")].find((one) => one.textContent.includes("all that match")).click();
              await new Promise((done) => setTimeout(done));
              return document.querySelector(".selection-bar").textContent;
            }"""
        )
        assert "1 selected" not in seen
        await expect(bar).to_contain_text("30 selected")


async def test_an_older_answer_changes_nothing(browser, crowd):
    async with Client.connect(crowd.master) as client:
        newest = (await client.tasks(states=[State.FINISHED], batch="crowd")).tasks[0]
    async with opened(browser, crowd.master) as page:
        let_go = asyncio.Event()

        async def held(route):
            await let_go.wait()
            await route.continue_()

        await page.route(f"**/task/{newest.id}", held)
        await page.goto(f"http://{crowd.master}/#/photos?batch=crowd")
        await page.get_by_role("link", name=f"{newest.filename}, invert").click()
        await page.keyboard.press("ArrowRight")
        shown = page.get_by_role("dialog").get_by_role("heading", name="photo-18.png")
        await expect(shown).to_be_visible()
        async with page.expect_response(f"**/task/{newest.id}"):
            let_go.set()
        await page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        await expect(shown).to_be_visible()


async def test_a_recipe_is_edited_from_the_first_moment(page):
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_text("Add an operation").click()
    click = "[...document.querySelectorAll('button')].find((one) => one.textContent === NAME).click()"
    grayscale, sepia = (click.replace("NAME", repr(name)) for name in ("Grayscale", "Sepia"))
    await page.evaluate(
        f"""async () => {{
          document.querySelector("a[href$='/thumbnail']").click();
          for (let tries = 0; document.querySelector(".edit h2")?.textContent !== "thumbnail"; tries += 1) {{
            if (tries > 5000) throw new Error("The recipe did not come.");
            await new Promise((done) => setTimeout(done));
          }}
          {grayscale};
          await undefined;
          {sepia};
        }}"""
    )
    await expect(page.locator(".step h3")).to_have_text(["Resize", "Grayscale", "Sepia"])
    # two quick changes are undone one by one
    await page.get_by_role("button", name="Undo").click()
    await expect(page.locator(".step h3")).to_have_text(["Resize", "Grayscale"])
    await page.get_by_role("button", name="Undo").click()
    await expect(page.locator(".step h3")).to_have_text(["Resize"])
    await expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    # reloading the list does not change what was typed
    await page.get_by_label("Name to save under").fill("mine")
    await page.get_by_role("link", name="thumbnail").click()
    await expect(page.get_by_label("Name to save under")).to_have_value("mine")


async def test_a_change_for_all_outputs_reaches_the_same_one_of_several_operations(page):
    """A recipe may have an operation twice: what was changed is the second, in every output."""
    steps = 'operations = [{ op = "blur", sigma = 1 }, { op = "blur", sigma = 2 }]'
    written = f"[twice.outputs.a]\n{steps}\n[twice.outputs.b]\n{steps}\n"
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_label("A recipe as TOML or JSON").set_input_files(
        {"name": "twice.toml", "mimeType": "application/toml", "buffer": written.encode()}
    )
    sigmas = page.locator(".step input[type=number]")
    await expect(sigmas).to_have_count(2)
    await page.get_by_label("Apply changes to all outputs").check()
    await sigmas.nth(1).fill("7")
    await sigmas.nth(1).press("Enter")
    # a value that is taken for the largest one twice is undone at once
    for _ in range(2):
        await sigmas.nth(0).fill("999999")
        await sigmas.nth(0).press("Enter")
    await page.get_by_role("button", name="Undo").click()
    await page.get_by_role("group", name="Outputs").get_by_role("button", name="b").click()
    assert [await sigmas.nth(number).input_value() for number in (0, 1)] == ["1", "7"]
    await page.get_by_role("button", name="Remove Blur").nth(1).click()
    await expect(sigmas).to_have_count(1)
    await page.get_by_role("group", name="Outputs").get_by_role("button", name="a").click()
    await expect(sigmas).to_have_count(1)
    assert await sigmas.input_value() == "1"
    # numbers without decimals are rounded, as the service would refuse them
    await page.get_by_text("Encoding:").click()
    quality = page.locator(".encoding input[type=number]").first
    await quality.fill("70.6")
    await quality.press("Enter")
    await expect(quality).to_have_value("71")
    await expect(page.get_by_text("quality 71")).to_be_visible()


async def test_a_recipe_that_is_edited_while_it_is_saved_keeps_the_edit(page, client):
    let_go = asyncio.Event()

    async def held(route):
        await let_go.wait()
        await route.continue_()

    save, description = page.get_by_role("button", name="Save", exact=True), page.get_by_label("Description")
    await page.route("**/recipes/edited", held)
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_role("link", name="thumbnail").click()
    await expect(page.get_by_label("Name to save under")).to_have_value("my-thumbnail")
    await page.get_by_label("Name to save under").fill("edited")
    async with page.expect_request("**/recipes/edited"):
        await save.click()
    await description.fill("typed meanwhile")
    let_go.set()
    await expect(page.get_by_role("heading", name="edited")).to_be_visible()
    await expect(description).to_have_value("typed meanwhile")
    # what was typed is a change that is neither lost nor saved by itself
    await page.get_by_role("link", name="System").click()
    await page.get_by_role("button", name="Keep editing").click()
    await save.click()
    await expect(save).to_be_disabled()
    assert json.loads(bytes((await client.recipe("edited")).spec))["description"] == "typed meanwhile"
    await client.delete_recipe("edited")


async def test_a_recipe_that_somebody_else_has_saved_is_replaced_only_on_request(page, client):
    async def described() -> str:
        return json.loads(bytes((await client.recipe("shared")).spec))["description"]

    spec = {"outputs": {"image": {"format": "png"}}}
    await client.save_recipe("shared", spec | {"description": "first"})
    save, description = page.get_by_role("button", name="Save", exact=True), page.get_by_label("Description")
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_role("link", name="shared").click()
    await description.fill("mine")
    await client.save_recipe("shared", spec | {"description": "theirs"})
    await save.click()
    await expect(page.get_by_role("heading", name="shared was changed meanwhile")).to_be_visible()
    await page.get_by_role("button", name="Keep editing").click()
    await expect(description).to_have_value("mine")
    assert await described() == "theirs"
    await save.click()
    await page.get_by_role("button", name="Save over it").click()
    await expect(save).to_be_disabled()
    assert await described() == "mine"
    await description.fill("mine again")
    await client.save_recipe("shared", spec | {"description": "theirs again"})
    await save.click()
    await page.get_by_role("button", name="Load the saved one").click()
    await expect(description).to_have_value("theirs again")
    await expect(save).to_be_disabled()
    # another recipe is not saved under its name without a question either
    await page.get_by_role("link", name="thumbnail").click()
    await expect(page.get_by_label("Name to save under")).to_have_value("my-thumbnail")
    await page.get_by_label("Name to save under").fill("shared")
    await save.click()
    await page.get_by_role("button", name="Load the saved one").click()
    await expect(description).to_have_value("theirs again")
    # one that was deleted meanwhile is created again
    await description.fill("mine")
    await client.delete_recipe("shared")
    await save.click()
    await expect(save).to_be_disabled()
    assert await described() == "mine"
    await client.delete_recipe("shared")


async def test_a_recipe_that_somebody_else_has_saved_is_deleted_only_on_request(page, client):
    async def described() -> str:
        return json.loads(bytes((await client.recipe("shared")).spec))["description"]

    spec = {"outputs": {"image": {"format": "png"}}}
    await client.save_recipe("shared", spec)
    await page.get_by_role("link", name="Recipes").click()
    await page.get_by_role("link", name="shared").click()
    await expect(page.get_by_label("Name to save under")).to_have_value("shared")
    await client.save_recipe("shared", spec | {"description": "theirs"})
    delete, answer = page.get_by_role("button", name="Delete the recipe shared"), page.get_by_role("dialog")
    for keep in (True, False):
        await delete.click()
        await answer.get_by_role("button", name="Delete").click()
        await expect(page.get_by_role("heading", name="shared was changed meanwhile")).to_be_visible()
        assert await described() == "theirs"
        await answer.get_by_role("button", name="Keep" if keep else "Delete").click()
    await expect(page.get_by_role("link", name="shared")).to_have_count(0)


async def test_photos_dropped_before_the_page_is_ready_are_uploaded(browser, whole, client):
    async with opened(browser, whole.master) as page:
        await page.add_init_script(f"window.photo = {list(photo(0, width=120))}; {WHEN_DRAWN}(['.drop', {DROPPED}])")
        await page.goto(f"http://{whole.master}/?fresh")
        await expect(page.get_by_text("1 photo uploaded", exact=True)).to_be_visible()
        assert [task.filename for task in (await client.tasks()).tasks] == ["early.png"]


async def test_photos_added_while_uploads_are_restored_are_uploaded(browser, whole, client, directory):
    large = directory / "large.tif"
    large.write_bytes(photo(0, width=2400, kind="TIFF"))
    async with network(whole.master) as between, opened(browser, between.address) as page:
        between.hold(2_000_000)
        await page.get_by_label("Choose photos").set_input_files(large)
        await expect(page.locator(".tray li")).to_contain_text("%")
        await wait_upload_kept(page)
        await page.add_init_script(SLOW_DATABASE)
        await page.reload()
        between.flow()
        (directory / "small.png").write_bytes(photo(1, width=120))
        await page.get_by_label("Choose photos").set_input_files(directory / "small.png")
        await page.evaluate("() => { const held = window.held; window.held = null; for (const go of held) go(); }")
        await expect(page.get_by_text("2 photos uploaded", exact=True)).to_be_visible()
        tasks = (await client.tasks()).tasks
        assert sorted(task.filename for task in tasks) == ["large.tif", "small.png"]


async def test_a_reload_right_after_an_upload_does_not_send_the_photo_again(browser, whole, client, directory):
    once, after = directory / "once.tif", directory / "next.png"
    once.write_bytes(photo(0, width=2400, kind="TIFF"))
    after.write_bytes(photo(72))
    async with network(whole.master) as between, opened(browser, between.address) as page:
        between.hold(2_000_000)
        await page.get_by_label("Choose photos").set_input_files(once)
        await wait_upload_kept(page)
        await page.evaluate(NOTHING_MORE_IS_KEPT)
        between.flow()
        await expect(page.get_by_text("1 photo uploaded", exact=True)).to_be_visible()
        await page.reload()
        await page.get_by_label("Choose photos").set_input_files(after)
        await expect(page.get_by_text("1 photo uploaded", exact=True)).to_be_visible()
        names = [task.filename for task in (await client.tasks()).tasks]
        assert sorted(names) == ["next.png", "once.tif"]
