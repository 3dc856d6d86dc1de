"""Test commands that act on many tasks: the preview, the question, the action and the exit status."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.conftest import Run
from support.photos import photo
from support.programs.command import everything, safelight, terminal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run a system with three finished and two damaged photos in the batch `trip`, and two photos of another batch."""
    directory = tmp_path_factory.mktemp("many")
    for batch, names in (("trip", ("a", "b", "c", "bad-1", "bad-2")), ("home", ("d", "bad-3"))):
        (directory / batch).mkdir()
        for number, name in enumerate(names):
            data = photo(70 + number, width=200)
            (directory / batch / f"{name}.png").write_bytes(data[: len(data) // 2] if "bad" in name else data)
    with everything(directory / "data", "--slots", 2) as found:
        where = {"SAFELIGHT_KEYVALUESTORE": found["keyvaluestore"]}
        batches: dict[str, str] = {}
        for batch in ("trip", "home"):
            done = safelight("upload", directory / batch, "-r", "thumbnail", "--wait", "--json", **where)
            batches[batch] = json.loads(done.stdout)["batch"]
        yield {**found, **batches}


def test_tasks_are_found_by_every_filter(addresses: dict[str, str], run: Run) -> None:
    def names(*argv: str) -> set[str]:
        return {task["filename"] for task in json.loads(run("tasks", "--json", *argv).stdout)}

    assert names("--batch", addresses["trip"], "--state", "failed") == {"bad-1.png", "bad-2.png"}
    assert names("--search", "bad-") == names("--reason", "damaged_image") == {"bad-1.png", "bad-2.png", "bad-3.png"}
    assert len(names("--since", "1h")) == 7
    assert names("--until", "1h") == names("--recipe", "web") == names("--since", "2100-01-01") == set()
    refused = run("tasks", "--since", "yesterday")
    assert refused.returncode == 2
    assert "Write a time such as" in refused.stderr


def test_a_dry_run_changes_nothing_and_a_script_must_confirm(addresses: dict[str, str], run: Run) -> None:
    of = ("--batch", addresses["trip"])
    shown = run("retry", *of, "--dry-run")
    assert shown.returncode == 0
    assert "retry 2 tasks: 2 failed" in shown.stderr
    assert set(shown.stderr.splitlines()[1].strip().split(", ")) == {"bad-1.png", "bad-2.png"}
    assert "Left alone: 3 finished" in shown.stderr
    assert json.loads(run("retry", *of, "--dry-run", "--json").stdout)["would_change"] == 2
    named = json.loads(run("tasks", *of, "--state", "finished", "--json").stdout)[0]["id"]
    assert "delete 1 task: 1 finished" in run("delete", named, "--dry-run").stderr
    assert [task["id"] for task in json.loads(run("tasks", "--search", named, "--json").stdout)] == [named]
    unsaid = run("retry", *of)
    assert unsaid.returncode == 2
    assert "Nothing was changed. There is no terminal to ask on; give --yes" in unsaid.stderr
    nothing = run("release", *of, "--yes")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "Nothing to release: 3 finished, 2 failed left alone." in nothing.stderr
    for wrong in (("retry",), ("delete", "1", *of)):
        assert run(*wrong).returncode == 2
    assert run("retry", "1-nosuchtask", "--yes").returncode == 3
    for way in ("--yes", "--dry-run"):
        refused = run("rerun", *of, "--with", "no-such", way)
        assert (refused.returncode, refused.stdout) == (3, "")
        assert refused.stderr.startswith("safelight: There is no recipe called 'no-such'")  # and no plan before it
    assert "rerun 1 task with web: 1 finished" in run("rerun", named, named, "--with", "web", "--dry-run").stderr


def test_it_asks_on_a_terminal(addresses: dict[str, str], run: Run) -> None:
    where = {"SAFELIGHT_KEYVALUESTORE": addresses["keyvaluestore"]}
    argv = ("rerun", "--batch", addresses["home"], "--state", "finished", "--with", "grayscale")
    for answer, words in ((b"n\n", "Nothing was changed."), (b"y\n", "1 task queued again.")):
        with terminal(*argv, **where) as shown:
            shown.until(lambda text: "Rerun 1 task? [y/n]" in re.sub("\x1b[^m]*m", "", text))
            shown.press(answer)
            assert shown.ended() == 0
        assert words in shown.shown
    made = json.loads(run("tasks", "--recipe", "grayscale", "--json").stdout)
    assert [(task["filename"], task["batch"]) for task in made] == [("d.png", addresses["home"])]
    with terminal("delete", "--search", "bad-3", **where) as shown:
        shown.until(lambda text: "[y/n]" in re.sub("\x1b[^m]*m", "", text))
        shown.press(b"\x03")
        assert shown.ended() == 130
    assert len(json.loads(run("tasks", "--search", "bad-3", "--json").stdout)) == 1


def test_photos_are_processed_again_with_the_recipe_of_a_file(
    addresses: dict[str, str], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text('[tiny.outputs.tiny]\nformat = "png"\n')
    (tmp_path / "wrong.toml").write_text('[tiny.outputs.tiny]\nformat = "bmp"\n')
    named = json.loads(run("tasks", "--search", "a.png", "--json").stdout)[0]["id"]
    refused = run("rerun", named, "--with", "wrong.toml", "--yes")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "$.tiny.outputs.tiny.format" in refused.stderr
    shown = run("rerun", named, "--with", "tiny.toml", "--yes")
    assert (shown.returncode, shown.stdout) == (0, "1 task queued again.\n")
    assert "rerun 1 task with tiny.toml: 1 finished" in shown.stderr
    made = json.loads(run("tasks", "--recipe", "custom", "--json").stdout)
    assert [(task["filename"], task["batch"]) for task in made] == [("a.png", addresses["trip"])]
    assert run("delete", made[0]["id"]).returncode == 0


def test_a_photo_that_arrives_while_it_asks_is_left_alone(addresses: dict[str, str], run: Run, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"late-{number}.png").write_bytes(photo(number))
    assert run("upload", "late-1.png").returncode == 0
    with terminal("delete", "--search", "late-", SAFELIGHT_KEYVALUESTORE=addresses["keyvaluestore"]) as shown:
        shown.until(lambda text: "Delete 1 task? [y/n]" in re.sub("\x1b[^m]*m", "", text))
        assert run("upload", "late-2.png").returncode == 0
        shown.press(b"y\n")
        assert shown.ended() == 0
    left = json.loads(run("tasks", "--search", "late-", "--json").stdout)
    assert [task["filename"] for task in left] == ["late-2.png"]
    assert run("delete", left[0]["id"]).returncode == 0


def test_results_of_all_that_match_are_downloaded(addresses: dict[str, str], run: Run, tmp_path: Path) -> None:
    of = ("--batch", addresses["trip"])
    assert "download the results of 3 tasks" in run("download", *of, "--dry-run").stderr
    assert json.loads(run("download", *of, "--dry-run", "--json").stdout) == {"would_download": 3, "complete": True}
    saved = run("download", *of, "-o", "results")
    assert saved.returncode == 0
    assert {path.name for path in (tmp_path / "results").iterdir()} == {f"{name}.image.webp" for name in "abc"}
    none = run("download", *of, "--state", "failed", "-o", "none")
    assert none.returncode == 0
    assert "No task with results matches." in none.stderr
    named = json.loads(run("tasks", *of, "--state", "finished", "--json").stdout)[0]["id"]
    assert len(run("download", named, named, "-o", "twice").stdout.splitlines()) == 1
    assert "download the results of 1 task" in run("download", named, named, "--dry-run").stderr
    assert run("download", "1-nosuchtask", "--dry-run").returncode == 3


def test_all_that_match_are_retried_and_deleted(addresses: dict[str, str], run: Run) -> None:
    retried = run("retry", "--batch", addresses["trip"], "--state", "failed", "--since", "2h", "--yes")
    assert (retried.returncode, retried.stdout) == (0, "2 tasks sent back to the queue.\n")
    named = json.loads(run("tasks", "--batch", addresses["home"], "--json").stdout)[0]["id"]
    assert run("delete", named, named).returncode == 0
    deleted = run("delete", "--batch", addresses["trip"], "--yes", "--json")
    assert json.loads(deleted.stdout)["changed"] == 5
    assert json.loads(run("tasks", "--batch", addresses["trip"], "--json").stdout) == []
