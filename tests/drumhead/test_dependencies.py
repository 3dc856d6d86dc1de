"""Python projects' dependencies: from locks with hashes, from pyproject, and refused otherwise."""

import json
import subprocess

import pytest

from drumhead.errors import DrumheadError
from drumhead.python.lock import check_hashes, find_uv
from drumhead.python.wheels import SITE, refuse_compiled

from .conftest import write_files
from .test_compose import listing

PYPROJECT = """
[project]
name = "x"
version = "1"
dependencies = ["idna"]
[project.optional-dependencies]
more = ["sniffio"]
"""


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A requirements file with one requirement and its hashes."""
    folder = write_files(tmp_path_factory.mktemp("lock"), {"in.txt": "idna==3.10\n"})
    command = [
        find_uv(),
        "pip",
        "compile",
        "--quiet",
        "--generate-hashes",
        "--no-header",
        "-o",
        folder / "out",
        folder / "in.txt",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "out").read_text()


def test_a_lock_is_installed_as_bytecode_and_kept(drumhead, project, locked):
    write_files(project, {"requirements.txt": locked})
    compose = ("package", "compose", "t/locked", "-C", project)
    drumhead(*compose)
    files = listing(drumhead, "t/locked", "python")
    assert f"{SITE}/idna/core.pyc" in files
    assert f"{SITE}/idna/core.py" not in files
    assert f"{SITE}/idna-3.10.dist-info/METADATA" in files
    assert not [path for path in files if path.endswith(("RECORD", "direct_url.json", "py.typed"))]
    assert "(4 kept)" in drumhead(*compose)


def test_a_wrong_hash_is_refused(drumhead, project, locked):
    first = locked.split("sha256:")[1][:64]
    wrong = locked.replace(first, "0" * 64).replace(locked.split("sha256:")[2][:64], "1" * 64)
    write_files(project, {"requirements.txt": wrong})
    assert "Hash mismatch" in drumhead.refused("package", "compose", "t/wrong", "-C", project, status=4)


def test_pyproject_is_resolved_once_and_the_lock_kept(drumhead, project):
    write_files(project, {"pyproject.toml": PYPROJECT})
    compose = ("package", "compose", "t/pyproject", "-C", project)
    done = drumhead.run(*compose)
    assert "pyproject.toml was resolved into meta/requirements.lock" in done.stderr
    lock = (project / "meta/requirements.lock").read_text()
    assert "idna==" in lock
    assert "--hash=sha256:" in lock
    assert "resolved" not in drumhead.run(*compose).stderr
    assert f"{SITE}/idna/core.pyc" in listing(drumhead, "t/pyproject", "python")
    manifest = project / "meta/package.yaml"
    manifest.write_text(manifest.read_text() + "python:\n  extras: [more]\n")
    assert "resolved" in drumhead.run(*compose).stderr
    assert f"{SITE}/sniffio/_impl.pyc" in listing(drumhead, "t/pyproject", "python")
    manifest.write_text(manifest.read_text().replace("more", "other"))
    assert "no extra other" in drumhead.refused(*compose, status=2)


def test_uv_locks_are_read(drumhead, project):
    write_files(project, {"pyproject.toml": PYPROJECT})
    subprocess.run([find_uv(), "lock", "--quiet", "--project", project], check=True, capture_output=True)
    drumhead("package", "compose", "t/uvlock", "-C", project)
    assert not (project / "meta/requirements.lock").exists()
    assert f"{SITE}/idna/core.pyc" in listing(drumhead, "t/uvlock", "python")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("# c\naiohttp==3.9\n", 2, "aiohttp==3.9 has no --hash"),
        ("a==1 \\\n  --hash=sha256:00\nb==2 \\\n  --hash=md5:00\n", 3, "b==2 has no --hash"),
        ("-r other.txt\n", 1, "-r is not supported"),
        ("-e .\n", 1, "-e is not supported"),
    ],
)
def test_requirements_without_hashes_are_refused_by_line(text, line, reason):
    with pytest.raises(DrumheadError, match=rf"^r\.txt:{line}: .*{reason}"):
        check_hashes(text, "r.txt")


def test_pylock_without_hashes_is_refused(drumhead, project):
    write_files(project, {"pylock.toml": 'lock-version = "1.0"\n[[packages]]\nname = "idna"\nversion = "3"\n'})
    assert "idna has no wheel with a SHA-256" in drumhead.refused("package", "compose", "t/p", "-C", project, status=2)


def test_what_was_compiled_on_this_host_is_refused(tmp_path):
    write_files(tmp_path, {"fine-1.dist-info/WHEEL": "Tag: cp311-cp311-manylinux_2_28_x86_64\nTag: py3-none-any\n"})
    refuse_compiled(tmp_path)
    write_files(tmp_path, {"local-1.dist-info/WHEEL": "Tag: cp311-cp311-linux_x86_64\n"})
    with pytest.raises(DrumheadError, match="local-1 has no wheel"):
        refuse_compiled(tmp_path)


def test_the_default_command_can_be_named_when_composing(drumhead, project):
    compose = ("package", "compose", "t/run", "-C", project)
    drumhead(*compose, "--run", "module", "--env", "A=b")
    assert drumhead.json("info", "t/run")["default"] == "module"
    assert drumhead.json("info", "t/run")["commands"]["module"]["env"] == {"A": "b", "DEPTH": "3"}
    made = json.loads(drumhead(*compose, "--run", "/python3 -c pass", "--json"))
    assert made["image"]["commands"]["run"]["argv"] == ["/python3", "-c", "pass"]
