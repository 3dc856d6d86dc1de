"""Test sign-in with an OpenID Connect provider: a real one (oidc-provider-mock), and one that gives wrong answers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from joserfc.jws import JWSRegistry
from yarl import URL

from access.conftest import ELSEWHERE
from access.faulty_provider import CLIENT, FaultyProvider
from support.pages.browser import chromium, opened
from support.programs.ports import free_port
from support.programs.until import until

RULES = """
[[users]]
claim = "email"
value = "ann@example.org"
scopes = ["administer"]

[[users]]
claim = "groups"
value = "photographers"
tenant = "default"
scopes = ["upload", "read"]
"""
FROM_ELSEWHERE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
"""The headers of a browser that returns from the provider."""


class Site:
    """Run the master, and send a browser's requests to it and to the provider."""

    def __init__(self, http: aiohttp.ClientSession, url: str, name: str) -> None:
        self.http, self.url, self.name = http, url, name

    async def get(self, url: str | URL, cookies: dict[str, str] | None = None, **headers: str):
        """Request a page; return the status, the headers, the text and the cookies."""
        shown = "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())
        sent = {**headers, **({"Cookie": shown} if shown else {})}
        async with self.http.get(URL(url, encoded=True), headers=sent, allow_redirects=False) as answer:
            given = {name: morsel.value for name, morsel in answer.cookies.items()}
            return answer.status, answer.headers, await answer.text(), given

    async def begin(self) -> tuple[URL, dict[str, str]]:
        """Press the button; return the address to which the browser is sent, and its cookies."""
        status, headers, text, cookies = await self.get(f"{self.url}/sign-in/{self.name.replace(':', '%3A')}")
        assert status == 303, text
        assert "SameSite=Lax" in headers["Set-Cookie"] and "HttpOnly" in headers["Set-Cookie"]
        return URL(headers["Location"]), cookies

    async def finish(self, back: str | URL, cookies: dict[str, str]):
        """Come back from the provider."""
        return await self.get(back, cookies, **FROM_ELSEWHERE)

    async def session(self, cookies: dict[str, str] | None = None) -> dict:
        _, _, text, _ = await self.get(f"{self.url}/session", cookies)
        return json.loads(text)


@pytest.fixture
async def site(plane, http, tmp_path):
    """Return a function that starts a master for a provider."""
    users, secret = tmp_path / "users.toml", tmp_path / "secret"
    users.write_text(RULES)
    secret.write_text("s&cret\n")
    secret.chmod(0o600)

    async def start(issuer: str, prefix: str = "") -> Site:
        port = free_port()
        url = f"http://127.0.0.1:{port}{prefix}"
        settings = {
            "port": port, "public_url": url, "oidc_issuer": issuer, "oidc_client_id": CLIENT,
            "oidc_client_secret_file": str(secret), "oidc_users": str(users),
        }  # fmt: skip
        await plane.start_all(trusted_proxies=ELSEWHERE, master=settings)
        return Site(http, url, URL(issuer).authority)

    return start


@asynccontextmanager
async def provider_mock(*users: dict) -> AsyncIterator[str]:
    """Run the provider as a process; yield its issuer."""
    port = free_port()
    argv = [part for user in users for part in ("--user-claims", json.dumps(user))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "oidc_provider_mock", "--port", str(port), *argv, stderr=asyncio.subprocess.DEVNULL
    )

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(answers)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def at_the_provider(http: aiohttp.ClientSession, address: URL, **form: str) -> str:
    """Fill in the provider's form; return the address to which it sends the browser."""
    async with http.post(address, data=form, allow_redirects=False) as answer:
        assert answer.status == 302, await answer.text()
        return answer.headers["Location"]


