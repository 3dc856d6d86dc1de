"""Test remotes in a registry that asks for tokens: Debian's docker-registry, and a small server of tokens."""

import base64
import json
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ClientSession, TCPConnector, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from msgspec.structs import replace

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.package.records import Package
from drumhead.package.remote.registry import Registry, describe
from drumhead.package.remote.remotes import (
    Remote,
    open_remote,
    pull_package,
    push_package,
    search_remotes,
    write_remotes,
)
from drumhead.package.store import PackageStore, parse_ref
from drumhead.tree import Tree, regular

USERS = {"admin": ("catalog", "pull", "push"), "reader": ("pull",)}
"""What each account may do."""


def encoded(contents):
    return base64.urlsafe_b64encode(contents).rstrip(b"=").decode()


class TokenServer:
    """Give tokens for what an account may do (distribution.github.io, Token Authentication Specification)."""

    def __init__(self, directory):
        self._key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
        now = datetime.now(UTC)
        built = x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
        built = built.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._certificate = built.sign(self._key, hashes.SHA256())
        self.bundle = directory / "tokens.pem"
        self.bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        self.asked = []
        self.logins = []

    async def answer(self, request):
        self.logins.append(request.headers.get("Authorization"))
        if self.logins[-1] is None:
            raise web.HTTPUnauthorized
        login = self.logins[-1].removeprefix("Basic ")
        user = base64.b64decode(login).decode().partition(":")[0]
        scope = request.query["scope"]
        self.asked.append(scope)
        kind, name, actions = scope.split(":")
        wanted = {"catalog"} & {name} if kind == "registry" else set(actions.split(","))
        granted = actions.split(",") if wanted <= set(USERS[user]) else []
        return web.json_response({"token": self._token(user, {"type": kind, "name": name, "actions": granted})})

    def _token(self, user, access):
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        times = {"exp": now + 300, "nbf": now - 60, "iat": now}
        claims = {"iss": "tokens", "sub": user, "aud": "registry", "jti": "1", "access": [access], **times}
        signed = ".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
        return f"{signed}.{encoded(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@pytest.fixture
async def tokens(tmp_path):
    """Run a server of tokens; yield it with its URL."""
    server, app = TokenServer(tmp_path), web.Application()
    app.router.add_get("/token", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/token"
    yield server
    await runner.cleanup()


@pytest.fixture
def registry_settings(tokens):
    """Return the settings with which the registry asks for tokens."""
    options = f"realm: {tokens.url}, service: registry, issuer: tokens, rootcertbundle: {tokens.bundle}"
    return f"auth: {{token: {{{options}}}}}\n"


def package(version):
    return Package(
        name="own", version=version, kind="libraries", description="", created="", archive="", archive_size=0,
        unpacked_size=0,
    )  # fmt: skip


@pytest.fixture
def login(monkeypatch):
    """Return a function that sets an account, and the registry that it is for."""

    def set_account(registry, user="admin"):
        monkeypatch.setenv("DRUMHEAD_REGISTRY", registry)
        monkeypatch.setenv("DRUMHEAD_REGISTRY_USER", user)
        monkeypatch.setenv("DRUMHEAD_REGISTRY_PASSWORD", "x")

    return set_account


@pytest.fixture
async def stranger():
    """Return a function that serves answers to every request, over TLS if it gets a context.

    It returns the address and the list of the requests: their paths, and what they logged in with.
    """
    runners = []

    async def start(answer, context=None):
        requests = []

        async def handle(request):
            requests.append((request.path, request.headers.get("Authorization")))
            return answer(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runners.append(web.AppRunner(app))
        await runners[-1].setup()
        site = web.TCPSite(runners[-1], "127.0.0.1", 0, ssl_context=context)
        await site.start()
        return f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}", requests

    yield start
    for runner in runners:
        await runner.cleanup()


def challenge(text):
    return web.Response(status=401, headers={"WWW-Authenticate": text})


async def test_a_registry_that_asks_for_tokens_is_a_remote(registry, tokens, tmp_path, login):
    login(registry)
    homes = [Home(root=tmp_path / name) for name in ("sender", "receiver")]
    for home in homes:
        write_remotes(home, [Remote(name="one", url=f"oci+http://{registry}/team")])
    tree = Tree()
    tree.add("a", regular(b"a"))
    names = ["own", "other", "third", "fourth"]
    for name in names:
        stored = PackageStore(homes[0]).add(tree, replace(package("1"), name=name))
        await push_package(homes[0], PackageStore(homes[0]), parse_ref(name), "one")
    found, notices = await search_remotes(homes[1])
    assert ([one.name for one in found], notices) == (sorted(names), [])
    login(registry, "reader")
    found, notices = await search_remotes(homes[1])
    assert found == []
    assert "denied access to the list of its repositories; use an account that has it" in notices[0]
    tokens.asked.clear()
    pulled = await pull_package(homes[1], PackageStore(homes[1]), parse_ref("fourth"))
    assert pulled.archive == stored.archive
    assert set(tokens.asked) == {"repository:team/fourth:pull"}
    assert await pull_package(homes[1], PackageStore(homes[1]), parse_ref("missing")) is None
    assert await pull_package(homes[1], PackageStore(homes[1]), parse_ref("no+repository")) is None


@pytest.mark.parametrize("bound", ["registry.example", "127.0.0.1", ""])
async def test_only_the_registry_that_is_named_sees_the_login(bound, registry, tokens, stranger, tmp_path, login):
    login(bound)
    basic, requests = await stranger(lambda _: challenge('Basic realm="a registry"'))
    home = Home(root=tmp_path / "home")
    addresses = {"one": registry, "two": basic}
    write_remotes(home, [Remote(name=name, url=f"oci+http://{one}/team") for name, one in addresses.items()])
    found, notices = await search_remotes(home)
    assert found == []
    assert f"gave no token: set DRUMHEAD_REGISTRY={registry}, DRUMHEAD_REGISTRY_USER and" in notices[0]
    assert f"requires a login: set DRUMHEAD_REGISTRY={basic}, DRUMHEAD_REGISTRY_USER and" in notices[1]
    assert tokens.logins == [None]
    assert [sent for _, sent in requests] == [None]


async def test_an_upload_to_another_host_does_not_take_the_login_there(stranger, login):
    other, uploads = await stranger(lambda _: web.Response(status=201))

    def answer(request):
        if "Authorization" not in request.headers:
            return challenge('Basic realm="a registry"')
        return web.Response(status=404 if request.method == "HEAD" else 202, headers={"Location": f"http://{other}/up"})

    address, requests = await stranger(answer)
    login(address)
    async with ClientSession() as client:
        await Registry(client, f"http://{address}").push_blob("own", describe(b"a", "text/plain"), b"a")
    assert len({sent for _, sent in requests} - {None}) == 1
    assert uploads == [("/up", None)]


@pytest.fixture
def certificate(tmp_path):
    """Return the files of a self-signed certificate for 127.0.0.1 and of its key."""
    pem, key = tmp_path / "registry.pem", tmp_path / "registry.key"
    made_by = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*made_by, *names, "-keyout", key, "-out", pem], check=True, capture_output=True)
    return pem, key


