"""Test a hostile page in a real browser on the machine where safelight runs: it can neither read nor change anything.

It tries everything that pages can do: fetch, forms, images, scripts, frames, WebSockets, event streams, beacons, and
DNS rebinding (the browser maps `evil.example` to 127.0.0.1, as a hostile name server would).
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from playwright.async_api import Page, expect

from support.pages.browser import chromium
from support.photos import photo

pytestmark = pytest.mark.slow

FLAGS = (
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
    # Newer browsers themselves block pages' requests to the local network; safelight must not depend on that.
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessSendPreflights",
)

ATTACK = """
async ({store, storage, db, master, task}) => {
  const outcomes = {}, all = [];
  const attempt = (name, doing) => all.push(Promise.race([
    doing().then(got => { outcomes[name] = got }, error => { outcomes[name] = 'refused' }),
    new Promise(done => setTimeout(done, 8000)),
  ]));
  const text = async (url, options) => { const answer = await fetch(url, options); return await answer.text() };
  attempt('fetch', () => text(master + '/tasks'));
  attempt('fetch with key', () => text(master + '/tasks', {headers: {Authorization: 'Bearer x'}}));
  attempt('fetch store', () => text(store + '/'));
  attempt('fetch blob', () => text(storage + '/info'));
  attempt('opaque', async () => (await fetch(master + '/tasks', {mode: 'no-cors'})).type);
  attempt('take a task', () => text(master + '/task/next', {mode: 'no-cors'}));
  attempt('take from db', () => text(db + '/task/next', {mode: 'no-cors'}));
  attempt('post', () => text(store + '/storageendpoint',
    {method: 'POST', mode: 'no-cors', body: new URLSearchParams({value: 'evil.example:1'})}));
  attempt('post text', () => text(store + '/dbendpoint',
    {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}, body: '{"value": "evil.example:1"}'}));
  attempt('put', () => text(store + '/dbendpoint', {method: 'PUT', body: '{"value": "evil.example:1"}'}));
  attempt('delete', () => text(master + '/task/' + task, {method: 'DELETE'}));
  attempt('cancel', () => text(master + '/task/' + task + '/cancel', {method: 'POST', mode: 'no-cors'}));
  attempt('collect', () => text(storage + '/collect', {method: 'POST', mode: 'no-cors'}));
  attempt('shutdown', () => text(master + '/shutdown', {method: 'POST', mode: 'no-cors'}));
  attempt('beacon', async () => {
    navigator.sendBeacon(store + '/masterendpoint', new URLSearchParams({value: 'e:1'})); throw 0;
  });
  attempt('upload', () => {
    const form = new FormData(); form.append('image', new Blob(['GIF89a' + 'x'.repeat(100)]), 'x.gif');
    return text(master + '/task', {method: 'POST', mode: 'no-cors', body: form});
  });
  for (const [kind, path] of [['img', '/task/' + task + '/original'], ['script', '/tasks'], ['link', '/docs/docs.css']])
    attempt(kind, () => new Promise((loaded, failed) => {
      const element = document.createElement(kind);
      element.onload = () => loaded('loaded'); element.onerror = failed;
      element.rel = 'stylesheet'; element[kind === 'link' ? 'href' : 'src'] = master + path;
      document.body.append(element);
    }));
  attempt('stream', () => new Promise((opened, failed) => {
    const source = new EventSource(master + '/events'); source.onopen = () => opened('opened'); source.onerror = failed;
  }));
  attempt('socket', () => new Promise((opened, failed) => {
    const socket = new WebSocket(master.replace('http', 'ws') + '/events');
    socket.onopen = () => opened('opened'); socket.onerror = failed;
  }));
  for (const [name, url] of [['frame', master + '/'], ['form', store + '/masterendpoint']])
    attempt(name, () => new Promise((done, failed) => {
      const frame = document.createElement('iframe'); frame.name = name;
      if (name === 'frame') {
        frame.src = url;
        frame.onload = () => { try { frame.contentDocument.title; done('readable') } catch { failed() } };
      }
      document.body.append(frame);
      if (name === 'form') {
        const form = document.createElement('form');
        form.method = 'POST'; form.action = url; form.target = name;
        form.innerHTML = '<input name=value value=evil.example:1>';
        document.body.append(form); form.submit(); setTimeout(failed, 1500);
      }
    }));
  await Promise.all(all);
  return outcomes;
}
"""


@asynccontextmanager
async def hostile_site() -> AsyncIterator[int]:
    """Run a hostile site; yield its port."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>Free photos</title><body>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def upload(http, master: str) -> str:
    """Upload a photo that no worker takes; return its task."""
    form = {"image": io.BytesIO(photo(1))}
    async with http.post(f"{master}/task", data=form) as answer:
        assert answer.status == 200
        return str((await answer.json())["id"])


async def state(plane, http) -> dict[str, object]:
    """Return all state that an attack could have changed."""
    found = {}
    for name, path in [
        ("keyvaluestore", "/dbendpoint"), ("keyvaluestore", "/storageendpoint"), ("keyvaluestore", "/masterendpoint"),
        ("db", "/tasks"), ("storage", "/info"),
    ]:  # fmt: skip
        async with http.get(plane.url(name) + path) as answer:
            found[path] = await answer.text()
    del found["/info"]  # the free space of the disk changes for other reasons
    return found


