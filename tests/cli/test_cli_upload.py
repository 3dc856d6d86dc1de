"""Test `safelight upload` and `safelight download`."""

import http.client
import json
import os
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.conftest import Run
from safelight.cli.photos.paths import collect
from support.guests.disks import may_mount, small_disk
from support.photos import is_inverse, photo
from support.programs.command import COMMAND, environment, file_limit, terminal

pytestmark = pytest.mark.slow


def test_one_photo_becomes_a_task(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo(20))
    done = run("upload", "photo.png", "-r", "invert")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("photo.png is task ")
    name = done.stdout.split()[-1]
    assert run("task", name, "--wait").returncode == 0
    number = name.partition("-")[0]
    saved = run("download", number, "--output", "results")
    assert saved.stdout == "results/photo.image.png\n"
    assert is_inverse(photo(20), (tmp_path / "results" / "photo.image.png").read_bytes())


def test_a_directory_is_uploaded_and_its_results_are_saved(run: Run, photos: Path, tmp_path: Path) -> None:
    done = run("upload", "photos", "-r", "invert", "--output", "results")
    assert done.returncode == 0, done.stderr
    results = tmp_path / "results"
    saved = sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file())
    assert saved == ["below/three.image.png", "one.image.png", "two.image.jpg"]
    assert is_inverse(photo(1), (results / "one.image.png").read_bytes())
    assert is_inverse(photo(3), (results / "below" / "three.image.png").read_bytes())
    assert "3 photos finished" in done.stdout


def test_a_photo_that_is_named_in_several_ways_is_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "again.png").symlink_to("one.png")  # a name of its own
    (tmp_path / "elsewhere").symlink_to("photos")
    named = [Path("photos"), Path("photos/below/../../photos"), photos, Path("elsewhere/one.png"), photos / "notes.txt"]
    places = [str(photo.path) for photo in collect(named)]
    assert places == [
        *("photos/again.png", "photos/one.png", "photos/two.jpg", "photos/below/three.PNG"), str(photos / "notes.txt"),
    ]  # fmt: skip


def test_results_replace_other_files_only_on_request(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo(21))
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "a.image.png").write_text("mine")
    assert run("upload", "a.png", "-r", "invert", "-n", "2", "-o", "r").returncode == 0
    assert (tmp_path / "r" / "a.image.png").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        "a.image-2.png", "a.image-3.png", "a.image.png",
    ]  # fmt: skip
    assert run("upload", "a.png", "-r", "invert", "-o", "r", "--overwrite").returncode == 0
    assert is_inverse(photo(21), (tmp_path / "r" / "a.image.png").read_bytes())


