"""Test that false reports of a compromised worker about its attempts harm no other task."""

from __future__ import annotations

import aiohttp
import msgspec
import pytest

from safelight.client.db import DbClient
from safelight.errors import Code
from safelight.wire import Failure, State
from support.tasks import digest, new_task, request

OUTPUT = {"name": "image", "digest": digest("result"), "size": 5, "media_type": "image/png", "width": 1, "height": 1}
FAILURE = {"code": "operation_failed", "detail": "x"}


def finished(**changes: object) -> dict:
    return {"kind": "finished", "outputs": [OUTPUT | changes]}


def failed(**changes: object) -> dict:
    return {"kind": "failed", "permanent": True, "failure": FAILURE | changes}


LIES = {
    "a size that no column holds": finished(size=2**63),
    "a negative size": finished(size=-1),
    "a negative height": finished(height=-1),
    "no name": finished(name=""),
    "a long name": finished(name="x" * 100_000),
    "many notes": finished(notes=["x"] * 10_000),
    "a long note": finished(notes=["x" * 100_000]),
    "many outputs": {"kind": "finished", "outputs": [OUTPUT] * 1000},
    "a long engine": finished() | {"engine": "x" * 100_000},
    "an attempt without end": finished() | {"seconds": 1e300},
    "a long code": failed(code="x" * 100_000),
    "a long sentence": failed(detail="x" * 100_000),
    "many members": failed(extra={f"m{n}": n for n in range(1000)}),
    "a deep member": failed(extra={"a": [[[[1]]]]}),
    "a long member": failed(extra={"a": "x" * 100_000}),
}


async def test_a_false_report_about_an_attempt_is_refused_and_changes_nothing(service):
    async with DbClient.connect(service.url) as store, aiohttp.ClientSession(service.url) as http:
        (task,) = await store.create([new_task()])
        (lease,) = await store.lease(request("w"))
        before = (await store.summary()).bytes
        for what, lie in LIES.items():
            async with http.post("/outcomes", json=[lie | {"lease": lease.id}]) as answer:
                assert answer.status == 400, (what, answer.status, await answer.text())
        for wrong in ({"host": "x" * 1000}, {"engine": "x" * 1000}, {"slots": 2**63}, {"busy": -1}):
            async with http.post("/lease", json={"worker": {"id": "x", **wrong}, "n": 0}) as answer:
                assert answer.status == 400, wrong
        assert ((await store.get(task.id)).state, (await store.summary()).bytes) == (State.WORKING, before)
        async with http.post("/outcomes", json=[finished() | {"lease": lease.id}]) as answer:
            assert (await answer.json())[0]["state"] == State.FINISHED


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ({"code": "nonsense"}, Code.OPERATION_FAILED),
        ({"code": "unauthenticated"}, Code.OPERATION_FAILED),
        ({"code": "too_many_pixels", "extra": {"status": 200, "code": "x", "detail": "y", "limit": 3}}, None),
    ],
)
def test_a_reported_failure_counts_as_an_error_of_the_photo(failure, code):
    error = msgspec.convert(FAILURE | failure, Failure).error()
    assert error.code is (code or Code.TOO_MANY_PIXELS)
    assert (error.status, error.problem()["status"], error.problem()["code"]) == (422, 422, error.code.value)
    assert error.extra == ({} if code else {"limit": 3})
