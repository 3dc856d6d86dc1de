"""Test the API's description and its page."""

from __future__ import annotations

import re


async def test_every_operation_is_described(master, http):
    async with http.get(f"{master.url}/openapi.json") as answer:
        document = await answer.json()
    assert document["openapi"] == "3.1.0"
    for path in ("/task", "/tasks", "/task/{id}/result", "/recipes/{name}", "/events", "/lease", "/task/next"):
        assert path in document["paths"]
    assert "lease" not in document["components"]["schemas"]["Task"]["properties"]
    ids = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(ids) == len(set(ids))


async def test_the_page_of_the_api_runs_nothing_inline(master, http):
    async with http.get(f"{master.url}/docs") as answer:
        text = await answer.text()
        assert answer.content_type == "text/html"
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "http://" not in text
    assert "https://" not in text
    for name, kind in (("docs.js", "javascript"), ("docs.css", "css")):
        async with http.get(f"{master.url}/docs/{name}") as answer:
            assert answer.status == 200
            assert kind in answer.content_type


async def test_the_root_lists_the_addresses(master, http):
    async with http.get(f"{master.url}/") as answer:
        assert answer.status == 200
        assert answer.content_type in ("text/plain", "text/html")


async def test_every_error_is_a_problem_document(master, http):
    async with http.get(f"{master.url}/there-is-nothing") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
    async with http.put(f"{master.url}/tasks") as answer:
        assert (answer.status, (await answer.json())["code"]) == (405, "method_not_allowed")
        assert "GET" in answer.headers["Allow"]
    async with http.get(f"{master.url}/task/none") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "not_found")


async def test_every_list_refuses_a_parameter_that_it_does_not_have(master, http):
    """A misspelt filter would otherwise look like one that everything matches."""
    async with http.get(f"{master.url}/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    queried = [
        path
        for path, methods in paths.items()
        if any(parameter["in"] == "query" for parameter in methods.get("get", {}).get("parameters", []))
    ]
    assert {"/tasks", "/batches", "/events", "/archive", "/statistics", "/webhooks/calls", "/audit"} <= set(queried)
    for path in queried:
        async with http.get(f"{master.url}{path.replace('{id}', '1-aaaaaaaaaa')}?misspelt=1") as answer:
            assert (answer.status, (await answer.json()).get("position")) == (400, "misspelt"), path


async def test_a_change_with_a_parameter_that_it_does_not_have_is_refused(master, http, client):
    """`POST /queue/pause?recipe=web` would otherwise pause the whole queue."""
    async with http.get(f"{master.url}/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    asked = [
        (method, path)
        for path, methods in paths.items()
        for method, described in methods.items()
        if method != "get" and not any(one["in"] == "query" for one in described.get("parameters", []))
    ]
    assert {("post", "/queue/pause"), ("post", "/tasks/actions"), ("delete", "/recipes/{name}")} <= set(asked)
    for method, path in asked:
        url = master.url + re.sub(r"{\w+}", "1-aaaaaaaaaa", path) + "?misspelt=1"
        async with http.request(method, url, headers={"Accept": "application/json"}) as answer:
            assert (answer.status, (await answer.json()).get("position")) == (400, "misspelt"), (method, path)
    assert (await client.summary()).paused == 0
