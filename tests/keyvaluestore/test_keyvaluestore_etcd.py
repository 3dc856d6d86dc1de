"""Test the etcd backend only: members that die, several stores at once, compacted histories, TLS, users."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.error
from contextlib import AsyncExitStack, suppress

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from safelight import serve
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.errors import Code, Error
from safelight.keyvaluestore.__main__ import Config, build
from safelight.keyvaluestore.etcd import Access, EtcdStore, Gateway, trust
from support.programs.processes import service
from support.readiness import away_and_back
from support.servers.etcd import cluster

pytestmark = pytest.mark.slow

TIMEOUT = 60


@pytest.fixture
async def stores(etcd):
    """Yield two instances of one store."""
    async with AsyncExitStack() as stack:
        prefix = stack.enter_context(etcd.prefix())
        gateway = await stack.enter_async_context(Gateway.open(etcd.url, Access()))
        yield [await stack.enter_async_context(EtcdStore.open(gateway, prefix=prefix)) for _ in range(2)]


async def test_any_instance_answers_alike(stores):
    one, other = stores
    for number in range(20):
        entry = await one.set("k", str(number), instance="a", ttl=60)
        assert await other.get("k") == str(number)
        assert (await other.entries("k")).entries[0].revision == entry.revision
        assert (await other.set("k", str(number), instance="a", ttl=60)).revision == entry.revision
    watching = asyncio.create_task(other.watch(entry.revision, wait=30))
    await one.delete("k")
    async with asyncio.timeout(TIMEOUT):
        assert (await watching).entries == []


async def test_a_cluster_that_is_set_up_again_is_followed(tmp_path):
    """Its revision begins again, far below those that the store has seen."""
    with cluster(tmp_path, members=1) as etcd:
        async with Gateway.open(etcd.url, Access()) as gateway, EtcdStore.open(gateway) as store:
            for number in range(20):
                before = await store.set("k", str(number))
            watching = asyncio.create_task(store.watch(before.revision, wait=TIMEOUT))
            etcd.kill(0)
            shutil.rmtree(tmp_path / "member-0")
            etcd.start(0)
            await asyncio.to_thread(etcd.wait)
            page = await watching
            assert page.entries == []
            assert page.revision < before.revision
            for number in range(3):
                watching = asyncio.create_task(store.watch(page.revision, wait=TIMEOUT))
                async with asyncio.timeout(TIMEOUT):
                    entry = await store.set("k", f"again {number}")
                    page = await watching
                assert page.entries == [entry]
                assert (await store.entries()).entries == [entry]
                assert page.revision == entry.revision


@pytest.fixture
async def hesitant(etcd):
    """Yield a store on a member that makes changes twice, with one that answers at once, and its held requests.

    A change is made, then the connection is closed without an answer; the same request is made again at `again`.
    """
    held: list[tuple[str, bytes]] = []
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            async with http.post(f"http://{etcd.url.removeprefix('etcd://')}{request.path}", data=body) as answer:
                if request.path == "/v3/kv/txn" and (request.path, body) not in held:
                    held.append((request.path, body))
                    request.transport.abort()
                shown = web.StreamResponse(status=answer.status)
                await shown.prepare(request)
                async for chunk in answer.content.iter_any():
                    await shown.write(chunk)
                return shown

        async def again() -> None:
            for path, body in held:
                async with http.post(f"http://{etcd.url.removeprefix('etcd://')}{path}", data=body) as answer:
                    assert answer.status == 200

        app = web.Application()
        app.router.add_post("/{path:.*}", forward)
        server = await stack.enter_async_context(TestServer(app))
        prefix = stack.enter_context(etcd.prefix())
        stores = []
        for url in (f"etcd://127.0.0.1:{server.port}", etcd.url):
            gateway = await stack.enter_async_context(Gateway.open(url, Access()))
            stores.append(await stack.enter_async_context(EtcdStore.open(gateway, prefix=prefix)))
        yield *stores, again


async def test_a_change_whose_answer_is_lost_is_made_once(hesitant):
    one, other, again = hesitant
    start = (await other.entries()).revision
    entry = await one.set("k", "first", instance="a")
    assert entry.revision == start + 1
    assert (await other.entries()).revision == start + 1
    await other.set("k", "second", instance="a")
    await again()
    assert await other.get("k") == "second"
    assert await one.delete("k", instance="a") == 1
    await other.set("k", "third", instance="a")
    await again()
    assert await one.get("k") == await other.get("k") == "third"


async def test_an_entry_that_another_instance_renews_is_kept(stores):
    one, other = stores
    await one.set("k", "v", instance="a", ttl=2)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        await other.set("k", "v", instance="a", ttl=2)
        [entry] = (await one.entries("k")).entries
        assert entry.expires > time.time() - 1
        await asyncio.sleep(0.5)


async def test_a_compacted_history_is_survived(stores, etcd):
    one, other = stores
    entry = await one.set("k", "before")
    for number in range(50):
        entry = await one.set("k", str(number))
    etcd.call("kv/compaction", {"revision": str(entry.revision), "physical": True})
    # etcd refuses a watch that starts at a compacted revision; the store must then read everything again.
    other._seen = 1
    other._standings = {}
    gateway = other._gateway
    async for answer in gateway.watch({**other._names.everything(), "start_revision": "1"}):
        if answer.get("canceled"):
            break
    else:
        raise AssertionError("the watch was not refused")
    await other._load()
    assert (await other.entries("k")).entries[0].value == "49"
    assert (await one.set("k", "after")).revision == entry.revision + 1
    assert await other.get("k") == "after"


async def test_without_etcd_the_service_is_not_ready_and_its_entries_can_still_be_read(tmp_path):
    with cluster(tmp_path, members=1) as etcd:
        config = Config(port=0, data=str(tmp_path / "data"), store=etcd.url)
        async with (
            serve.running("keyvaluestore", config, build) as store,
            KeyValueStoreClient.connect(store.url) as client,
            asyncio.timeout(TIMEOUT),
        ):
            await client.set("k", "v")
            await away_and_back(store.url, "etcd", stop=lambda: etcd.kill(0), start=lambda: etcd.start(0))
            etcd.kill(0)
            assert await client.get("k") == "v"


async def test_a_kill_of_the_leader_fails_no_call(tmp_path):
    """Kill and restart three members one after another under two stores: no call fails."""
    with cluster(tmp_path, members=3) as etcd:
        async with AsyncExitStack() as stack:
            stores = []
            for number in range(2):
                argv = ("--store", etcd.url, "--data", str(tmp_path / str(number)))
                process = await stack.enter_async_context(service("keyvaluestore", *argv))
                address = await process.address()
                stores.append(await stack.enter_async_context(KeyValueStoreClient.connect(address)))
            written: list[str] = []
            seen: list[str] = []
            stop = asyncio.Event()
            writing = asyncio.create_task(_write(stores, written, stop))
            following = asyncio.create_task(_follow(stores[1], seen))
            for _ in range(2):
                async with asyncio.timeout(TIMEOUT):
                    await _more(written, 10, writing)
                leader = etcd.leader()
                etcd.kill(leader)
                async with asyncio.timeout(TIMEOUT):
                    await _more(written, 20, writing)
                etcd.start(leader)
                await asyncio.to_thread(etcd.wait)
            stop.set()
            await writing
            async with asyncio.timeout(TIMEOUT):
                while not seen or seen[-1] != written[-1]:
                    assert not following.done()
                    await asyncio.wait([following], timeout=0.05)
            following.cancel()
            assert [int(value) for value in seen] == sorted({int(value) for value in seen})


async def _write(stores: list[KeyValueStoreClient], written: list[str], stop: asyncio.Event) -> None:
    """Write numbers with one store and read them with the other."""
    for value in itertools.count():
        await stores[0].set("k", str(value), instance="a", ttl=60)
        assert await stores[1].get("k") in (str(value), str(value + 1))
        written.append(str(value))
        if stop.is_set():
            return


async def _follow(store: KeyValueStoreClient, seen: list[str]) -> None:
    revision = -1
    while True:
        page = await store.watch(revision, key="k", wait=5)
        assert page.revision >= revision
        revision = page.revision
        seen.extend(entry.value for entry in page.entries)


async def _more(written: list[str], count: int, writing: asyncio.Task) -> None:
    enough = len(written) + count
    while len(written) < enough:
        await asyncio.wait([writing], timeout=0.05)
        assert not writing.done(), writing.exception()


async def test_known_entries_can_be_read_while_etcd_is_away(tmp_path):
    with cluster(tmp_path, members=1) as etcd:
        async with Gateway.open(etcd.url, Access()) as gateway, EtcdStore.open(gateway) as store:
            await store.set("dbendpoint", "a:1", instance="a:1")
            etcd.kill(0)
            assert (await store.entries("dbendpoint")).entries[0].value == "a:1"
            with pytest.raises(Error) as caught:
                await gateway.call("kv/range", {"key": "AA=="}, within=0.5)
            assert caught.value.code is Code.UNAVAILABLE
            etcd.start(0)
            async with asyncio.timeout(TIMEOUT):
                while True:
                    with suppress(Error):
                        await store.set("dbendpoint", "b:2", instance="b:2")
                        break
            assert len((await store.entries("dbendpoint")).entries) == 2


@pytest.mark.parametrize(
    ("access", "sentence"),
    [
        (Access(key="k.pem"), "--etcd-key needs --etcd-certificate"),
        (Access(user="root"), "Give --etcd-user and --etcd-password-file together"),
        (Access(password_file="password"), "Give --etcd-user and --etcd-password-file together"),
        (Access(user="root", password_file="/nowhere"), "--etcd-password-file: /nowhere cannot be read: No such file"),
        (Access(authorities="/nowhere"), "--etcd-authorities: /nowhere cannot be used: No such file"),
        (Access(certificate="/nowhere"), "--etcd-certificate: /nowhere cannot be read: No such file"),
    ],
)
async def test_settings_for_etcd_that_cannot_be_used_are_named(access, sentence):
    with pytest.raises(Error, match=sentence) as refused:
        async with Gateway.open("etcds://127.0.0.1:2379", access):
            pass
    assert refused.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize("name", ["authorities", "certificate", "key"])
async def test_files_for_tls_are_refused_without_tls(name, tmp_path):
    """Otherwise somebody who forgot the s of etcds:// would believe that passwords and addresses are encrypted."""
    with pytest.raises(Error, match=f"--etcd-{name} needs TLS: write etcds://") as refused:
        async with Gateway.open("etcd://127.0.0.1:2379", Access(**{name: str(tmp_path / "file.pem")})):
            pass
    assert refused.value.code is Code.INVALID_REQUEST