@pytest.mark.slow
async def test_a_user_of_a_real_provider_signs_in(site, http):
    ann = {"sub": "1", "email": "ann@example.org", "email_verified": True}
    ben = {"sub": "2", "email": "ben@example.org", "groups": ["family", "photographers"]}
    eve = {"sub": "3", "email": "ann@example.org", "email_verified": False, "groups": ["others"]}
    async with provider_mock(ann, ben, eve) as issuer:
        ours = await site(issuer)
        told = await ours.session()
        assert (told["signed_in"], told["needed"], told["providers"]) == (False, True, [ours.name])

        address, cookies = await ours.begin()
        back = await at_the_provider(http, address, sub="1")
        assert back.startswith(f"{ours.url}/oidc/callback?")
        status, headers, _, given = await ours.finish(back, cookies)
        assert (status, headers["Location"]) == (303, f"{ours.url}/")
        told = await ours.session(given)
        assert (told["name"], told["tenant"], told["via"], told["operator"]) == (
            "ann@example.org", "default", "session", True,
        )  # fmt: skip
        status, _, text, _ = await ours.finish(back, cookies)
        assert status == 401 and "invalid_grant" in text, "a code must be accepted only once"

        address, cookies = await ours.begin()
        _, _, _, given = await ours.finish(await at_the_provider(http, address, sub="2"), cookies)
        told = await ours.session(given)
        assert (told["name"], told["scopes"], told["operator"]) == ("2", ["upload", "read"], False)

        # An address that the provider has not verified does not count, and a user whom no rule names is refused.
        address, cookies = await ours.begin()
        status, _, text, given = await ours.finish(await at_the_provider(http, address, sub="3"), cookies)
        assert (status, "safelight_session" in given) == (403, False)
        assert "may not sign in here" in text

        address, cookies = await ours.begin()
        status, _, text, _ = await ours.finish(
            await at_the_provider(http, address, action="deny") + f"&state={address.query['state']}", cookies
        )
        assert status == 401 and "access_denied" in text


@pytest.mark.slow
async def test_the_button_on_the_page_leads_to_the_provider_and_back(site):
    ann = {"sub": "1", "email": "ann@example.org", "email_verified": True}
    async with provider_mock(ann) as issuer:
        # For a browser, localhost is another site than 127.0.0.1, like a provider on another host.
        ours = await site(issuer.replace("127.0.0.1", "localhost"))
        async with chromium() as browser, opened(browser, ours.url.removeprefix("http://")) as page:
            await page.get_by_role("link", name=f"Sign in with {ours.name}").click()
            await page.wait_for_url(f"{issuer.replace('127.0.0.1', 'localhost')}/**")
            await page.locator("input[name=sub]").last.fill("1")
            await page.keyboard.press("Enter")
            await page.get_by_role("navigation", name="Main").wait_for()
            await page.get_by_role("button", name="Access: signed in as ann@example.org").wait_for()


@pytest.fixture
async def faulty() -> AsyncIterator[FaultyProvider]:
    provider = FaultyProvider()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", provider.discovery)
    app.router.add_get("/keys", provider.keys)
    app.router.add_post("/token", provider.token)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield provider
    await runner.cleanup()


@pytest.fixture
async def sign_in(site, faulty):
    """Sign in with the wrong provider; return the status and the text of our answer."""
    ours = await site(faulty.issuer)

    async def once() -> tuple[int, str]:
        faulty.asked, cookies = await ours.begin()
        back = URL(f"{ours.url}/oidc/callback").with_query(code="c", state=faulty.asked.query["state"])
        status, _, text, given = await ours.finish(back, cookies)
        assert ("safelight_session" in given) == (status == 303)
        return status, text

    return once


