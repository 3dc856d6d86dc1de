"""Test the commands that show tasks, recipes, the queue and the key-value store, and that change tasks."""

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Run
from safelight.cli import service_time
from safelight.cli.photos.progress import Progress
from safelight.cli.printing import held_up
from safelight.wire import Summary, WorkerInfo, WorkerSeen
from support.photos import photo
from support.programs.command import COMMAND, environment, safelight, terminal
from support.programs.until import until
from support.walk import main

pytestmark = pytest.mark.slow

SILENT = -1.0


@pytest.fixture
def task(run: Run, tmp_path: Path) -> dict[str, object]:
    (tmp_path / "look.png").write_bytes(photo(40))
    report = json.loads(run("upload", "look.png", "--wait", "--json").stdout)
    found: dict[str, object] = report["photos"][0]["task"]
    return found


def test_status_counts_tasks_and_shows_workers(run: Run, task: dict[str, object]) -> None:
    text = run("status").stdout
    assert "finished" in text
    assert "process" in text
    summary = json.loads(run("status", "--json").stdout)
    assert summary["tasks"]["finished"] >= 1
    assert summary["workers"][0]["worker"]["slots"] == 2
    assert summary["storage"]["size"] > 0
    assert 0 < summary["storage"]["free"] < summary["storage"]["total"]
    assert re.search(
        r"Photos and results take [0-9.]+ [kM]?B; [0-9.]+ [kMGT]B of [0-9.]+ [GT]B on the disk are free", text
    )


def _line(begin: str, capsys: pytest.CaptureFixture[str], column: int = 0) -> str:
    lines = capsys.readouterr().out.splitlines()
    return next(line for line in lines if line.split()[column : column + 1] == [begin])


@pytest.mark.parametrize("ahead", [90.0, -90.0])
def test_a_wrong_clock_of_this_machine_makes_no_worker_silent(
    ahead: float,
    addresses: dict[str, str],
    task: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes.toml").write_text("[own.outputs.image]\nformat = 'png'\n")
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + ahead)
    monkeypatch.setattr(service_time, "_ahead", 0.0)  # so that it is forgotten after this test
    assert main("safelight", ["workers", "--master", addresses["master"]]) == 0
    (worker,) = capsys.readouterr().out.splitlines()[1:]
    assert "idle" in worker
    assert re.search(r" \d\.\d s ago", worker)
    assert main("safelight", ["task", str(task["id"]), "--master", addresses["master"]]) == 0
    created = _line("created", capsys)
    assert float(created.split()[1]) < 60.0
    assert created.split()[2:] == ["s", "ago"]
    where = ("--master", addresses["master"])
    monkeypatch.setattr(service_time, "_ahead", 0.0)  # a new process knows nothing of the service's clock
    assert main("safelight", ["tasks", "--since", "60s", "--json", *where]) == 0
    assert task["id"] in [each["id"] for each in json.loads(capsys.readouterr().out)]
    for argv in (("keys", "create", "brief", "--expires", "60s"), ("recipes", "save", "recipes.toml")):
        assert main("safelight", [*argv, *where]) == 0
    capsys.readouterr()
    assert main("safelight", ["keys", *where]) == 0
    assert re.search(r"expires in [0-9.]+ s", _line("brief", capsys, 1))
    assert main("safelight", ["recipes", *where]) == 0
    assert re.search(r" [0-9.]+ s ago", _line("own", capsys))
    assert main("safelight", ["recipes", "delete", "own", *where]) == 0


def test_tasks_are_listed_and_filtered(run: Run, task: dict[str, object]) -> None:
    text = run("tasks").stdout
    row = next(line for line in text.splitlines() if str(task["id"]) in line)
    assert "look.png" in row
    assert "finished" in row
    found = json.loads(run("tasks", "--batch", task["batch"], "--json").stdout)
    assert [each["id"] for each in found] == [task["id"]]
    assert json.loads(run("tasks", "--state", "failed", "--batch", task["batch"], "--json").stdout) == []
    assert "No tasks" in run("tasks", "--recipe", "invert", "--batch", task["batch"]).stdout
    assert run("tasks", "--state", "bogus").returncode == 2
    assert len(json.loads(run("tasks", "--limit", "1", "--json").stdout)) == 1