async def test_a_renewed_client_certificate_is_used_without_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "_LOOK_AGAIN", 0.0)
    for name, signer in (("authority", None), ("server", "authority"), ("client", "authority"), ("stranger", None)):
        _certificate(tmp_path, name, signer=signer)
    path = {name: str(tmp_path / name) for name in ("authority.pem", "server.pem", "server.key", "now.pem", "now.key")}

    def renew(name):
        for ending in ("key", "pem"):
            shutil.copyfile(tmp_path / f"{name}.{ending}", path[f"now.{ending}"])

    options = ["--cert-file", path["server.pem"], "--key-file", path["server.key"], "--client-cert-auth"]
    options += ["--trusted-ca-file", path["authority.pem"]]
    renew("stranger")
    access = Access(authorities=path["authority.pem"], certificate=path["now.pem"], key=path["now.key"])
    with cluster(tmp_path, members=1, options=options, scheme="https") as etcd:
        async with Gateway.open(etcd.url, access) as gateway:
            with pytest.raises(Error, match="No member of the etcd cluster answers"):
                await gateway.call("kv/range", {"key": "AA=="}, within=0.0)
            renew("client")
            assert "header" in await gateway.call("kv/range", {"key": "AA=="})
            (tmp_path / "now.key").write_text("half a key")
            assert "header" in await gateway.call("kv/range", {"key": "AA=="}), "the certificate must stay as it was"


