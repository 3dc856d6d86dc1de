"""Test that this release starts with the data of each earlier release, and loses nothing of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from safelight.client.accounts import AccountClient
from safelight.client.master import Client
from safelight.client.partials import PartialClient
from safelight.client.storage import StorageClient
from safelight.wire import State
from support.photos import is_inverse, photo
from support.programs.processes import service
from support.programs.system import system
from upgrade.recording import PARTIAL, RELEASES, build

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("release", sorted(path.name for path in RELEASES.iterdir()))
async def test_this_release_continues_with_data_of_earlier_releases(tmp_path: Path, release: str) -> None:
    expected = build(RELEASES / release, tmp_path)
    async with system(tmp_path, workers=1) as whole, Client.connect(whole.master) as client:
        for task in expected["finished"]:
            assert (await client.task(task)).state is State.FINISHED
            async with client.result(task) as answer:
                assert is_inverse(photo(1, width=24), await answer.read())
        assert (await client.task(expected["failed"])).state is State.FAILED
        done = await client.wait(expected["waiting"], timeout=60)
        assert (done.state, done.recipe) == (State.FINISHED, "small")
        async with client.result(done.id) as answer:
            assert is_inverse(photo(3, width=24), await answer.read())
        assert "small" in {recipe.name for recipe in await client.recipes()}
        events = (await client.changes(0)).events
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert len(events) > expected["seq"]
        async with (
            PartialClient.connect(f"127.0.0.1:{whole.ports['storage']}") as partials,
            StorageClient.connect(f"127.0.0.1:{whole.ports['storage']}") as storage,
        ):
            assert (await partials.get(expected["partial"])).offset == len(PARTIAL)
            await partials.append(expected["partial"], len(PARTIAL), b"end")
            assert await storage.read((await partials.finish(expected["partial"])).digest) == PARTIAL + b"end"
        async with AccountClient.connect(f"127.0.0.1:{whole.ports['db']}") as accounts:
            assert [key.id for key in await accounts.keys()] == ["kept"]


@pytest.mark.parametrize(
    ("name", "file", "newer"),
    [
        ("db", "tasks.sqlite", "PRAGMA user_version = 9999"),
        ("keyvaluestore", "keyvaluestore.sqlite", "PRAGMA user_version = 9999"),
        ("storage", "format", "9999\n"),
    ],
)
async def test_data_of_a_newer_release_are_refused_with_a_sentence(
    tmp_path: Path, name: str, file: str, newer: str
) -> None:
    build(RELEASES / max(path.name for path in RELEASES.iterdir()), tmp_path)
    path = tmp_path / name / file
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(newer)
    else:
        path.write_text(newer)
    before = _names(path.parent)
    async with service(name, "--data", str(path.parent)) as program:
        assert await program.ended() == 4
        assert any("was written by a newer safelight" in line["message"] for line in program.lines)
    assert _names(path.parent) == before


def _names(directory: Path) -> set[str]:
    """Return the names in a directory, without the file of storage's running time, which is always written."""
    return {found.name for found in directory.iterdir() if found.stem != "ages"}