def test_one_task_is_shown_by_id_or_number(run: Run, task: dict[str, object]) -> None:
    text = run("task", task["id"]).stdout
    assert "look.png" in text
    assert "image/png" in text
    number = str(task["id"]).partition("-")[0]
    assert json.loads(run("task", number, "--json").stdout)["id"] == task["id"]
    for unknown in ("123456", "abc", "123456-abcdefghij"):
        missing = run("task", unknown)
        assert (missing.returncode, missing.stderr) == (3, f"safelight: There is no task {unknown}.\n")


def test_tasks_are_deleted_and_impossible_changes_are_explained(run: Run, task: dict[str, object]) -> None:
    done = run("cancel", task["id"])
    assert done.returncode == 5
    assert str(task["id"]) in done.stderr
    assert "is gone" in run("delete", task["id"]).stdout
    assert run("task", task["id"]).returncode == 3
    assert run("retry").returncode == 2


def test_recipes_are_listed_shown_checked_saved_and_deleted(run: Run, tmp_path: Path) -> None:
    listed = run("recipes").stdout.splitlines()
    assert listed[1].startswith("web ")
    assert any(line.startswith("invert ") and "negative" in line for line in listed)
    assert {each["name"] for each in json.loads(run("recipes", "list", "--json").stdout)} >= {"invert", "web"}
    assert "outputs" in json.loads(run("recipes", "invert").stdout)
    assert run("recipes", "show", "nothing").returncode == 3
    (tmp_path / "r.toml").write_text(
        '[mine]\ndescription = "Grey"\n[[mine.outputs.image.operations]]\nop = "grayscale"\n'
    )
    assert "valid recipe with 1 output" in run("recipes", "check", "r.toml").stdout
    assert run("recipes", "check", "r.toml", "--offline", SAFELIGHT_KEYVALUESTORE="127.0.0.1:1").returncode == 0
    assert run("recipes", "save", "r.toml").stdout == "Saved recipe mine.\n"
    assert json.loads(run("recipes", "mine").stdout)["description"] == "Grey"
    read = json.loads(run("recipes", "show", "mine", "--json").stdout)["changed"]
    (tmp_path / "r.toml").write_text((tmp_path / "r.toml").read_text().replace("Grey", "Dark"))
    for earlier in ("0", repr(read - 1)):
        refused = run("recipes", "save", "r.toml", "--unchanged-since", earlier)
        assert (refused.returncode, refused.stdout) == (5, "")
    assert run("recipes", "delete", "mine", "--unchanged-since", repr(read - 1)).returncode == 5
    assert run("recipes", "save", "r.toml", "--unchanged-since", repr(read)).stdout == "Saved recipe mine.\n"
    assert json.loads(run("recipes", "mine").stdout)["description"] == "Dark"
    assert run("recipes", "delete", "mine").returncode == 0
    (tmp_path / "bad.toml").write_text('[[bad.outputs.image.operations]]\nop = "explode"\n')
    bad = run("recipes", "check", "bad.toml")
    assert bad.returncode == 2
    assert "explode" in bad.stderr
    assert "cannot be read" in run("recipes", "check", "none.toml").stderr


def test_the_key_value_store_is_read_and_changed(run: Run, addresses: dict[str, str]) -> None:
    assert run("store", "get", "masterendpoint").stdout.strip() == addresses["master"]
    assert run("store", "set", "colour", "blue").returncode == 0
    assert run("store", "get", "colour").stdout == "blue\n"
    assert "colour" in run("store", "list").stdout
    assert {entry["key"] for entry in json.loads(run("store", "list", "--json").stdout)["entries"]} >= {"colour"}
    assert "Deleted 1 value" in run("store", "delete", "colour").stdout
    assert run("store", "get", "colour").returncode == 3
    gone = run("store", "delete", "colour")
    assert (gone.returncode, gone.stdout) == (3, "")
    assert "There is no value under the key colour." in gone.stderr


