"""Test that the classic protocol on a network acts as one tenant: it reaches no task of other tenants."""

from __future__ import annotations

import io

import pytest

from support.photos import photo

from .conftest import ELSEWHERE
from .tenants import Api, acting, keyed_tenant


@pytest.fixture
async def root(plane, http) -> Api:
    """Return the API with the cluster key; programs of this network use the classic protocol as the tenant `seed`."""
    await plane.start_all(trusted_proxies=ELSEWHERE, classic_networks="127.0.0.0/8", classic_tenant="seed")
    made = Api(http, plane.url("master"), plane.key)
    await made.call("POST", "/tenants", {"id": "seed"})
    return made


async def test_a_classic_program_reaches_only_tasks_of_its_tenant(plane, http, root):
    victim = await keyed_tenant(root, "victim")
    async with victim.client() as client:
        task = await client.upload(photo(1))
    output = {"name": "image", "digest": task.input.digest, "size": task.input.size, "media_type": "image/png"}

    async def ask(method: str, path: str, json=None) -> tuple[int, str]:
        async with http.request(method, plane.url("db") + path, json=json) as answer:
            return answer.status, await answer.text()

    # Another tenant's id gets the same answer as an id that does not exist, whatever tenant the request names.
    nobody = f"9{task.id}"
    for method, path, body in (
        ("GET", "/task/{id}", None),
        ("GET", "/task/{id}?full=true", None),
        ("GET", "/task/{id}?tenant=victim", None),
        ("POST", "/task/{id}/ready", None),
        ("POST", "/task/{id}/finish", None),
        ("POST", "/task/{id}/finish?full=true", None),
    ):
        seen, unknown = [await ask(method, path.format(id=id_), body) for id_ in (task.id, nobody)]
        assert (seen[0], unknown[0]) == (404, 404), path
        assert seen[1].replace(task.id, nobody) == unknown[1], path
    assert (await ask("GET", "/task/next?tenant=victim"))[0] == 404
    assert (await victim.call("GET", f"/task/{task.id}"))["state"] == 0

    # The program's new tasks belong to its tenant, and it cannot name another tenant's bytes as their result.
    status, mine = await ask("POST", "/task")
    assert status == 200
    assert (await root.call("GET", f"/task/{mine}", headers=acting("seed")))["tenant"] == "seed"
    async with http.post(f"{plane.url('master')}/task", data={"image": io.BytesIO(photo(2))}) as answer:
        own = (await answer.json())["id"]
    assert (await ask("GET", "/task/next"))[0] == 200
    status, said = await ask("POST", f"/task/{own}/finish", {"outputs": [output]})
    assert (status, "storage" in said) == (403, True)
    async with http.get(f"{plane.url('storage')}/download/{own}") as answer:
        assert await answer.read() == photo(2)
