"""Test that bytes that are no text, in what was kept or answered, count as damaged like any other."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from safelight.cli.access import kept_keys
from safelight.errors import Code, Error
from safelight.keyvaluestore.etcd.gateway import Access, Gateway
from safelight.steady import Ages
from safelight.storage.directory import DirectoryStore
from safelight.storage.partial.directory import PartialDirectory
from safelight.storage.partial.store import PartialLimits
from safelight.wire import NewPartial
from support.tasks import refused

NO_TEXT = b'{"size": 10, "metadata": {"name": "\xff"}, "looks": {"\xff": {}}, "master": "\xff"}'
"""JSON with the members of several records, in which a text is not UTF-8."""


def test_kept_ages_start_afresh():
    assert Ages(NO_TEXT).kept()


def test_kept_keys_are_named_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = kept_keys.place()
    place.parent.mkdir()
    place.write_bytes(NO_TEXT)
    place.chmod(0o600)
    with pytest.raises(Error, match="Log in again after removing it") as failure:
        kept_keys.load()
    assert failure.value.code is Code.INVALID_REQUEST


async def test_an_upload_with_a_damaged_record_does_not_exist(tmp_path):
    async with (
        DirectoryStore.at(tmp_path / "blobs") as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        opened = await store.create(NewPartial(size=10))
        (tmp_path / "partials" / opened.id / "record.json").write_bytes(NO_TEXT)
        await refused(Code.NOT_FOUND, store.get(opened.id))


async def test_a_member_of_etcd_that_answers_no_json_is_unavailable():
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=NO_TEXT)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    async with TestServer(app) as server, Gateway.open(f"etcd://127.0.0.1:{server.port}", Access()) as gateway:
        await refused(Code.UNAVAILABLE, gateway.call("kv/range", {"key": ""}, within=0.1))