@pytest.mark.parametrize("service", ["keyvaluestore", "db", "storage"])
def test_the_address_of_another_service_is_not_taken_for_the_masters(run: Run, addresses: dict[str, str], service: str):
    address = addresses[service]
    for command in (("tasks",), ("upload", __file__), ("keys", "list")):
        wrong = run(*command, "--master", address)
        assert wrong.returncode == 1
        name = "key-value store" if service == "keyvaluestore" else service
        assert f"http://{address} is the {name} of a system. Give the address of its master." in wrong.stderr
    if service != "keyvaluestore":
        wrong = run("tasks", SAFELIGHT_KEYVALUESTORE=address)
        assert f"is the {service} of a system. Give the address of its key-value store." in wrong.stderr


def test_the_store_is_watched(run: Run, addresses: dict[str, str]) -> None:
    with terminal("store", "watch", "mood", SAFELIGHT_KEYVALUESTORE=addresses["keyvaluestore"]) as shown:
        with terminal("store", "watch", SAFELIGHT_KEYVALUESTORE=addresses["keyvaluestore"]) as whole:
            whole.until(lambda text: "masterendpoint=" in text)
        run("store", "set", "mood", "good")
        shown.until(lambda text: "mood=good" in text)
        run("store", "delete", "mood")
        shown.until(lambda text: "- mood=good" in text)
        shown.press(b"\x03")
        assert shown.ended() == 130


async def test_changes_of_the_store_reach_programs_at_once(run: Run, addresses: dict[str, str], tmp_path: Path) -> None:
    env = environment(SAFELIGHT_KEYVALUESTORE=addresses["keyvaluestore"], PYTHONUNBUFFERED="")
    seen = tmp_path / "seen"
    with seen.open("w") as file:
        watch = await asyncio.create_subprocess_exec(COMMAND, "store", "watch", "tempo", "--json", stdout=file, env=env)
    try:
        await until(lambda: '"entries": []' in seen.read_text())
        await asyncio.to_thread(run, "store", "set", "tempo", "presto")
        await until(lambda: '"value": "presto"' in seen.read_text())
    finally:
        watch.kill()
        await watch.wait()


def test_top_is_live(run: Run, addresses: dict[str, str], tmp_path: Path) -> None:
    where = {"SAFELIGHT_KEYVALUESTORE": addresses["keyvaluestore"]}
    with terminal("top", "--interval", "0.1", **where) as shown:
        shown.until(lambda text: "waiting" in text and "WORKER" in text)
        (tmp_path / "live.png").write_bytes(photo(41))
        name = run("upload", "live.png").stdout.split()[-1]
        shown.until(lambda text: name in text)
        shown.press(b"\x03")
        assert shown.ended() == 130
    assert "Traceback" not in shown.shown
    once = run("top", "--once").stdout
    assert name in once
    assert json.loads(run("top", "--json").stdout)["summary"]["workers"]


