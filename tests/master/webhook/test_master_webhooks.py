"""Test webhooks with a real server: calls are signed and retried, and never go to internal addresses."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from safelight.client.accounts import AccountClient
from safelight.client.master import Client
from safelight.errors import Error
from safelight.master import __main__ as program
from safelight.wire import Failure, WebhookCallPage
from safelight.wire.accounts import Tenant
from support.leases import fail, finish, take
from support.metrics import until
from support.photos import photo
from support.programs.until import until as until_true
from support.tasks import new_task

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Receiver:
    """Run a server that keeps the requests and gives the answers that a test sets."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[web.Request, bytes]] = asyncio.Queue()
        self.answers: list[web.Response] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.put_nowait((request, await request.read()))
        return self.answers.pop(0) if self.answers else web.Response(status=204)

    async def next(self) -> tuple[web.Request, bytes]:
        return await asyncio.wait_for(self.calls.get(), 15.0)


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    receiver.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def client(system) -> AsyncIterator[Client]:
    master = await system.master(webhook_allow_private=True, webhook_secret=SECRET, webhook_retry=0.05)
    async with Client.connect(master.url) as connected:
        yield connected


async def end_one(client: Client, storage, url: str) -> str:
    task = await client.upload(photo(1), webhook=url)
    (lease,) = await take(client)
    await finish(client, storage, lease, {"image": b"x"})
    return task.id


async def listed(client: Client, outcome: str | None = None) -> WebhookCallPage:
    """Wait until there is a call with an outcome."""
    async with asyncio.timeout(30):
        while not (page := await client.webhook_calls(outcome=outcome)).calls:
            pass
    return page


async def test_the_end_of_a_task_is_sent_with_a_signature(client, storage, receiver):
    made = await end_one(client, storage, receiver.url)
    request, body = await receiver.next()
    told = msgspec.json.decode(body)
    assert told["event"] == "task.finished"
    assert told["task"]["id"] == made
    assert told["task"]["outputs"][0]["name"] == "image"
    assert "lease" not in told["task"]
    assert request.headers["Content-Type"] == "application/json"
    assert Webhook(SECRET).verify(body, dict(request.headers)) == told
    # Compare with the standard's definition: the HMAC of id, time and body, with the key in the secret.
    signed = ".".join([request.headers["webhook-id"], request.headers["webhook-timestamp"], body.decode()])
    expected = base64.b64encode(hmac.new(KEY, signed.encode(), hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


async def test_a_failure_is_sent(client, receiver):
    await client.upload(photo(1), webhook=receiver.url)
    (lease,) = await take(client)
    await fail(client, lease, Failure(code="damaged_image", detail="It is broken."))
    _, body = await receiver.next()
    told = msgspec.json.decode(body)
    assert (told["event"], told["task"]["failure"]["code"]) == ("task.failed", "damaged_image")


@pytest.mark.slow
async def test_a_receiver_that_never_answers_does_not_delay_the_calls_of_other_tenants(client, system, db, receiver):
    """A call may take 15 s, so a hundred calls would occupy all places for half a minute."""
    async with AccountClient.connect(system.address("db")) as accounts:
        for name in ("silent", "other"):
            await accounts.create_tenant(Tenant(id=name))
    async with silent() as (called, url):
        tasks = await db.create([new_task(tenant="silent", webhook=url) for _ in range(100)])
        await asyncio.gather(*(db.cancel(task.id) for task in tasks))
        await asyncio.wait_for(called.wait(), 30.0)
        (task,) = await db.create([new_task(tenant="other", webhook=receiver.url)])
        await db.cancel(task.id)
        _, body = await receiver.next()
        assert msgspec.json.decode(body)["task"]["id"] == task.id


async def test_names_that_are_never_resolved_delay_no_other_tenant(client, system, db, receiver, monkeypatch):
    """Looking up a name occupies a thread, and the event loop has only a few of them for everything else."""
    async with AccountClient.connect(system.address("db")) as accounts:
        for name in ("silent", "other"):
            await accounts.create_tenant(Tenant(id=name))
    resolve, asked, answered = socket.getaddrinfo, [], threading.Event()

    def look_up(host, *arguments, **options):
        if str(host).endswith(".silent.test"):
            asked.append(host)
            answered.wait(60.0)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    few = min(32, (os.cpu_count() or 1) + 4)
    try:
        tasks = await db.create([new_task(tenant="silent", webhook=f"http://{n}.silent.test/") for n in range(few)])
        await asyncio.gather(*(db.cancel(task.id) for task in tasks))
        await until_true(lambda: len(asked) >= few)
        (task,) = await db.create([new_task(tenant="other", webhook=receiver.url.replace("127.0.0.1", "localhost"))])
        await db.cancel(task.id)
        _, body = await receiver.next()
        assert msgspec.json.decode(body)["task"]["id"] == task.id
        await asyncio.wait_for(asyncio.to_thread(int), 10.0)
    finally:
        answered.set()


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[asyncio.Event, str]]:
    """Accept connections and never answer; the event is set when there are as many as one tenant may have calls."""
    called, kept = asyncio.Event(), []

    def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)
        if len(kept) >= 32:
            called.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield called, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()
        for writer in kept:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in kept), return_exceptions=True)


