"""Test commands on a system with more tasks than are counted, of which only older ones match."""

import json

import pytest

from master.conftest import System
from safelight.cli.connection import Where
from safelight.cli.photos.download import download_command
from safelight.cli.tasks.actions import cancel_command, delete_command, release_command, retry_command
from safelight.cli.tasks.queue import pause_command
from safelight.cli.tasks.which import Which
from safelight.client.db import DbClient
from safelight.db.calls.tasks import searching
from safelight.wire import TaskFilter
from support.tasks import new_task

OLD = Which(batch="old")
BOTH = Which(search="photo")


@pytest.fixture
async def where(tmp_path, monkeypatch):
    """Run a system with 5 tasks of the batch `old`, and 4 newer ones, which alone are counted. Yield where it is."""
    monkeypatch.setattr(searching, "SEARCHED", 3)
    async with System.at(tmp_path) as system, DbClient.connect(system.address("db")) as db:
        await db.create([new_task(batch="old", recipe="web") for _ in range(5)])
        await db.create([new_task(batch="new", recipe="invert") for _ in range(4)])
        assert not (await db.count(TaskFilter(batch="old"))).complete
        yield Where(master=(await system.master()).url)


async def test_tasks_that_were_not_counted_are_changed_too(where, capsys):
    assert await cancel_command(which=OLD, yes=True, where=where) == 0
    shown = capsys.readouterr()
    assert "cancel every task that matches\n" in shown.err
    assert "only the newest were counted, and older ones may match too." in shown.err
    assert shown.out == "5 tasks cancelled.\n"
    assert await retry_command(which=OLD, yes=True, where=Where(master=where.master, json=True)) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == 5
    assert await delete_command(which=BOTH, yes=True, where=where) == 0
    shown = capsys.readouterr()
    assert "delete at least 4 tasks: 4 waiting\n" in shown.err
    assert shown.out == "9 tasks deleted.\n"


async def test_only_tasks_in_a_state_that_allows_the_action_are_changed(where, capsys):
    assert await release_command(which=Which(state=["waiting"], batch="old"), yes=True, where=where) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "No task matches.\n")
    assert await release_command(which=OLD, yes=True, where=where) == 0
    assert capsys.readouterr().out == "0 tasks released.\n"


async def test_previews_say_what_was_not_counted(where, capsys):
    assert await delete_command(which=OLD, dry_run=True, where=Where(master=where.master, json=True)) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["would_change"], shown["complete"]) == (0, False)
    assert await download_command(which=OLD, dry_run=True, where=where) == 0
    shown = capsys.readouterr()
    assert "download the results of every task that matches\n" in shown.err
    assert "only the newest were counted, and older ones may match too." in shown.err
    await pause_command(recipe="web", where=where)
    assert capsys.readouterr().out == "The recipe web is paused.\n"
    await pause_command(recipe="invert", where=where)
    assert capsys.readouterr().out == "The recipe invert is paused: at least 4 tasks wait.\n"