async def test_a_registry_with_tls_gets_no_token_without_tls(certificate, tokens, stranger, login):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*certificate)
    realm = f'Bearer realm="{tokens.url}",service="registry",scope="repository:own:pull"'
    address, _ = await stranger(lambda _: challenge(realm), server)
    login(address)
    async with ClientSession(connector=TCPConnector(ssl=ssl.create_default_context(cafile=certificate[0]))) as client:
        with pytest.raises(DrumheadError, match="without TLS, so nothing was sent there") as raised:
            await Registry(client, f"https://{address}").tags("own")
    assert raised.value.code is ErrorCode.REMOTE
    assert tokens.logins == []


@pytest.mark.parametrize("failure", [429, 500, 503, "closed"])
async def test_a_request_that_a_registry_fails_to_answer_once_is_repeated(failure, stranger, monkeypatch):
    monkeypatch.setattr("drumhead.package.remote.registry.FIRST_DELAY", 0)

    def answer(request):
        if len(requests) > 1:
            return web.json_response({"tags": ["1"]})
        if failure == "closed":
            request.transport.abort()
        return web.Response(status=500 if failure == "closed" else failure)

    address, requests = await stranger(answer)
    async with ClientSession() as client:
        assert await Registry(client, f"http://{address}").tags("own") == ["1"]
    assert len(requests) == 2


async def test_a_request_is_repeated_when_the_registry_asks_for_it(stranger, monkeypatch):
    monkeypatch.setattr("drumhead.package.remote.registry.FIRST_DELAY", 0)
    times = []

    def answer(_):
        times.append(time.monotonic())
        if len(times) > 1:
            return web.json_response({"tags": ["1"]})
        return web.Response(status=429, headers={"Retry-After": "1"})

    address, _ = await stranger(answer)
    async with ClientSession() as client:
        assert await Registry(client, f"http://{address}").tags("own") == ["1"]
    assert times[1] - times[0] >= 1


async def test_the_login_in_the_url_of_a_directory_is_sent_and_in_no_message(stranger, monkeypatch):
    monkeypatch.setattr("drumhead.download.FIRST_DELAY", 0)
    address, requests = await stranger(lambda _: web.Response(status=403))
    async with ClientSession() as client:
        remote = open_remote(client, Remote(name="one", url=f"http://me:p%40ss@{address}/dir"))
        with pytest.raises(DrumheadError) as raised:
            await remote.packages()
        assert f"http://{address}/dir/index.json" in raised.value.message
        assert "40ss" not in raised.value.message
        sent = {authorization for _, authorization in requests}
        assert sent == {"Basic " + base64.b64encode(b"me:p@ss").decode()}
        with pytest.raises(DrumheadError, match=f"set DRUMHEAD_REGISTRY={address}, DRUMHEAD_REGISTRY_USER") as raised:
            open_remote(client, Remote(name="one", url=f"oci://me:secret@{address}/dir"))
        assert "secret" not in raised.value.message


async def test_an_upload_is_not_repeated(stranger):
    address, requests = await stranger(lambda request: web.Response(status=404 if request.method == "HEAD" else 503))
    async with ClientSession() as client:
        with pytest.raises(DrumheadError, match="answered 503 Service Unavailable"):
            await Registry(client, f"http://{address}").push_blob("own", describe(b"a", "text/plain"), b"a")
    assert [path for path, _ in requests if path.endswith("/uploads/")] == ["/v2/own/blobs/uploads/"]


async def test_a_certificate_that_is_not_trusted_and_endless_redirects_are_explained(certificate, stranger):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*certificate)
    secret, _ = await stranger(lambda _: web.Response(), server)
    circle, _ = await stranger(lambda request: web.Response(status=302, headers={"Location": request.path}))
    async with ClientSession() as client:
        with pytest.raises(DrumheadError, match=r"is not trusted \(self-signed certificate\); .* SSL_CERT_FILE to"):
            await Registry(client, f"https://{secret}").tags("own")
        with pytest.raises(DrumheadError, match="it redirects without end"):
            await Registry(client, f"http://{circle}").tags("own")