@pytest.mark.slow
async def test_refused_calls_are_repeated_and_redirects_are_not_followed(client, storage, receiver):
    receiver.answers = [
        web.Response(status=500),
        web.Response(status=302, headers={"Location": receiver.url + "/elsewhere"}),
    ]
    await end_one(client, storage, receiver.url)
    calls = [await receiver.next() for _ in range(3)]
    assert {request.path for request, _ in calls} == {"/hook"}
    assert len({request.headers["webhook-id"] for request, _ in calls}) == 1
    assert len({body for _, body in calls}) == 1


async def test_an_answer_in_an_encoding_that_is_not_installed_counts(client, storage, receiver):
    receiver.answers = [web.Response(status=200, body=b"\x0b\x02\x80ok\x03", headers={"Content-Encoding": "br"})]
    await end_one(client, storage, receiver.url)
    request, _ = await receiver.next()
    assert request.headers["Accept-Encoding"] == "identity"
    (call,) = (await listed(client)).calls
    assert (call.outcome, call.answer.status) == ("delivered", 200)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Run a receiver that answers each call with bytes; give its URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with await asyncio.start_server(handle, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_of_a_long_answer_the_beginning_counts(client, storage):
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000) as url:
        await end_one(client, storage, url)
        (call,) = (await listed(client, "delivered")).calls
    assert call.answer.detail == "x" * 500


async def test_a_receiver_that_sends_interim_answers_only_is_not_read_on(client, storage):
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with answering(interim * 100_000 + b"HTTP/1.1 204 No Content\r\n\r\n") as url:
        await end_one(client, storage, url)
        (call, *_) = (await listed(client, "failed")).calls
    assert call.answer.detail == "no answer within 16384 bytes"


async def test_calls_are_listed_with_their_answers_and_one_is_made_again(client, storage, receiver):
    receiver.answers = [web.Response(status=503, text="Not now."), web.Response(status=410, text="x" * 5000)]
    made = await end_one(client, storage, receiver.url)
    first = await receiver.next()
    await receiver.next()
    (call,) = (await listed(client, "given_up")).calls
    assert (call.task, call.url, call.attempt, call.again) == (made, receiver.url, 2, None)
    assert call.answer.status == 410
    assert call.answer.detail == "x" * 500, "the beginning of the answer must be kept"
    await client.delete(made)
    await client.resend(call.id)
    assert (await receiver.next())[1] == first[1], "a repeated call must describe the task as it was at its end"
    (again,) = (await listed(client, "delivered")).calls
    assert (again.answer.status, again.attempt, again.task) == (204, 1, made)
    with pytest.raises(Error) as caught:
        await client.resend("12345")
    assert caught.value.status == 404