async def test_a_providers_claims_are_checked(sign_in, faulty):
    for verified, status in ((True, 303), ("true", 303), ("false", 403), ("", 403), (None, 403)):
        faulty.claims = {"email_verified": verified}
        assert (await sign_in())[0] == status and faulty.asked is not None and faulty.asked.query["kept"] == "1"
    past = int(time.time()) - 3600
    for wrong, reason in (
        ({"iss": "https://other.example"}, "iss"),
        ({"aud": "another"}, "aud"),
        ({"aud": [CLIENT, "another"]}, "another client"),
        ({"azp": "another"}, "another client"),
        ({"exp": past}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": past + 7200}, "future"),
        ({"nonce": "replayed"}, "another sign-in"),
        ({"nonce": None}, "another sign-in"),
        ({"sub": None}, "sub"),
    ):
        faulty.claims = wrong
        status, text = await sign_in()
        assert status == 401 and reason in text, (wrong, status, text)


async def test_a_providers_signature_is_checked(sign_in, faulty):
    honest, other = faulty.sign, ECKey.generate_key("P-256", {"kid": "1"})
    shared = OctKey.import_key(json.dumps(faulty.key.as_dict(private=False)))
    for sign in (
        lambda claims: jwt.encode({"alg": "ES256", "kid": "1"}, claims, other),
        lambda claims: jwt.encode({"alg": "HS256", "kid": "1"}, claims, shared),
        lambda claims: ".".join([*_unsigned(claims), ""]),
        lambda claims: honest(claims)[:-4],
        lambda _claims: "no.token",
        lambda _claims: "x" * 40_000,
    ):
        faulty.sign = sign
        status, text = await sign_in()
        assert status == 401 and "not valid" in text, (status, text)


async def test_a_header_of_a_token_may_have_more_than_we_know(sign_in, faulty):
    header = {"alg": "ES256", "kid": "1", "pi.atm": "1", "x5c": [base64.b64encode(bytes(1200)).decode()]}
    faulty.sign = lambda claims: jwt.encode(header, claims, faulty.key, registry=JWSRegistry(strict_check_header=False))
    assert (await sign_in())[0] == 303


async def test_a_providers_new_key_is_fetched_once(sign_in, faulty):
    assert (await sign_in())[0] == 303
    before, faulty.key = faulty.fetched["keys"], ECKey.generate_key("P-256", {"kid": "2"})
    faulty.sign = lambda claims: jwt.encode({"alg": "ES256", "kid": "2"}, claims, faulty.key)
    assert (await sign_in())[0] == 303
    faulty.sign = lambda claims: jwt.encode({"alg": "ES256", "kid": "3"}, claims, faulty.key)
    assert (await sign_in())[0] == 401
    assert faulty.fetched["keys"] == before + 1


async def test_a_providers_new_key_may_have_the_id_of_the_former(sign_in, faulty):
    assert (await sign_in())[0] == 303
    faulty.key = ECKey.generate_key("P-256", {"kid": "1"})
    assert (await sign_in())[0] == 303


async def test_a_providers_key_that_cannot_be_used_does_not_bar_the_others(sign_in, faulty):
    unusable = [
        {"kty": "EC", "crv": "BP-256", "x": "AA", "y": "AA"},
        {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA"},
        {"kty": "RSA"},
        {},
    ]
    faulty.key_set = lambda: [*unusable, faulty.key.as_dict(private=False)]
    assert (await sign_in())[0] == 303
    faulty.key_set = lambda: unusable[:1]
    faulty.sign = lambda claims: jwt.encode({"alg": "ES256", "kid": "new"}, claims, faulty.key)
    status, text = await sign_in()
    assert status == 503 and "has keys that cannot be used" in text


async def test_a_providers_answer_with_a_token_is_checked(sign_in, faulty):
    for answer, reason in (
        (
            web.json_response({"error": "invalid_client", "error_description": "<b>\x1b"}, status=401),
            "invalid_client: &lt;b&gt;\\x1b",
        ),
        (web.Response(status=302, headers={"Location": f"{faulty.issuer}/keys"}), "answered 302"),
        (web.Response(status=500), "answered 500"),
        (web.Response(body=b"[" * 1000), "expected JSON"),
        (web.Response(body=b" " * 300_000), "more than"),
    ):
        faulty.token_answer = answer
        status, text = await sign_in()
        assert status in (401, 503) and reason in text, (status, text)


async def test_only_the_browser_that_began_can_sign_in(site, faulty):
    ours = await site(faulty.issuer)
    faulty.asked, cookies = await ours.begin()
    _, others = await ours.begin()
    back = URL(f"{ours.url}/oidc/callback")
    state = faulty.asked.query["state"]
    for query, held in (
        ({"code": "c", "state": state}, {}),
        ({"code": "c", "state": state}, others),
        ({"code": "c", "state": state}, {"safelight_sign_in": ".."}),
        ({"code": "c"}, cookies),
        ({"code": "c", "state": state + "x"}, cookies),
        ({"error": "<script>", "state": "x"}, cookies),
        ({"code": "c", "state": state, "iss": "https://other.example"}, cookies),
    ):
        status, headers, text, given = await ours.finish(back.with_query(query), held)
        assert (status, given) == (401, {}), text
        assert "<script>" not in text and "default-src 'none'" in headers["Content-Security-Policy"]
    status, _, _, _ = await ours.finish(back.with_query(code="c", state=state), cookies)
    assert status == 303


async def test_below_a_path_sign_in_stays_below_it(site, faulty):
    ours = await site(faulty.issuer, "/photos")
    faulty.asked, cookies = await ours.begin()
    back = URL(faulty.asked.query["redirect_uri"])
    assert str(back) == f"{ours.url}/oidc/callback"
    status, headers, _, _ = await ours.finish(back.with_query(code="c", state=faulty.asked.query["state"]), cookies)
    assert (status, headers["Location"]) == (303, f"{ours.url}/")
    given = [morsel for text in headers.getall("Set-Cookie") for morsel in SimpleCookie(text).values()]
    assert {morsel.key: morsel["path"] for morsel in given} == {
        "safelight_sign_in": "/photos/oidc/callback",
        "safelight_session": "/photos/",
    }


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"issuer": "https://other.example"}, "says that it is the issuer"),
        ({"token_endpoint": "http://other.example/token"}, "is not https"),
        ({"jwks_uri": "file:///etc/passwd"}, "not an address"),
        ({"authorization_endpoint": 1}, "expected JSON"),
    ],
)
async def test_an_untrustworthy_description_of_a_provider_is_refused(site, faulty, wrong, reason):
    faulty.metadata = wrong
    ours = await site(faulty.issuer)
    status, _, text, _ = await ours.get(f"{ours.url}/sign-in/{ours.name}")
    assert status == 503 and reason in text


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"public_url": None}, "--public-url"),
        ({"oidc_client_id": ""}, "--oidc-client-id"),
        ({"oidc_issuer": "http://accounts.example.org"}, "--oidc-issuer: http://accounts.example.org is not https"),
        ({"oidc_client_secret_file": "{open}"}, "chmod 600"),
        ({"oidc_users": "{missing}"}, "--oidc-users: {missing} cannot be read: No such file"),
        ({"oidc_users": "{open}"}, "--oidc-users: {open}, users[0].scopes: this field is missing"),
    ],
)
async def test_a_mistake_in_the_settings_is_reported_at_the_start(plane, tmp_path, capsys, wrong, reason):
    paths = {"open": str(tmp_path / "open.toml"), "missing": str(tmp_path / "missing.toml")}
    (tmp_path / "open.toml").write_text('[[users]]\nclaim = "sub"\nvalue = "1"\n')
    (tmp_path / "open.toml").chmod(0o644)
    await plane.start("keyvaluestore", trusted_proxies=ELSEWHERE)
    settings = {
        "public_url": "https://photos.example.org", "oidc_issuer": "https://accounts.example.org",
        "oidc_client_id": CLIENT, "oidc_users": paths["open"],
    }  # fmt: skip
    changed = {name: value.format(**paths) if value else value for name, value in wrong.items()}
    with pytest.raises(SystemExit):
        await plane.start("master", **{**settings, **changed})
    assert reason.format(**paths) in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root owns files as Kubernetes and systemd do")
async def test_the_clients_secret_can_be_one_that_kubernetes_or_systemd_provides(site, tmp_path, monkeypatch):
    (tmp_path / "secret").chmod(0o440)  # of root, and readable by the group of the service, which is not root
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    ours = await site("https://accounts.example.org")
    assert (await ours.session())["providers"] == [ours.name]


async def test_a_provider_that_is_away_is_named(site):
    ours = await site(f"http://127.0.0.1:{free_port()}")
    status, _, text, _ = await ours.get(f"{ours.url}/sign-in/{ours.name}")
    assert status == 503 and f"The identity provider {ours.name} cannot be reached" in text
    assert (await ours.get(f"{ours.url}/sign-in/other"))[0] == 404


def _unsigned(claims: dict) -> list[str]:
    parts = ({"alg": "none"}, claims)
    return [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
