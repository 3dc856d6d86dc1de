"""Test the cluster key: its file, its rotation, and services that do not start without it."""

from __future__ import annotations

import stat

import pytest

from safelight.access import cluster_key
from safelight.access.cluster_key import ClusterKey
from safelight.errors import Error
from support.programs.processes import service
from support.programs.until import until

ELSEWHERE = "192.0.2.1"
OLD, NEW = "o" * 43, "n" * 43


def written(path, *lines: str, mode: int = 0o600):
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
    return path


def test_a_new_file_belongs_to_its_owner_alone_and_stays(tmp_path):
    path = tmp_path / "below" / "cluster.key"
    cluster_key.ensure(path)
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(first.strip()) >= 43
    cluster_key.ensure(path)
    assert path.read_text() == first
    assert ClusterKey(path).matches(first.strip())


@pytest.mark.parametrize(
    ("lines", "mode", "sentence"),
    [
        ([OLD], 0o640, "chmod 600"), ([OLD], 0o604, "chmod 600"), ([], 0o600, "must hold"),
        (["short"], 0o600, "must hold"),
        ([OLD, NEW, OLD], 0o600, "must hold"), (["ß" * 40], 0o600, "not ASCII"),
    ],
)  # fmt: skip
def test_a_file_that_others_read_or_that_holds_no_key_is_refused(tmp_path, lines, mode, sentence):
    with pytest.raises(Error, match=sentence):
        ClusterKey(written(tmp_path / "key", *lines, mode=mode))
    with pytest.raises(Error, match="cannot be read"):
        ClusterKey(tmp_path / "none")


async def test_a_rotation_restarts_nothing(plane, http, monkeypatch):
    monkeypatch.setattr(cluster_key, "_LOOK_AGAIN", 0.0)
    written(plane.key_file, OLD)
    store = await plane.start("keyvaluestore", trusted_proxies=ELSEWHERE)

    async def status(key: str) -> int:
        async with http.get(f"{store.url}/", headers={"Authorization": f"Bearer {key}"}) as answer:
            return int(answer.status)

    assert [await status(OLD), await status(NEW)] == [200, 401]
    written(plane.key_file, NEW, OLD)
    assert [await status(OLD), await status(NEW)] == [200, 200]
    assert NEW in store.credentials("GET", "/")["Authorization"]
    written(plane.key_file, NEW, OLD, mode=0o644)  # others can read the file, so the earlier keys stay
    assert [await status(OLD), await status(NEW)] == [200, 200]
    written(plane.key_file, NEW)
    assert [await status(OLD), await status(NEW)] == [401, 200]


@pytest.mark.slow
async def test_beyond_this_machine_a_service_needs_a_key_or_to_be_open(tmp_path):
    data = ("--data", str(tmp_path / "data"), "--host", "0.0.0.0")
    async with service("keyvaluestore", *data) as process:
        await process.log("Add --open to let everybody in, or --cluster-key-file FILE")
        assert await process.ended() == 2
    key = written(tmp_path / "key", OLD, mode=0o644)
    async with service("keyvaluestore", *data, "--cluster-key-file", str(key)) as process:
        await process.log("chmod 600")
        assert await process.ended() == 2
    key.chmod(0o600)
    async with service("keyvaluestore", *data, env={"SAFELIGHT_CLUSTER_KEY_FILE": str(key)}) as process:
        await process.address()
        assert OLD not in str(process.lines)
    async with service("keyvaluestore", *data, "--open") as process:
        await process.address()
        await process.log("may do everything there (--open)")


async def test_the_key_is_not_sent_to_services_that_the_classic_protocol_registered(plane, http):
    """A program in a classic network may register as db, but our services do not send it the key."""
    policy = {"trusted_proxies": ELSEWHERE, "classic_networks": "127.0.0.1"}
    store = await plane.start("keyvaluestore", **policy)
    async with http.post(f"{store.url}/dbendpoint", json={"value": "evil.example:1"}) as answer:
        assert answer.status == 200
    await plane.start("db", **policy)
    storage = await plane.start("storage", **policy)
    assert storage.discovery is not None
    address = plane.url("db").removeprefix("http://")
    assert await storage.discovery.wait_for("db") == address
    async with http.post(f"{store.url}/dbendpoint", data={"value": "evil.example:1"}) as answer:
        assert answer.status == 403
    async with http.get(f"{store.url}/dbendpoint") as answer:
        assert await answer.text() == address


async def test_services_find_and_call_one_another_with_only_the_key(keyed, http):
    async with http.get(f"{keyed.url('master')}/readyz", params={"wait": "20"}) as answer:
        assert answer.status == 200

    async def all_ready() -> bool:
        async with http.get(f"{keyed.url('master')}/services", headers=keyed.credentials) as answer:
            return all(seen["ready"] for seen in await answer.json())

    await until(all_ready)  # storage is ready once it has called db
    async with http.get(f"{keyed.url('master')}/tasks", headers=keyed.credentials) as answer:
        assert (answer.status, await answer.json()) == (200, {"tasks": [], "next": None})