def test_help_names_every_command_and_completion_is_installed(tmp_path: Path) -> None:
    text = safelight("--help").stdout
    for name in ("upload", "status", "top", "tasks", "recipes", "store", "up", "worker", "--install-completion"):
        assert name in text
    assert "--recipe" in safelight("upload", "--help").stdout
    done = safelight("--install-completion", "--shell", "bash", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    scripts = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("upload" in path.read_text() for path in scripts)


def test_programs_get_their_own_arguments() -> None:
    done = safelight("worker", "--help")
    assert done.returncode == 0
    assert "--lease-duration" in done.stdout
    wrong = safelight("worker")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("safelight worker: ")
    assert len(wrong.stderr.splitlines()) == 1
    assert "KEYVALUESTORE_HOST:PORT" in safelight("db", "--help").stdout


def test_services_start_without_the_command_s_libraries() -> None:
    script = (
        "import sys; from safelight.cli import main\n"
        "try: main(['db', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'rich', 'cyclopts'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_confirming_the_clocks_is_in_the_audit_log(run: Run) -> None:
    assert json.loads(run("confirm-clock", "--json").stdout)["at"] > 0
    actions = [json.loads(line)["action"] for line in run("audit").stdout.splitlines()]
    assert actions[-1] == "clock.confirm"


def test_an_upload_that_waits_says_that_its_recipe_is_paused(
    run: Run, addresses: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "held.png").write_bytes(photo(42))
    run("pause", "--recipe", "grayscale")
    notes: list[str] = []

    def note(_progress: Progress, sentence: str) -> None:
        notes.append(sentence)
        run("resume", "--recipe", "grayscale")

    monkeypatch.setattr("safelight.cli.photos.batch._PATIENCE", 0.0)
    monkeypatch.setattr(Progress, "note", note)
    monkeypatch.setenv("SAFELIGHT_KEYVALUESTORE", addresses["keyvaluestore"])
    assert main("safelight", ["upload", str(tmp_path / "held.png"), "--recipe", "grayscale", "--wait"]) == 0
    assert notes == ["The recipe grayscale is paused: its photos wait until `safelight resume --recipe grayscale`."]


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"paused": 1.0}, "The queue is paused: photos wait until `safelight resume`."),
        ({"paused_recipes": {"other": 1.0}, "workers_hidden": True}, ""),
        ({}, "No worker is known that takes tasks; see `safelight workers`."),
        ({"workers": [1.0, 0.0]}, ""),
        ({"workers": [1.0, 1.0]}, "No worker is known that takes tasks; see `safelight workers`."),
        ({"workers": [1.0, SILENT]}, "No worker is known that takes tasks; see `safelight workers`."),
    ],
)
def test_what_holds_photos_up_is_known(seen: dict[str, Any], said: str) -> None:
    """Each worker is drained since a moment, silent, or takes tasks."""
    lately = time.time()
    workers = [
        WorkerSeen(
            worker=WorkerInfo(id="w"),
            first_seen=0.0,
            last_seen=0.0 if since == SILENT else lately,
            draining=max(since, 0.0),
        )
        for since in seen.get("workers", [])
    ]
    assert held_up(Summary(tasks={}, **{**seen, "workers": workers}), "grayscale") == said


def test_a_recipe_is_paused_and_a_worker_drained_by_name(run: Run, addresses: dict[str, str], tmp_path: Path) -> None:
    """Start a second worker with a name; the first one continues while the second is drained."""
    assert "The recipe grayscale is paused: 0 tasks wait." in run("pause", "--recipe", "grayscale").stdout
    assert "safelight resume --recipe grayscale" in run("status").stdout
    unknown = run("pause", "--recipe", "no-such")
    assert (unknown.returncode, "no recipe" in unknown.stderr) == (3, True)
    unknown = run("resume", "--recipe", "no-such")
    assert (unknown.returncode, "no recipe" in unknown.stderr) == (3, True)
    (tmp_path / "held.png").write_bytes(photo(41))
    run("upload", "held.png", "--recipe", "grayscale")
    assert "is paused: 1 task waits." in run("pause", "--recipe", "grayscale").stdout
    assert "The recipe grayscale is running" in run("resume", "--recipe", "grayscale").stdout
    argv = [
        sys.executable,
        "-m",
        "safelight.worker",
        addresses["keyvaluestore"],
        "--name",
        "dark-room",
        "--port",
        "0",
    ]
    key = Path(addresses["data"]) / "cluster.key"
    with subprocess.Popen([*argv, "--data", str(tmp_path / "second"), "--cluster-key-file", str(key)]) as worker:
        try:
            deadline = time.monotonic() + 60
            while "dark-room" not in run("workers").stdout:
                assert time.monotonic() < deadline
            assert "dark-room" in run("workers", "drain", "dark-room", "--wait").stdout
            row = next(line for line in run("workers").stdout.splitlines() if "dark-room" in line)
            assert "drained" in row
            assert row.startswith("dark-room-"), "the unique id begins with the name"
            assert "takes tasks again" in run("workers", "resume", "dark-room").stdout
            (seen,) = [each for each in json.loads(run("workers", "--json").stdout) if each["worker"]["name"]]
            assert seen["draining"] == 0
            assert run("workers", "drain", "nobody").returncode == 3
        finally:
            worker.terminate()
