"""Test clients of a proxy that redirects, and of a server of web pages."""

import pytest
from aiohttp import web

from safelight.cli.connection import Where, master
from safelight.client.access import AccessClient
from safelight.client.base import ServiceClient, session
from safelight.client.discovery import Discovery
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.master import Client
from safelight.client.partials import PartialClient
from safelight.client.storage import StorageClient
from safelight.errors import Code
from support.tasks import refused

CALLS = {
    "revoke a key": (AccessClient, lambda client: client.revoke_key("4k2vq7w3")),
    "delete a task": (Client, lambda client: client.delete("1-abcdefghij")),
    "upload": (Client, lambda client: client.upload(b"photo")),
    "store a blob": (StorageClient, lambda client: client.put(b"blob")),
    "append": (PartialClient, lambda client: client.append("1", 0, b"bytes")),
}


@pytest.fixture
async def proxy():
    """Run a proxy that redirects every request with a status to a place; yield its address and what it answers."""
    answer = {"status": 301, "place": "https://photos.example.org{path}"}

    async def redirect(request):
        place = answer["place"].format(path=request.path_qs)
        return web.Response(status=answer["status"], headers={"Location": place}, text="<html>Moved</html>")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", redirect)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", answer
    await runner.cleanup()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("name", CALLS)
async def test_a_redirect_is_not_taken_for_success(proxy, name, status):
    (address, answer), (kind, call) = proxy, CALLS[name]
    answer["status"] = status
    async with kind.connect(address) as client:
        error = await refused(Code.MISDIRECTED, call(client))
    assert error.detail.startswith(f"{address} redirects to https://photos.example.org/")
    assert error.detail.endswith("Give the address https://photos.example.org instead.")
    assert not error.transient


@pytest.mark.parametrize("status", [301, 302, 303, 308])
async def test_the_page_of_a_proxy_is_not_saved_as_a_photo(proxy, status, tmp_path):
    address, answer = proxy
    answer.update(status=status, place="https://login.example.org/?from={path}")
    async with Client.connect(address) as client:
        error = await refused(Code.MISDIRECTED, client.save("1-abcdefghij", tmp_path / "photo.jpg"))
    assert "redirects to https://login.example.org/?from=/task/1-abcdefghij/result. Give an address" in error.detail
    assert list(tmp_path.iterdir()) == []


async def test_a_redirect_is_no_sign_of_health(proxy):
    address, _ = proxy
    async with ServiceClient.connect(address) as client:
        assert not await client.health()


@pytest.mark.parametrize("status", [200, 404, 405, 413, 502])
async def test_a_web_page_is_neither_shown_nor_taken_for_an_answer(proxy, status, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    address, answer = proxy
    answer["status"] = status
    code = {413: Code.TOO_LARGE, 405: Code.METHOD_NOT_ALLOWED, 502: Code.UNAVAILABLE}.get(status, Code.MISDIRECTED)
    async with Client.connect(address) as client:
        client._connection.retry_for = 0.0
        await refused(Code.NOT_FOUND if status == 404 else code, client.summary())
    for where in (Where(master=address), Where(keyvaluestore=address)):
        error = await refused(code if where.master or code is Code.MISDIRECTED else Code.UNAVAILABLE, _summary(where))
        assert "<" not in error.detail
        if where.master:
            assert f"{address} answered {status} with a web page" in error.detail


async def test_a_server_of_web_pages_is_no_key_value_store(proxy):
    address, answer = proxy
    for status in (200, 404):
        answer["status"] = status
        async with session() as http:
            discovery = Discovery(http, address)
            assert not await discovery.found_classic()
            error = await refused(Code.MISDIRECTED, discovery.store.watch(-1))
        assert f"{address} answered {status} with a web page" in error.detail


@pytest.mark.parametrize("name", [".", ".."])
async def test_a_name_that_a_url_leaves_out_is_not_asked_for(name):
    """Without it, the path is that of another thing: that of recipe `..` is that of the page."""
    async with Client.connect("127.0.0.1:1") as client, KeyValueStoreClient.connect("127.0.0.1:1") as store:
        for call in (client.recipe(name), client.delete(name), client.pause_recipe(name), store.get(name)):
            await refused(Code.NOT_FOUND, call)


async def test_pages_are_asked_for_uncompressed(proxy):
    """Compressed ones are not recognised."""
    address, _ = proxy
    async with session() as http, http.get(address, allow_redirects=False) as answer:
        assert answer.request_info.headers["Accept-Encoding"] == "identity"


async def _summary(where):
    async with master(where) as client:
        return await client.summary()