@pytest.mark.parametrize("site", ["localhost", "evil.example"])
async def test_a_page_from_elsewhere_reads_nothing_and_changes_nothing(plane, http, site):
    await plane.start_all()
    task = await upload(http, plane.url("master"))
    before = await state(plane, http)
    where = {name: plane.url(service) for name, service in zip(
        ("store", "storage", "db", "master"), ("keyvaluestore", "storage", "db", "master"), strict=True
    )}  # fmt: skip
    async with hostile_site() as port, chromium(*FLAGS) as browser:
        page = await browser.new_page()
        await page.goto(f"http://{site}:{port}/")
        outcomes = await page.evaluate(ATTACK, {**where, "task": task})
    assert len(outcomes) == 23, outcomes
    # A request without CORS is sent, and its answer is opaque. That it had no effect is asserted below.
    opaque = {"opaque", "take a task", "take from db", "post", "post text", "cancel", "collect", "shutdown", "upload"}
    for name, outcome in outcomes.items():
        assert outcome in (("refused", "", "opaque") if name in opaque else ("refused",)), (name, outcome)
    assert await state(plane, http) == before


SHARE = """
async ({target, bytes}) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "theirs.gif", {type: "image/gif"}));
  const form = Object.assign(document.createElement("form"),
    {action: target + "/share", method: "post", enctype: "multipart/form-data"});
  const field = Object.assign(document.createElement("input"), {type: "file", name: "photos"});
  field.files = transfer.files;
  form.append(field);
  document.body.append(form);
  form.submit();
}
"""


@asynccontextmanager
async def beside_the_installed_page(master: str) -> AsyncIterator[Page]:
    """Yield a hostile page in a browser in which safelight's page has its service worker."""
    async with hostile_site() as port, chromium(*FLAGS) as browser:
        page = await browser.new_page()
        await page.goto(f"{master}/")
        await page.wait_for_function("() => navigator.serviceWorker.controller !== null")
        await page.goto(f"http://localhost:{port}/")
        yield page


async def test_photos_that_a_page_from_elsewhere_shares_are_not_uploaded_unasked(plane, http):
    """The service worker answers its form, so the service does not see that another site has sent it."""
    await plane.start_all()
    master = plane.url("master")
    async with beside_the_installed_page(master) as page:
        await page.evaluate(SHARE, {"target": master, "bytes": list(photo(2))})
        asked = page.get_by_role("dialog", name="Upload what was shared?")
        await expect(asked).to_contain_text("1 photo: theirs.gif.")
        await asked.get_by_role("button", name="Discard").click()
        await expect(asked).to_have_count(0)
        await page.goto(f"{master}/?shared")
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        await expect(asked).to_have_count(0)
        await expect(page.get_by_role("region", name="Uploads")).to_have_count(0)
    async with http.get(f"{master}/tasks") as answer:
        assert (await answer.json())["tasks"] == []


async def test_a_link_on_another_site_leads_to_the_page_also_once_that_is_installed(plane):
    """The service worker fetches the page then."""
    await plane.start_all()
    async with beside_the_installed_page(plane.url("master")) as page:
        await page.evaluate("target => { location.href = target + '/#/tasks' }", plane.url("master"))
        await expect(page.get_by_role("heading", name="Tasks")).to_be_visible()


async def attack(route):
    await route.fulfill(body="<title>x", content_type="text/html")


async def test_a_name_that_was_rebound_to_this_machine_has_no_access(plane, http):
    await plane.start_all()
    task = await upload(http, plane.url("master"))
    before = await state(plane, http)
    async with chromium(*FLAGS) as browser:
        page = await browser.new_page()
        for name in plane.services:
            address = plane.url(name).replace("127.0.0.1", "evil.example")
            # The page comes from the attacker, before the name is rebound; its later requests reach our services.
            await page.route(f"{address}/attack", attack)
            for path in ("/", "/healthz", "/docs", f"/task/{task}/original"):
                answer = await page.goto(address + path)
                assert answer is not None
                assert answer.status == 421, (name, path)
            await page.goto(f"{address}/attack")
            found = await page.evaluate(
                """async () => {
                  const answers = [];
                  for (const [method, path] of [['GET', '/tasks'], ['POST', '/dbendpoint'], ['PUT', '/dbendpoint'],
                                                ['DELETE', '/dbendpoint'], ['GET', '/'], ['POST', '/collect']])
                    answers.push((await fetch(path, {method, body: method === 'GET' ? null : '{}'})).status);
                  return answers;
                }"""
            )
            assert set(found) == {421}, (name, found)
    assert await state(plane, http) == before


async def test_our_own_page_still_works(plane, http):
    await plane.start_all()
    async with chromium() as browser:
        page = await browser.new_page()
        for site in ("localhost", "127.0.0.1"):
            async with asyncio.timeout(30):
                await page.goto(plane.url("master").replace("127.0.0.1", site))
                statuses = await page.evaluate(
                    """async () => [(await fetch('tasks')).status,
 (await fetch('recipes/check', {method: 'POST', body: '{"outputs":{"a":{}}}'})).status]"""
                )
            assert statuses == [200, 200]