def test_json_describes_each_photo_and_the_status_tells_of_failures(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(photo(22))
    (tmp_path / "text.png").write_text("no photo")
    data = photo(23, width=400, kind="JPEG")
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    done = run("upload", "good.png", "text.png", "cut.jpg", "-r", "invert", "--wait", "--json")
    assert done.returncode == 1
    good, text, cut = json.loads(done.stdout)["photos"]
    assert good["task"]["state"] == 2
    assert good["problem"] is None
    assert text["task"] is None
    assert "not an image" in text["problem"]
    assert cut["task"]["state"] == 3
    assert "damaged" in cut["problem"]


def test_a_photo_that_cannot_be_read_to_its_end_does_not_keep_the_others_from_being_sent(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "good.png").write_bytes(photo(28))
    done = run("upload", "/proc/self/mem", "good.png", "--at-once", "1", "--json")  # the former can be opened only
    assert done.returncode == 1
    bad, good = json.loads(done.stdout)["photos"]
    assert bad["problem"] == "The file cannot be read: Input/output error."
    assert good["task"] is not None


def test_failures_are_shown_in_a_table(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no photo")
    done = run("upload", "text.png", "--wait")
    assert done.returncode == 1
    assert "1 photo failed" in done.stderr
    assert "text.png" in done.stderr
    assert "not an image" in done.stderr


def test_recipes_are_given_by_name_or_as_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo(24))
    assert run("upload", "a.png", "-r", "thumbnail", "-o", "r").stdout.startswith("r/a.image.webp\n")
    (tmp_path / "mine.toml").write_text(
        '[small.outputs.tiny]\nformat = "jpeg"\n[[small.outputs.tiny.operations]]\nop = "resize"\nwidth = 20\n'
    )
    done = run("upload", "a.png", "-r", "mine.toml", "-o", "r")
    assert done.stdout.startswith("r/a.tiny.jpg\n"), done.stderr
    wrong = run("upload", "a.png", "-r", "nothing")
    assert wrong.returncode == 3
    assert "nothing" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["upload"], 2, "at least one photo"),
        (["upload", "missing.png"], 3, "no file or directory missing.png"),
        (["upload", "."], 3, "no photo"),
        (["upload", ""], 2, "write a path, not ''"),
        (["upload", "x", "-o", ""], 2, "--output: write a path, not ''"),
        (["up", "--data", ""], 2, "--data: write a directory, not ''"),
        (["upload", "x", "-n", "0"], 2, "-n"),
        (["upload", "/dev/null"], 2, "/dev/null is a pipe or a device"),
        (["upload", "x", "--priority", "101"], 2, "--priority"),
        (["tasks", "--limit", "-1"], 2, "--limit"),
        (["webhooks", "--limit", "0"], 2, "--limit"),
        (["share", "1", "--output", "image", "--original"], 2, "give --output or --original"),
        (["upload", "--bogus"], 2, "--bogus"),
        (["download"], 2, "at least one task"),
        (["download", "999999"], 3, "no task 999999"),
        (["download", "nonsense"], 3, ""),
        (["bogus"], 2, "bogus"),
    ],
)
def test_a_mistake_prints_one_sentence_and_sets_the_status(run: Run, argv: list[str], status: int, words: str) -> None:
    done = run(*argv)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("safelight: ") or ": " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unreachable_system_is_reported_with_what_to_do(run: Run) -> None:
    done = run("status", SAFELIGHT_KEYVALUESTORE="127.0.0.1:1")
    assert done.returncode == 4
    assert "safelight up" in done.stderr
    assert run("status", "--master", "127.0.0.1:1").returncode == 4


def test_bars_for_bytes_and_for_tasks_on_a_terminal(addresses: dict[str, str], photos: Path, tmp_path: Path) -> None:
    where = {"SAFELIGHT_KEYVALUESTORE": addresses["keyvaluestore"]}
    with terminal("upload", photos, "-r", "invert", "-n", 5, "--output", tmp_path / "r", **where) as shown:
        assert shown.ended() == 0
    assert "Uploading" in shown.shown
    assert "Processing" in shown.shown
    assert "15/15" in shown.shown
    assert "15 photos finished" in shown.shown


def test_control_c_leaves_nothing_half_done(addresses: dict[str, str], run: Run, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(photo(30 + number, width=600))
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps({"outputs": {"image": {"format": "avif", "effort": 10}}}))
    where = {"SAFELIGHT_KEYVALUESTORE": addresses["keyvaluestore"]}
    with terminal("upload", tmp_path, "-r", slow, "--output", tmp_path / "r", **where) as shown:
        shown.until(lambda text: "0/4" in text and text.count("Uploading") > 2)
        shown.press(b"\x03")
        told = time.monotonic()
        assert shown.ended() == 130
        assert time.monotonic() - told < 15  # much less than processing the photos takes
    assert "will still be processed" in shown.shown
    assert "Traceback" not in shown.shown
    left = list((tmp_path / "r").iterdir()) if (tmp_path / "r").exists() else []
    assert all(path.stat().st_size for path in left)
    # Photos that were uploaded before Ctrl-C are still processed; this test does not need them.
    tasks = json.loads(run("tasks", "--state", "waiting", "--state", "working", "--json").stdout)
    run("cancel", *(task["id"] for task in tasks))