async def test_tls_and_a_user(tmp_path):
    """The members have a certificate and require one, and a user and a password."""
    _certificate(tmp_path, "authority")
    for name in ("server", "client"):
        _certificate(tmp_path, name, signer="authority")
    files = {name: str(tmp_path / name) for name in ("authority.pem", "server.pem", "server.key")}
    options = ["--cert-file", files["server.pem"], "--key-file", files["server.key"], "--client-cert-auth"]
    options += ["--trusted-ca-file", files["authority.pem"]]
    (tmp_path / "password").write_text("a secret\n")
    (tmp_path / "wrong").write_text("another\n")
    with cluster(tmp_path, members=1, options=options, scheme="https") as etcd:
        trusted = {
            "authorities": files["authority.pem"],
            "certificate": str(tmp_path / "client.pem"),
            "key": str(tmp_path / "client.key"),
        }
        async with Gateway.open(etcd.url, Access(**trusted)) as gateway:
            await gateway.call("auth/user/add", {"name": "root", "password": "a secret"})
            await gateway.call("auth/role/add", {"name": "root"})
            await gateway.call("auth/user/grant", {"user": "root", "role": "root"})
            await gateway.call("auth/enable", {})
            with pytest.raises(Error, match="etcd refuses this user"):
                await gateway.call("kv/range", {"key": "AA=="})
        for password, works in (("password", True), ("wrong", False)):
            argv = ["--store", etcd.url, "--data", str(tmp_path / "data"), "--etcd-user", "root"]
            argv += ["--etcd-password-file", str(tmp_path / password), "--etcd-authorities", trusted["authorities"]]
            argv += ["--etcd-certificate", trusted["certificate"], "--etcd-key", trusted["key"]]
            async with service("keyvaluestore", *argv) as process:
                if works:
                    async with KeyValueStoreClient.connect(await process.address()) as store:
                        await store.set("k", "v", ttl=60)
                        assert await store.get("k") == "v"
                else:
                    assert await process.ended() != 0
                    assert "refuses this user" in str(process.lines)
                assert "a secret" not in json.dumps(process.lines)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("etcd://", "etcd://HOST:PORT"),
        ("etcd://a", "etcd://HOST:PORT"),
        ("etcd://a:x,b:1", "etcd://HOST:PORT"),
        ("etcd://user:hunter2@a:1", "--etcd-password-file"),
    ],
)
async def test_urls_without_a_cluster_are_refused(tmp_path, url, advice):
    async with service("keyvaluestore", "--store", url, "--data", str(tmp_path)) as process:
        assert await process.ended() != 0
        assert advice in str(process.lines)
        assert "hunter2" not in str(process.lines)


