"""Test untrusted projects: their files take bounded time and memory, and cannot read files of this host."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.inputs import resolve_packages
from drumhead.manifest import ignore, project_files
from drumhead.manifest.project import PACKAGE_FILE, RUN_FILE, read_project
from drumhead.node import lock as node_lock
from drumhead.node.lock import read_node_lock
from drumhead.node.versions import PACKAGE_JSON
from drumhead.python import lock as python_lock
from drumhead.python.lock import read_lock
from support.guests.composing import write_files

HASH = f"--hash=sha256:{'0' * 64}"


def poetry(name="x", version="1.0", **source):
    """Return a poetry.lock with one package, and the pyproject.toml that requires it."""
    lines = [
        "[[package]]", f"name = {json.dumps(name)}", f"version = {json.dumps(version)}",
        f'files = [{{file = "x", hash = "sha256:{"0" * 64}"}}]',
    ]  # fmt: skip
    if source:
        lines += ["[package.source]", *(f"{key} = {json.dumps(value)}" for key, value in source.items())]
    return {"poetry.lock": "\n".join(lines), "pyproject.toml": '[tool.poetry.dependencies]\nx = "*"\n'}


def pipfile(version="==1.0", **more):
    """Return a Pipfile.lock with one package."""
    package = {"version": version, "hashes": [f"sha256:{'0' * 64}"], **more}
    return {"Pipfile.lock": json.dumps({"default": {"x": package}})}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"requirements.txt": "x\n-r ../outside.txt\n"}, r"requirements.txt:2: \.\./outside.txt leads out of"),
        ({"requirements.txt": "-r /etc/passwd\n"}, "/etc/passwd leads out of the project"),
        ({"requirements.txt": "-r sub/link.txt\n"}, "sub/link.txt leads out of the project"),
        ({"requirements.txt": "-r pipe\n"}, "pipe is not a regular file"),
        ({"requirements.txt": "-r http://127.0.0.1:9/x.txt\n"}, "is not a file of the project"),
        ({"requirements.txt": f"--index-url https://pypi.org/simple -e .\nx==1 {HASH}\n"}, "--index-url is not supp"),
        (poetry(version="1.0\n-e ."), "has no --hash|is not supported"),
        (poetry(type="legacy", url="https://x\n-e ."), "-e is not supported"),
        (poetry(type="legacy", url="https://x -e ."), "--extra-index-url is not supported"),
        (pipfile(version="==1.0\n-e ."), "has no --hash|is not supported"),
        (pipfile(markers="\n-r /etc/passwd"), "has no --hash|is not supported"),
        ({"Pipfile.lock": "[" * 100_000}, "is not a lock of Pipenv"),
        ({"pylock.toml": "a = " + "[" * 100_000}, "is not TOML"),
        ({"pyproject.toml": "a." * 200_000 + "a = 1"}, "more than 64 parts"),
        ({"requirements.txt": b"\0" * (17 << 20)}, "it has more than 16 MiB"),
    ],
)  # fmt: skip
def test_a_lock_of_a_project_reads_that_project_alone(project, tmp_path, files, reason):
    write_files(tmp_path, {"outside.txt": "secret==1\n"})
    write_files(project, {**files, "sub/x": ""})
    (project / "sub/link.txt").symlink_to(tmp_path / "outside.txt")
    os.mkfifo(project / "pipe")
    began = time.monotonic()
    with pytest.raises(DrumheadError, match=reason) as refused:
        read_lock(read_project(project), tmp_path)
    assert refused.value.code is ErrorCode.MANIFEST
    assert "secret" not in refused.value.message
    assert time.monotonic() - began < 60


NAMES = sorted(
    {PACKAGE_FILE, RUN_FILE, *ignore.FILES, *python_lock.FILES, *node_lock.FILES, PACKAGE_JSON, ".npmrc"} - {"Pipfile"}
)
"""All files that are read from a project by name. For a Pipfile, only its existence counts."""
BESIDE = {
    "poetry.lock": {"pyproject.toml": ""},
    "uv.lock": {"pyproject.toml": ""},
    ".npmrc": {
        "package.json": "{}",
        "package-lock.json": json.dumps({"packages": {"node_modules/x": {"version": "1", "integrity": "sha512-x"}}}),
    },
}
"""The other files that must exist for a file to be read."""


def out_of_the_project(place, secret):
    place.symlink_to(secret)
    return "leads out of the project; replace"


def pipe(place, _):
    os.mkfifo(place)
    return "is not a regular file; replace"


def endless(place, _):
    with place.open("wb") as file:
        file.truncate(1 << 40)
    return "has more than (16 M|256 K)iB; shorten"


def read_all(project, cache):
    """Read all files of a project that are read by name."""
    read = read_project(project)
    ignore.read_ignore(project)
    resolve_packages(read, ("node", "python"))
    return read_lock(read, cache), read_node_lock(read, "node")


@pytest.mark.parametrize("made", [out_of_the_project, pipe, endless])
@pytest.mark.parametrize("name", NAMES)
def test_no_file_of_a_project_is_a_file_of_this_host(project, tmp_path, name, made):
    write_files(tmp_path, {"outside/secret": f"secret==1 {HASH}\n"})
    write_files(project, BESIDE.get(name, {}))
    (project / name).unlink(missing_ok=True)
    reason = made(project / name, tmp_path / "outside" / "secret")
    with pytest.raises(DrumheadError, match=f"^{name}:1: (it|{name}) {reason}") as refused:
        read_all(project, tmp_path)
    assert refused.value.code is ErrorCode.MANIFEST
    assert "secret" not in refused.value.message


def test_a_link_within_a_project_is_read(project):
    write_files(project, {"locks/requirements.lock": f"x==1 {HASH}\n"})
    (project / "requirements.lock").symlink_to("locks/requirements.lock")
    assert project_files.read_text(project, "requirements.lock").startswith("x==1")


@pytest.mark.parametrize("resolved", ["git+ssh://git@127.0.0.1/x.git#0", "git+file:///etc", "../up.tgz", "/etc/x.tgz"])
def test_a_lock_of_npm_names_packages_of_registries_alone(project, resolved):
    """Refuse other sources: for git, npm would run git with options from the project's .npmrc."""
    entry = {"version": "1.0.0", "resolved": resolved, "integrity": "sha512-x"}
    lock = {"name": "w", "lockfileVersion": 3, "packages": {"": {}, "node_modules/x": entry}}
    write_files(project, {"package.json": "{}", "package-lock.json": json.dumps(lock)})
    with pytest.raises(DrumheadError, match=r"node_modules/x is (not a package of a registry|a local package)"):
        read_node_lock(read_project(project), "node")


