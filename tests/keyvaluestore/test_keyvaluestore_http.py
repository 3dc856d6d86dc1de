"""Test the routes of the key-value store, including those of the classic protocol."""

from __future__ import annotations

import asyncio
import logging

import pytest

from safelight.client import base


@pytest.fixture
async def http():
    async with base.session() as session:
        yield session


async def test_classic_post_and_get(service, http, caplog):
    caplog.set_level(logging.INFO)
    for body in ({"json": {"value": "127.0.0.1:8001"}}, {"data": {"value": "127.0.0.1:8001"}}):
        async with http.post(f"{service.url}/dbendpoint", **body) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
    for path in ("/dbendpoint", "/dbendpoint/"):
        async with http.get(service.url + path) as answer:
            assert (answer.status, await answer.text()) == (200, "127.0.0.1:8001")
            assert answer.content_type == "text/plain"
    # The second request set the same value, so there was no change to log.
    assert [record.message for record in caplog.records].count("dbendpoint=127.0.0.1:8001") == 1


async def test_a_classic_error_is_a_sentence(service, http):
    async with http.get(f"{service.url}/nothing") as answer:
        assert (answer.status, await answer.text()) == (404, "Key not found")
    async with http.get(f"{service.url}/nothing", headers={"Accept": "application/json"}) as answer:
        assert answer.content_type == "application/problem+json"
        assert (await answer.json())["code"] == "not_found"


@pytest.mark.parametrize(
    "body",
    [{"json": {"valu": "x"}}, {"json": ["value"]}, {"data": {"other": "x"}}, {"data": b"{"}, {"data": b"\xff"}],
)
async def test_a_wrong_post_is_refused(service, http, body):
    async with http.post(f"{service.url}/key", **body) as answer:
        assert answer.status == 400, await answer.text()
    async with http.get(f"{service.url}/key") as answer:
        assert answer.status == 404


async def test_listing_has_a_line_for_each_live_instance(service, http):
    for key, value, instance in (("b", "2", "x"), ("b", "1", "a"), ("a", "line\nbreak", "")):
        async with http.put(f"{service.url}/{key}", json={"value": value, "instance": instance, "ttl": 60}) as answer:
            assert answer.status == 200
    async with http.get(f"{service.url}/") as answer:
        assert await answer.text() == "a=line\\nbreak\nb=1\nb=2\n"
        assert answer.content_type == "text/plain"
    async with http.get(f"{service.url}/", headers={"Accept": "application/json"}) as answer:
        page = await answer.json()
        assert [entry["value"] for entry in page["entries"]] == ["line\nbreak", "1", "2"]


@pytest.mark.parametrize("key", ["healthz", "readyz", "metrics", "shutdown"])
async def test_names_of_routes_cannot_be_keys(service, http, key):
    async with http.put(f"{service.url}/{key}", json={"value": "x"}) as answer:
        assert answer.status == 400
        assert "cannot be a key" in (await answer.json())["detail"]
    async with http.get(f"{service.url}/") as answer:
        assert await answer.text() == ""


async def test_long_poll_of_one_key(service, http):
    url = f"{service.url}/key/instances"
    async with http.get(url) as answer:
        revision = (await answer.json())["revision"]

    async def watch():
        async with http.get(url, params={"after": revision, "wait": 30}) as answer:
            return await answer.json()

    watching = asyncio.create_task(watch())
    async with http.put(f"{service.url}/key", json={"value": "v"}) as answer:
        assert answer.status == 200
    async with asyncio.timeout(25):
        assert [entry["value"] for entry in (await watching)["entries"]] == ["v"]


@pytest.mark.parametrize("query", ["after=x", "after=1&wait=61", "after=1&wait=-1", "after=1&after=2"])
async def test_wrong_queries_are_refused_with_their_place(service, http, query):
    async with http.get(f"{service.url}/?{query}") as answer:
        assert answer.status == 400
        assert (await answer.json())["position"] in ("after", "wait")


async def test_a_body_past_every_limit_is_refused(service, http):
    async with http.put(f"{service.url}/key", data=b"x" * 600_000) as answer:
        assert answer.status == 413
        assert (await answer.json())["code"] == "too_large"


async def test_metrics_count_changes_and_watchers(service, http):
    async with http.put(f"{service.url}/key", json={"value": "v", "instance": "a", "ttl": 60}):
        pass
    async with http.get(f"{service.url}/metrics") as answer:
        text = await answer.text()
    assert "safelight_keyvaluestore_entries 1.0" in text
    assert 'safelight_keyvaluestore_changes_total{kind="set"} 1.0' in text
    assert 'safelight_requests_total{method="PUT",route="/{key}",status="200"} 1.0' in text
