"""The API's description, its page, and the API held against its description."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from support.processes import program
from support.system import system


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


async def test_the_root_says_where_things_are(master, http):
    async with http.get(f"{master.url}/") as answer:
        assert answer.status == 200
        assert answer.content_type in ("text/plain", "text/html")


async def test_problems_everywhere(master, http):
    async with http.get(f"{master.url}/there-is-nothing") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
    async with http.put(f"{master.url}/tasks") as answer:
        assert (answer.status, (await answer.json())["code"]) == (405, "method_not_allowed")
        assert "GET" in answer.headers["Allow"]
    async with http.get(f"{master.url}/task/none") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "not_found")


CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.slow
async def test_the_api_is_as_described(tmp_path):
    """Schemathesis asks whatever the description allows, and some of what it does not."""
    async with system(tmp_path) as running:
        url = f"http://{running.master}"
        command = (
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", "--url", url,
            "--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--request-timeout", "20",
            "--checks", CHECKS,
            "--exclude-path-regex", "(events|lease|stream)$", "--suppress-health-check", "all", "--no-color",
        )  # fmt: skip
        async with program(*command, name="schemathesis", env={"PYTHONWARNINGS": "default"}) as checking:
            async with asyncio.timeout(240):
                status = await checking.ended(240)
        assert status == 0, "\n".join(checking.output)
        assert running.running["master"].running