MERGES = "a: &a {" + ",".join(f"k{n}: 1" for n in range(3000)) + "}\n<<: [" + ",".join(["*a"] * 3000) + "]\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: " + "[" * 200_000, "are nested too deeply"),
        ("{a: " * 3000, "are nested too deeply"),
        (MERGES, "merges more than 100 mappings"),
        ("a: " + "x" * (300 << 10), "more than 256 KiB"),
    ],
)
@pytest.mark.parametrize("file", ["meta/package.yaml", "meta/run.yaml"])
def test_a_yaml_file_costs_bounded_time_and_memory(project, file, text, reason):
    write_files(project, {file: text})
    began = time.monotonic()
    with pytest.raises(DrumheadError, match=reason):
        read_project(project)
    assert time.monotonic() - began < 60


def test_a_manifest_in_a_directory_that_may_not_be_searched_is_not_said_to_be_missing(tmp_path, monkeypatch):
    root = write_files(tmp_path, {"meta/package.yaml": "name: a\ntitle: A\nauthor: b\n"})

    def deny(path, **_flags):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(Path, "lstat", deny)
    monkeypatch.setattr(os, "lstat", deny)
    with pytest.raises(DrumheadError, match=r"^meta/package.yaml:1: .* cannot be read: Permission denied"):
        read_project(root)