@pytest.mark.parametrize(
    "argv",
    [
        ("tasks", "--json"),
        ("status",),
        ("tasks", "--help"),
        ("upload", "PHOTOS", "--output", "."),
        ("download", "--state", "finished"),
    ],
)
def test_a_closed_pipe_is_not_an_error(
    addresses: dict[str, str], run: Run, photos: Path, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    if argv[0] == "download":
        run("upload", photos, "--wait")
    reader, writer = os.pipe()
    os.close(reader)
    words = (photos if each == "PHOTOS" else each for each in argv)
    process = subprocess.Popen(
        [COMMAND, *words, "--keyvaluestore", addresses["keyvaluestore"]],
        stdout=writer, stderr=subprocess.PIPE, env=environment(), text=True, cwd=tmp_path,
    )  # fmt: skip
    os.close(writer)
    _, told = process.communicate(timeout=30)
    assert "Traceback" not in told
    assert process.returncode in (141, -signal.SIGPIPE)


def test_a_result_that_cannot_be_saved_costs_no_other(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "many"
    (directory / "2026" / "Zürich").mkdir(parents=True)
    names = ["写" * 80 + ".png", "a.png", "नमस्ते.png", "2026/Zürich/b.png", "blocked.png"]
    for index, name in enumerate(names):
        (directory / name).write_bytes(photo(60 + index))
    out = tmp_path / "out"
    out.mkdir()
    done = run("upload", "many", "-r", "invert", "-o", "out")
    assert done.returncode == 0, done.stderr
    saved = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {"a.image.png", "नमस्ते.image.png", "2026/Zürich/b.image.png", "blocked.image.png"} <= saved
    assert len(saved) == 5
    assert all(path.stat().st_size for path in out.rglob("*") if path.is_file())
    # for one of the photos, the directory of results cannot be made
    other = tmp_path / "other"
    other.mkdir()
    (other / "2026").write_text("a file where a directory is needed")
    done = run("upload", "many", "-r", "invert", "-o", "other")
    assert done.returncode == 1
    assert "cannot be written" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert {path.name for path in other.iterdir()} >= {"a.image.png", "नमस्ते.image.png", "blocked.image.png", "2026"}


def test_nothing_is_uploaded_if_its_results_have_no_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo(65))
    (tmp_path / "file").touch()
    done = run("upload", "a.png", "-o", "file/out", "--master", "localhost:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "safelight: Results cannot be written to file/out: Not a directory.\n"


def mixed(directory: Path) -> None:
    """Make a directory with several small photos and one of 1.8 MB."""
    directory.mkdir()
    for index, name in enumerate(["a.png", "big.png", "b.png", "c.png"]):
        (directory / name).write_bytes(photo(90 + index, width=900 if name == "big.png" else 60))


@contextmanager
def little_room(tmp_path: Path, kind: str) -> Iterator[tuple[Path, list[str]]]:
    """Return a directory in which only small files fit, and the command prefix that causes this limit."""
    if kind == "limit of the process":
        (tmp_path / "small").mkdir()
        yield tmp_path / "small", file_limit(100_000)
        return
    if not may_mount(tmp_path):
        pytest.skip("mounting a small disk takes the rights of root")
    with small_disk(tmp_path / "small", "128k") as disk:
        yield disk, []


@pytest.mark.parametrize("kind", ["limit of the process", "full disk"])
def test_a_full_disk_costs_one_result_and_no_other(kind: str, run: Run, tmp_path: Path) -> None:
    mixed(tmp_path / "many")
    recipe = {"outputs": {"first": {"format": "jpeg", "operations": [{"op": "resize", "width": 20}]},
                          "second": {"format": "png", "operations": [{"op": "invert"}]}}}  # fmt: skip
    (tmp_path / "both.json").write_text(json.dumps(recipe))
    with little_room(tmp_path, kind) as (small, before):
        (small / "big.second.png").write_text("older")
        done = run("upload", "many", "-r", "both.json", "-o", small, "--overwrite", "--json", before=before)
        assert done.returncode == 1, done.stderr
        told = {Path(entry["photo"]).name: entry for entry in json.loads(done.stdout)["photos"]}
        assert [name for name, entry in told.items() if entry["problem"]] == ["big.png"]
        assert "cannot be written" in told["big.png"]["problem"]
        assert [Path(path).name for path in told["big.png"]["saved"]] == ["big.first.jpg"]
        wanted = {f"{name}.{end}" for name in "abc" for end in ("first.jpg", "second.png")} | {"big.first.jpg"}
        files = {path.name: path.stat().st_size for path in small.iterdir()}
        assert files.keys() == wanted | {"big.second.png"}
        assert all(files.values())
        assert (small / "big.second.png").read_text() == "older"

        for path in small.iterdir():
            path.unlink()
        ids = [told[name]["task"]["id"] for name in ("big.png", "a.png", "b.png", "c.png")]
        done = run("download", *ids, "-o", small, before=before)
        assert done.returncode == 4
        assert f"{ids[0]}: Results cannot be written" in done.stderr
        assert {path.name for path in small.iterdir()} == wanted
        assert sorted(Path(line).name for line in done.stdout.splitlines()) == sorted(wanted)


def test_unreadable_photos_and_names_that_are_not_text_cost_no_other_photo(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "many"
    directory.mkdir()
    (directory / "good.png").write_bytes(photo(95))
    Path(os.fsdecode(bytes(directory) + b"/\xff\xfe.png")).write_bytes(photo(96))
    (directory / "gone.png").symlink_to("nowhere")
    os.mkfifo(directory / "pipe.png")
    done = run("upload", "many", "-r", "invert", "-o", "out", "--json")
    assert done.returncode == 1, done.stderr
    told = {Path(entry["photo"]).name: entry for entry in json.loads(done.stdout)["photos"]}
    assert told.keys() == {"good.png", "\ufffd\ufffd.png", "gone.png"}
    assert told["gone.png"]["problem"] == "The file cannot be read: No such file or directory."
    assert [len(entry["saved"]) for entry in told.values()].count(1) == 2
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_what_this_user_may_not_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    for name, mode in (("closed", 0o000), ("listed", 0o744), ("open", 0o755)):
        directory = Path("many", name)
        directory.mkdir(parents=True)
        (directory / f"{name}.png").write_bytes(photo(97))
        directory.chmod(mode)
    with as_nobody():
        found = [(str(one.path), str(one.within), one.size > 0) for one in collect([Path("many")])]
    listed = [("many/listed/listed.png", "listed", False), ("many/open/open.png", "open", True)]
    assert found == [*listed, ("many/closed", ".", False)]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up the rights of root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_names_in_forms_reach_the_task(addresses: dict[str, str], tmp_path: Path) -> None:
    master = urllib.parse.urlsplit("//" + addresses["master"].rpartition("//")[2])
    for parameter, wanted in (
        (b"filename*=UTF-8''gr%C3%BCn.jpg", "grün.jpg"),
        ('filename="写真.jpg"'.encode("cp932"), "写真.jpg"),
        ('filename="Ärger.jpg"'.encode("latin-1"), "Ärger.jpg"),
    ):
        head = b'--x\r\nContent-Disposition: form-data; name="image"; ' + parameter + b"\r\n\r\n"
        connection = http.client.HTTPConnection(master.hostname or "", master.port, timeout=30)
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", "/task?recipe=invert", head + photo(77) + b"\r\n--x--\r\n", kind)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        assert answer.status in {200, 201}, body
        assert body["filename"] == wanted