@pytest.mark.parametrize("secret", ["a secret", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!!"])
async def test_a_secret_that_is_too_weak_is_refused_with_a_sentence(system, secret, capsys):
    with pytest.raises(SystemExit):
        await system.master(webhook_secret=secret)
    assert "--webhook-secret" in capsys.readouterr().err


@pytest.fixture
def certificate(tmp_path):
    """Return a PEM file with a self-signed certificate for 127.0.0.1 and its key."""
    file = tmp_path / "receiver.pem"
    made_by = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=receiver", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*made_by, *names, "-keyout", file, "-out", tmp_path / "only"], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (tmp_path / "only").read_bytes())
    return file


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_https_receiver_needs_a_certificate_of_a_known_authority(system, storage, http, certificate, trusted):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    settings = {"webhook_authorities": str(certificate)} if trusted else {}
    master = await system.master(webhook_allow_private=True, webhook_retry=0.05, **settings)
    async with receiving(tls) as receiver, Client.connect(master.url) as client:
        made = await end_one(client, storage, receiver.url)
        if trusted:
            _, body = await receiver.next()
            assert msgspec.json.decode(body)["task"]["id"] == made
        else:
            await until(http, master.url, outcome("failed"), lambda count: count > 0)
            assert receiver.calls.empty()


@pytest.mark.parametrize("failure", [OSError("no"), RuntimeError("can't start new thread"), MemoryError()], ids=repr)
async def test_authorities_that_could_not_be_read_are_read_again(
    system, storage, http, certificate, monkeypatch, failure
):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    master = await system.master(webhook_allow_private=True, webhook_retry=0.05, webhook_authorities=str(certificate))
    make, failures = ssl.create_default_context, [failure]

    def made(**options):
        if failures:
            raise failures.pop()
        return make(**options)

    monkeypatch.setattr(ssl, "create_default_context", made)
    async with receiving(tls) as receiver, Client.connect(master.url) as client:
        await end_one(client, storage, receiver.url)
        await receiver.next()
        await until(http, master.url, outcome("failed"), lambda count: count == 1)


def test_a_missing_list_of_authorities_is_refused_at_the_start(tmp_path):
    with pytest.raises(SystemExit):
        program.main(["localhost:1", "--webhook-authorities", str(tmp_path / "none.pem"), "--data", str(tmp_path)])


def outcome(name: str) -> str:
    return f'safelight_webhooks_total{{outcome="{name}"}}'


async def test_a_receiver_that_answers_gone_is_not_called_again(system, client, storage, receiver, http):
    receiver.answers = [web.Response(status=410)]
    await end_one(client, storage, receiver.url)
    await until(http, system.address("master"), outcome("given_up"), lambda count: count == 1)
    assert receiver.calls.qsize() == 1


async def test_a_name_of_an_internal_address_is_refused_at_the_call(system, storage, receiver, http):
    """This machine's own name is an ordinary name, but resolves to an internal address."""
    master = await system.master()
    url = receiver.url.replace("127.0.0.1", socket.gethostname())
    async with Client.connect(master.url) as client:
        await end_one(client, storage, url)
        await until(http, master.url, outcome("refused"), lambda count: count == 1)
    assert receiver.calls.empty()


async def test_a_name_of_several_internal_addresses_is_refused_and_none_is_told(system, storage, http, monkeypatch):
    resolve = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if host == "inside.test":
            return [(kind, socket.SOCK_STREAM, 6, "", (address, 80)) for kind, address in inside]
        return resolve(host, *arguments, **options)

    inside = [(socket.AF_INET6, "fd12::7"), (socket.AF_INET, "10.9.8.7")]
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    master = await system.master()
    async with Client.connect(master.url) as client:
        await end_one(client, storage, "http://inside.test/")
        (call,) = (await listed(client)).calls
    assert call.outcome == "given_up"
    assert call.answer.detail == "the host is inside this network, which only --webhook-allow-private allows"
