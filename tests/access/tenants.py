"""Make tenants with keys for tests of the master."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import aiohttp

from safelight.client.base import bearer
from safelight.client.db import DbClient
from safelight.client.master import Client
from safelight.client.storage import StorageClient
from safelight.wire import LeaseRequest, Output, WorkerInfo
from support.tasks import finished

ALL = ["upload", "read", "operate", "administer"]


class Api:
    """Send requests to the master with one credential."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self.http, self.url, self.token = http, url, token
        self.headers = {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, json=None, *, status: int = 200, headers=None):
        """Send a request, check the status, and return the JSON (or the text)."""
        sent = {**self.headers, **(headers or {})}
        async with self.http.request(method, self.url + path, json=json, headers=sent) as answer:
            body = await answer.read()
            assert answer.status == status, (method, path, answer.status, body[:500])
            return (
                await answer.json(content_type=None)
                if body and answer.content_type.endswith("/json")
                else body.decode()
            )

    def client(self):
        """Return a client with this credential."""
        return Client.connect(self.url, credentials=bearer(self.token))


async def keyed_tenant(root: Api, name: str, scopes=ALL, **limits) -> Api:
    """Create a tenant with a key; return the API with that key."""
    await root.call("POST", "/tenants", {"id": name, "limits": limits})
    made = await root.call("POST", "/keys", {"name": f"key of {name}", "scopes": scopes}, headers=acting(name))
    return Api(root.http, root.url, made["token"])


def acting(name: str) -> dict[str, str]:
    return {"Safelight-Tenant": name}


async def finish_one(plane, result: bytes, *, outputs: Sequence[str] = ("image",)) -> str:
    """Take one task as a worker and finish it, with the same result for all outputs; return its id."""
    key = bearer(plane.key)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(DbClient.connect(plane.url("db"), credentials=key))
        storage = await stack.enter_async_context(StorageClient.connect(plane.url("storage"), credentials=key))
        (lease,) = await db.lease(LeaseRequest(worker=WorkerInfo(id="w", engine="engine 1"), wait=5.0))
        blob = await storage.put(result)
        made = [
            Output(name=name, digest=blob.digest, size=blob.size, media_type="image/png", width=1, height=1)
            for name in outputs
        ]
        (settled,) = await db.settle([finished(lease.id, outputs=made)])
        assert settled.problem is None
        return lease.task
