"""Test the proxy configurations of docs/guide/proxies.md as they are, with TLS and under a path prefix."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from safelight import http
from support.pages.browser import chromium
from support.photos import photo
from support.programs.ports import free_port
from support.programs.processes import program

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[3] / "docs/guide/proxies.md"
CLASSIC = "203.0.113.9"


def certificate(directory: Path) -> ssl.SSLContext:
    """Make a certificate for localhost; return an SSL context that trusts it."""
    pem, key = directory / "example.pem", directory / "example.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", pem],
        check=True, capture_output=True,
    )  # fmt: skip
    (directory / "example.both.pem").write_text(pem.read_text() + key.read_text())
    return ssl.create_default_context(cafile=str(pem))


def configuration(kind: str, directory: Path, port: int, master: int) -> str:
    """Return the guide's configuration, with ports, names and files of this test."""
    found = re.search(rf"```{kind}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    text = found[1].replace("example.org", "localhost").replace("/etc/ssl", str(directory))
    text = text.replace("127.0.0.1:8003", f"127.0.0.1:{master}")
    return re.sub(r"\b443\b", str(port), text)


@asynccontextmanager
async def proxy(kind: str, directory: Path, port: int, master: int) -> AsyncIterator[None]:
    text = configuration(kind, directory, port, master)
    file = directory / {"nginx": "nginx.conf", "caddyfile": "Caddyfile", "haproxy": "haproxy.cfg"}[kind]
    match kind:
        case "nginx":
            temporary = "".join(f"{name}_temp_path {directory}/{name}; " for name in ("client_body", "proxy"))
            top = f"daemon off; master_process off; pid {directory}/pid; events {{}}"
            text = f"{top} http {{ {temporary} access_log off;\n{text}\n}}"
            command = ["/usr/sbin/nginx", "-e", "stderr", "-c", str(file)]
        case "caddyfile":
            text = f"{{\n    admin off\n    auto_https disable_redirects\n}}\n{text}"
            command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]
        case _:
            command = ["/usr/sbin/haproxy", "-f", str(file)]
    file.write_text(text)
    async with program(*command, name=kind, env={"HOME": str(directory)}) as running:
        async with asyncio.timeout(60):
            while True:
                assert running.running, running.lines
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield


@pytest.mark.parametrize("kind", ["nginx", "caddyfile", "haproxy"])
async def test_everything_works_under_a_prefix(plane, tmp_path, monkeypatch, kind):
    trust, port = certificate(tmp_path), free_port()
    site = f"https://localhost:{port}"
    for name in ("keyvaluestore", "db", "storage"):
        await plane.start(name)
    master = await plane.start(
        "master", public_url=f"{site}/photos", trusted_proxies="127.0.0.1", classic_networks="203.0.113.0/24"
    )
    for name in ("db", "storage"):
        await master.discovery.wait_for(name)
    async with proxy(kind, tmp_path, port, master.port):
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(site, connector=connector, headers=plane.credentials) as http:
            await answers(http, site)
        await forwarded(master, site, trust)
        await smuggled(monkeypatch, master, port, trust)
        await in_a_browser(site)


async def answers(http: aiohttp.ClientSession, site: str) -> None:
    async with http.get("/photos") as answer:
        assert (answer.status, answer.url.path) == (200, "/photos/")
    async with http.post("/photos/task", data={"image": io.BytesIO(photo(1))}) as answer:
        location = answer.headers["Location"]
        assert (answer.status, location) == (200, f"/photos/task/{(await answer.json())['id']}")
    async with http.get(location) as answer:
        assert answer.status == 200
    async with http.get("/photos/openapi.json") as answer:
        assert (await answer.json())["servers"] == [{"url": "/photos"}]
    data = photo(2)
    name = base64.b64encode(b"photo.jpg").decode()
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(data)), "Upload-Metadata": f"filename {name}"}
    async with http.post("/photos/uploads", headers=headers) as answer:
        assert answer.status == 201
        upload = answer.headers["Location"]
        assert upload.startswith("/photos/uploads/")
    headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    async with http.patch(upload, data=data, headers=headers) as answer:
        assert answer.status == 204
        assert answer.headers["Safelight-Task"]
    async with http.get("/photos/events", params={"after": "0"}) as answer:  # arrives while the stream is open
        async with asyncio.timeout(60):
            while b"data:" not in await answer.content.readuntil(b"\n\n"):
                pass
    async with http.get("/elsewhere") as answer:
        assert answer.status != 200 or not await answer.read()
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        async with http.get("/photos/tasks", headers=headers) as answer:
            assert answer.status == 403
    async with http.get("/photos/tasks", headers={"Origin": site}) as answer:
        assert answer.status == 200


