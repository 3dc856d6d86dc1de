"""Test the cookies of sign-in against misuse: by neighbouring host names, and by named origins."""

from __future__ import annotations

import pytest

from access.conftest import ELSEWHERE
from access.tenants import Api, keyed_tenant

NAMED = "https://app.example.org"
FROM_NAMED = {"Origin": NAMED, "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}


async def signed_in(api: Api) -> tuple[str, dict]:
    """Exchange the key for a session; return the cookie as a browser sends it, and its attributes."""
    async with api.http.post(f"{api.url}/session", json={"key": api.token}, headers={"Origin": api.url}) as answer:
        assert answer.status == 200, await answer.text()
        (cookie,) = answer.cookies.values()
        return f"{cookie.key}={cookie.value}", dict(cookie)


async def status(api: Api, method: str, path: str, **headers: str) -> int:
    async with api.http.request(method, api.url + path, headers=headers) as answer:
        return answer.status


async def test_cookies_have_no_effect_for_a_page_of_a_named_origin(plane, http):
    """The page may call the API with a key. If it belongs to the same site, its requests carry the visitor's
    cookies."""
    proxy = {"user_header": "X-User", "user_scopes": "read,operate", "cors_origins": NAMED}
    await plane.start_all(trusted_proxies="127.0.0.1", master=proxy)
    api = await keyed_tenant(Api(http, plane.url("master"), plane.key), "first")
    cookie, _ = await signed_in(api)
    for way in ({"Cookie": cookie}, {"X-User": "ann"}):
        for method, path in (("GET", "/tasks"), ("POST", "/queue/pause"), ("POST", "/queue/resume")):
            assert await status(api, method, path, **way, **FROM_NAMED) == 401, (way, path)
            assert await status(api, method, path, **way, Origin=api.url) == 200, (way, path)
    assert await status(api, "GET", "/tasks", **api.headers, **FROM_NAMED) == 200


async def test_a_request_with_two_sessions_is_refused_and_both_end(plane, http):
    """A page on a neighbouring host name could add its own session, so that a visitor uploads to another tenant."""
    await plane.start_all(trusted_proxies=ELSEWHERE)
    root = Api(http, plane.url("master"), plane.key)
    mine, theirs = await keyed_tenant(root, "mine"), await keyed_tenant(root, "theirs")
    cookies = [(await signed_in(api))[0] for api in (mine, theirs)]
    for both in (cookies, cookies[::-1]):
        assert await status(mine, "GET", "/tasks", Cookie="; ".join(both)) == 401
    assert [await status(mine, "GET", "/tasks", Cookie=f"x=1; {each}") for each in cookies] == [200, 200]
    assert await status(mine, "DELETE", "/session", Cookie="; ".join(cookies), Origin=mine.url) == 204
    assert [await status(mine, "GET", "/tasks", Cookie=each) for each in cookies] == [401, 401]


@pytest.mark.parametrize(
    ("public", "name", "path"),
    [
        ("https://photos.example.org", "__Host-safelight_session", "/"),
        ("https://photos.example.org/photos", "__Secure-safelight_session", "/photos/"),
    ],
)
async def test_over_tls_a_neighbouring_host_cannot_set_the_cookie(plane, http, public, name, path):
    await plane.start_all(trusted_proxies=ELSEWHERE, master={"public_url": public})
    api = await keyed_tenant(Api(http, plane.url("master"), plane.key), "first")
    cookie, attributes = await signed_in(api)
    given, _, value = cookie.partition("=")
    assert (given, attributes["path"], attributes["secure"], attributes["domain"]) == (name, path, True, "")
    assert await status(api, "GET", "/tasks", Cookie=cookie) == 200
    assert await status(api, "GET", "/tasks", Cookie=f"safelight_session={value}") == 401
    tossed = f"{cookie}; safelight_session=of-a-neighbour"
    assert await status(api, "GET", "/tasks", Cookie=tossed) == 200
