"""Test the API against its description with schemathesis, on services that require a key: with one, and without."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.schemas import APIOperation

from access.conftest import ELSEWHERE
from access.tenants import ALL, Api
from access.test_routes import PUBLIC
from safelight.access import cluster_key
from safelight.client.base import session
from support.programs.processes import program
from support.programs.system import SERVICES, System, system

pytestmark = pytest.mark.slow
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
WAITING = "(events|lease|stream)$"
"""Operations that wait for something to happen."""
MAY_END_KEYS = "^/(keys|tenants)/"
"""Operations that can revoke the key that is shown, or disable its tenant: schemathesis uses ids from answers."""


@pytest.fixture
async def keyed_system(tmp_path):
    """Run services as processes, each of which requires a key."""
    key = tmp_path / "cluster.key"
    cluster_key.ensure(key)
    flags = ["--cluster-key-file", str(key), "--trusted-proxies", ELSEWHERE]
    async with system(tmp_path, settings=dict.fromkeys(SERVICES, flags)) as running:
        yield running


async def test_the_api_is_as_described(keyed_system: System):
    url = f"http://{keyed_system.master}"
    cluster = (keyed_system.data / "cluster.key").read_text().strip()
    async with session() as http:
        made = await Api(http, url, cluster).call("POST", "/keys", {"name": "all", "scopes": ALL})
        await ask(url, made["token"], "--exclude-path-regex", f"{WAITING}|{MAY_END_KEYS}")
        for path in ("/keys", "/tenants", "/tasks"):
            await Api(http, url, made["token"]).call("GET", path)  # the key was valid until the end
        await ask(url, cluster, "--include-path-regex", MAY_END_KEYS)
    assert keyed_system.running["master"].running


async def ask(url: str, token: str, *which: str) -> None:
    """Let schemathesis send valid and invalid requests with a token."""
    command = (
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", "--url", url,
        "-H", f"Authorization: Bearer {token}", *which,
        "--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "1", "--request-timeout", "20",
        "--checks", CHECKS, "--suppress-health-check", "all", "--no-color",
    )  # fmt: skip
    async with program(*command, name="schemathesis", env={"PYTHONWARNINGS": "default"}) as checking:
        status = await checking.ended(240)
    assert status == 0, "\n".join(checking.output)


async def test_without_a_key_every_operation_is_refused_before_it_is_read(keyed_system: System):
    """Send all requests that the description allows; only public operations may answer."""
    described, answered = await asyncio.to_thread(ask_everything, f"http://{keyed_system.master}")
    assert answered.keys() == described
    assert len(described) > 50
    assert all(answered.values())
    assert {operation for operation, statuses in answered.items() if statuses - {401, 403}} <= PUBLIC
    assert keyed_system.running["master"].running


def ask_everything(url: str) -> tuple[set[tuple[str, str]], dict[tuple[str, str], set[int]]]:
    """Send some cases of each operation without a key; return the described operations, and the answers' statuses."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=20) as answer:
        document = json.load(answer)
    answered: dict[tuple[str, str], set[int]] = {}
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        answered[operation.method.upper(), operation.path] = ask_one(url, operation)
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    return described, answered


def ask_one(url: str, operation: APIOperation) -> set[int]:
    statuses = set()

    @settings(
        max_examples=7, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def ask(case: schemathesis.Case) -> None:
        statuses.add(case.call(base_url=url, timeout=20).status_code)

    ask()
    return statuses