async def forwarded(master, site: str, trust: ssl.SSLContext) -> None:
    """A client cannot forge its address; the proxy sets it."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as http:
        spoofed = {"X-Forwarded-For": CLASSIC}
        for headers in ({}, spoofed, {"X-Forwarded-For": f"{CLASSIC}, {CLASSIC}"}):
            async with http.get(f"{site}/photos/tasks", headers=headers) as answer:
                assert answer.status in (401, 403)
        async with http.get(f"{master.url}/task/next", headers=spoofed) as answer:
            assert answer.status == 200  # the header of a trusted proxy is used
        async with http.get(f"{master.url}/task/next") as answer:
            assert answer.status == 401


AMBIGUOUS = (
    "Content-Length: {whole}",
    "Content-Length: {whole}\r\nTransfer-Encoding: chunked",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: {whole}",
    "Content-Length: {whole}\r\nTransfer-Encoding: xchunked",
    "Content-Length: {whole}\r\nTransfer-Encoding : chunked",
    "Content-Length: {whole}\r\nTransfer-Encoding:\x0bchunked",
    "Content-Length: {whole}\r\nTransfer-Encoding: identity, chunked",
    "Content-Length: {whole}\r\nTransfer-Encoding: chunked, identity",
    "Content-Length: {whole}\r\nTransfer-Encoding: chunked\r\nTransfer-encoding: x",
    "Content-Length: {whole}\r\nX-Fold: a\r\n Transfer-Encoding: chunked",
    "Content-Length: {whole}\r\nX: y\rTransfer-Encoding: chunked",
    "Content-Length: {whole}\nTransfer-Encoding: chunked",
    "Content-Length: +5",
    "Content-Length: 5, {whole}",
)
"""Requests that state the end of the body twice (except the first), so that the rest may pass as a second request."""


async def smuggled(monkeypatch: pytest.MonkeyPatch, master, port: int, trust: ssl.SSLContext) -> None:
    """Every request that reaches the master must be one that the proxy has seen, even if its end is stated twice."""
    seen: list[web.BaseRequest] = []
    answer = http._answer

    async def noted(request, *others):
        if request.app[http.SERVICE] is master:
            seen.append(request)
        return await answer(request, *others)

    monkeypatch.setattr(http, "_answer", noted)
    hidden = "0\r\n\r\nGET /photos/smuggled HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
    for headers in AMBIGUOUS:
        shown = headers.format(whole=len(hidden))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
        writer.write(f"POST /photos/session HTTP/1.1\r\nHost: localhost\r\n{shown}\r\n\r\n{hidden}".encode())
        writer.write(b"GET /photos/last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):  # some proxies end the connection at once
                await reader.read()
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert seen
    for request in seen:
        chain = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        assert chain[-1].strip() == "127.0.0.1", (request.path, request.raw_headers)


async def in_a_browser(site: str) -> None:
    async with chromium() as browser:
        context = await browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        seen: list[tuple[str, int]] = []
        page.on("response", lambda answer: seen.append((answer.url, answer.status)))
        await page.goto(f"{site}/photos/")
        await page.wait_for_selector("main, form, nav")
        await page.goto(f"{site}/photos/docs")
        await page.get_by_text("Upload one photo").first.wait_for()
    assert any(url.startswith(f"{site}/photos/web/app.js") and status == 200 for url, status in seen), seen
    for url, status in seen:
        assert url.startswith(f"{site}/photos/"), url
        assert status in (200, 304, 401), (url, status)