def _certificate(root, name: str, signer: str | None = None) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += [
        "-subj",
        f"/O=safelight/OU={name}",
        "-keyout",
        str(root / f"{name}.key"),
        "-out",
        str(root / f"{name}.pem"),
    ]
    if signer is not None:
        argv += ["-CA", str(root / f"{signer}.pem"), "-CAkey", str(root / f"{signer}.key")]
        argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(argv, check=True, capture_output=True)


@pytest.mark.slow
async def test_used_up_space_is_explained_and_what_is_known_can_be_read(tmp_path):
    with cluster(tmp_path, members=1, options=["--quota-backend-bytes", "200000"]) as etcd:
        async with Gateway.open(etcd.url, Access()) as gateway, EtcdStore.open(gateway) as store:
            await store.set("before", "kept")
            value = base64.b64encode(bytes(20_000)).decode()
            with pytest.raises(urllib.error.HTTPError):
                for number in range(100):
                    etcd.call("kv/put", {"key": base64.b64encode(str(number).encode()).decode(), "value": value})
            with pytest.raises(Error, match="etcdctl alarm disarm") as refusal:
                await store.set("after", "new")
            assert refusal.value.code is Code.UNAVAILABLE
            assert await store.get("before") == "kept"


async def test_a_password_in_the_url_is_not_shown():
    with pytest.raises(Error, match="--etcd-user") as refusal:
        async with Gateway.open("etcd://root:secret@127.0.0.1:1", Access()):
            pass
    assert "secret" not in refusal.value.detail
