"""Test dependencies of Python projects: from locks with hashes and from pyproject.toml; others are refused."""

import json
import re
import subprocess

import pytest
from packaging.markers import Marker

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.manifest.project import read_project
from drumhead.python.lock import find_uv, read_lock
from drumhead.python.requirements import check_hashes, check_resolvable
from drumhead.python.wheels import SITE, refuse_compiled
from support.guests.composing import listing, write_files

PYPROJECT = """
[project]
name = "x"
version = "1"
dependencies = ["idna"]
[project.optional-dependencies]
more = ["sniffio"]
"""


def test_a_lock_is_installed_as_bytecode_and_kept(drumhead, project, locked):
    write_files(project, {"requirements.txt": locked})
    compose = ("package", "compose", "t/locked", "-C", project)
    drumhead(*compose)
    files = listing(drumhead, "t/locked", "python")
    assert f"{SITE}/idna/core.pyc" in files
    assert f"{SITE}/idna/core.py" not in files
    assert {f"{SITE}/idna-3.10.dist-info/{name}" for name in ("METADATA", "RECORD")} <= files.keys()
    assert not [path for path in files if path.endswith(("INSTALLER", "direct_url.json", "py.typed"))]
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
    assert "pyproject.toml was resolved into requirements.lock" in done.stderr
    lock = (project / "requirements.lock").read_text()
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
    assert not (project / "requirements.lock").exists()
    assert f"{SITE}/idna/core.pyc" in listing(drumhead, "t/uvlock", "python")


@pytest.mark.parametrize("lock", ["uv.lock", "poetry.lock"])
def test_a_lock_without_its_pyproject_is_refused(drumhead, project, lock):
    write_files(project, {lock: 'package = []\n[metadata]\nlock-version = "2.1"\n'})
    reason = drumhead.refused("package", "compose", "t/alone", "-C", project, status=2)
    assert f"pyproject.toml:1: it does not exist, but a {lock} belongs to it" in reason


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (
            "# c\naiohttp==3.9\n",
            2,
            "aiohttp==3.9 has no --hash.*uv pip compile .* requirements.txt -o requirements.lock",
        ),
        ("a==1 \\\n  --hash=sha256:00\nb==2 \\\n  --hash=md5:00\n", 3, "b==2 has no --hash"),
        ("-r other.txt\n", 1, "-r is not supported"),
        ("-e .\n", 1, "-e is not supported"),
    ],
)
def test_requirements_without_hashes_are_refused_by_line(text, line, reason):
    with pytest.raises(DrumheadError, match=rf"^r\.txt:{line}: .*{reason}"):
        check_hashes(text, "r.txt")


def test_options_of_a_compiled_lock_are_accepted():
    options = "--require-hashes\n--no-index\n--trusted-host example.org\n--pre\n-i https://example.org/simple\n"
    check_hashes(f"{options}a==1 --hash=sha256:00\n", "r.txt")


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ('version = "3"', "idna has no file, or one without a SHA-256 hash"),
        ('wheels = [{url = "https://x/i.whl", hashes = {md5 = "0"}}]', "idna has no file, or one without a SHA-256"),
        ('vcs = {type = "git", url = "https://x/i"}', "idna comes from version control and has no hash"),
        ('directory = {path = "../idna"}', "../idna is no Python package in the project and has no hash"),
        ('archive = {path = "i.whl", hashes = {sha256 = "0"}}', "idna is a file of this host; name a release"),
    ],
)
def test_packages_of_a_pylock_without_hashes_are_refused(project, tmp_path, package, reason):
    write_files(project, {"pylock.toml": f'lock-version = "1.0"\n[[packages]]\nname = "idna"\n{package}\n'})
    with pytest.raises(DrumheadError, match=rf"^pylock.toml:1: {re.escape(reason)}"):
        read_lock(read_project(project), tmp_path)


def test_what_was_compiled_on_this_host_is_refused(tmp_path):
    write_files(tmp_path, {"fine-1.dist-info/WHEEL": "Tag: cp311-cp311-manylinux_2_28_x86_64\nTag: py3-none-any\n"})
    refuse_compiled(tmp_path.iterdir())
    write_files(tmp_path, {"local-1.dist-info/WHEEL": "Tag: cp311-cp311-linux_x86_64\n"})
    with pytest.raises(DrumheadError, match="local-1 has no wheel"):
        refuse_compiled(tmp_path.iterdir())


def test_the_default_command_can_be_named_when_composing(drumhead, project):
    compose = ("package", "compose", "t/run", "-C", project)
    drumhead(*compose, "--run", "module", "--env", "A=b")
    assert drumhead.json("info", "t/run")["default"] == "module"
    assert drumhead.json("info", "t/run")["commands"]["module"]["env"] == {"A": "b", "DEPTH": "3"}
    made = json.loads(drumhead(*compose, "--run", "/python3 -c pass", "--json"))
    assert made["image"]["commands"]["run"]["argv"] == ["/python3", "-c", "pass"]


def test_plain_requirements_are_resolved_with_hashes_and_the_lock_is_used_from_then_on(project, tmp_path):
    write_files(
        project, {"requirements.txt": "idna<3.11  # a comment\n-r more.txt\n", "more.txt": "-c pins.txt\nsix\n"}
    )
    write_files(project, {"pins.txt": "six==1.16.0\n"})
    first = read_lock(read_project(project), tmp_path)
    assert first.file == "requirements.lock"
    assert "requirements.txt was resolved into requirements.lock, with hashes" in first.notice
    assert first.text.count("--hash=sha256:") == 4
    again = read_lock(read_project(project), tmp_path / "an empty cache")
    assert (again.text, again.notice) == (first.text, "")
    write_files(project, {"pins.txt": "six==1.15.0\n", "requirements.txt": "idna\n-r more.txt\n"})
    changed = read_lock(read_project(project), tmp_path)
    assert "six==1.15.0" in changed.text
    assert "idna==3.10" in changed.text, "a version of the lock that still fits was not kept"
    assert (project / "requirements.lock").read_text() == changed.text


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("idna\n-e .\n", 2, "-e . is a file of this host, or a directory that is no Python package"),
        ("git+https://example.org/x\n", 1, "has no hash; name a released version"),
        ("x @ git+ssh://example.org/x\n", 1, "has no hash; name a released version"),
        ("-e git+ssh://example.org/x\n", 1, "comes from version control and has no hash"),
        ("x @ file:///srv/x\n", 1, "is a file of this host, or a directory"),
        ("idna\n\nsrc/x\n", 3, "is a file of this host, or a directory"),
        ("x-1-py3-none-any.whl\n", 1, "is a file of this host, or a directory"),
        ("-r gone.txt\n", 1, "gone.txt cannot be read: No such file"),
    ],
)
def test_requirements_that_cannot_have_a_hash_are_refused_by_line(project, tmp_path, text, line, reason):
    write_files(project, {"requirements.txt": text})
    with pytest.raises(DrumheadError, match=rf"^requirements.txt:{line}: .*{reason}"):
        read_lock(read_project(project), tmp_path)


def test_requirements_that_only_resemble_those_are_resolved():
    texts = (
        "--extra-index-url https://example.org/a-e/simple",
        "flask-editable-e",
        'x[a,b] >= 1 ; platform_machine == "x86_64"',
        "x @ https://example.org/x-1.whl ; python_version < '4'",
        "--find-links https://example.org/x.zip",
        "-r more/requirements.txt",
    )
    check_resolvable("\n".join(texts), "requirements.txt")


POETRY = '[build-system]\nbuild-backend = "poetry.core.masonry.api"\n[tool.poetry]\n{}[tool.poetry.dependencies]\n{}\n'


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("pyproject.toml", 'project = "a"\n', "project: expected keys with values, not text"),
        (
            "pyproject.toml",
            "[project]\ndependencies = [1]\n",
            "project.dependencies[0]: expected text, not a whole number",
        ),
        ("pyproject.toml", "[tool]\npoetry = 1\n", "tool.poetry: expected keys with values, not a whole number"),
        ("pyproject.toml", '[project]\ndependencies = ["x @ git+https://example.org/x"]\n', "from version control"),
        ("pyproject.toml", POETRY.format("", 'x = {git = "https://example.org/x"}'), "x comes from version control"),
        ("pyproject.toml", POETRY.format("", 'x = {path = "../x"}'), "x comes from a directory of this host"),
        (
            "pyproject.toml",
            POETRY.format("package-mode = false\n", 'x = "1"'),
            "because package-mode is false; write a lock",
        ),
        (
            "pyproject.toml",
            '[tool.poetry.dependencies]\nx = "1"\n',
            "because build-system does not name Poetry; write a lock",
        ),
        (
            "pylock.toml",
            'lock-version = "1.0"\npackages = "x"\n',
            "it is not a pylock.toml: packages: expected a list, not text",
        ),
        ("pylock.toml", "", "it is not a pylock.toml: lock-version is missing"),
        ("poetry.lock", "package = [1]\n", "it is not a lock of Poetry"),
        ("poetry.lock", '[[package]]\nname = "x"\nversion = "1"\n', "x has no SHA-256 hash"),
        ("Pipfile.lock", "[]", "it is not a lock of Pipenv"),
        ("Pipfile.lock", '{"default": {"x": null}}', "it is not a lock of Pipenv"),
        (
            "Pipfile.lock",
            '{"default": {"x": {"version": "==1"}}}',
            "x has no SHA-256 hash; a newer version of `pipenv lock`",
        ),
        ("Pipfile.lock", '{"default": {"x": {"version": "*"}}}', "x has no exact version"),
    ],
)
def test_what_cannot_be_a_lock_is_refused_with_its_place(project, tmp_path, name, text, reason):
    write_files(project, {"pyproject.toml": POETRY.format("", 'x = "1"'), name: text})
    with pytest.raises(DrumheadError) as refused:
        read_lock(read_project(project), tmp_path)
    assert refused.value.code is ErrorCode.MANIFEST
    assert refused.value.message.startswith(f"{name}:")
    assert reason in refused.value.message


def names(lock):
    return {line.split("==")[0] for line in lock.text.splitlines() if "==" in line and "--hash" not in line}


POETRY_PACKAGE = """
[[package]]
name = "{name}"
version = "1.0"
optional = false
files = [{{file = "{name}-1.0-py3-none-any.whl", hash = "sha256:{hash}"}}]
"""


def test_poetry_locks_are_read(project, tmp_path):
    more = {
        "web": '[package.dependencies]\ncore = "*"\nwin = {version = "*", markers = "sys_platform == \'win32\'"}\n'
        'fast-json = {version = "*", optional = true}\n[package.extras]\njson = ["Fast_JSON (>=1)"]\n',
    }
    packages = ("web", "core", "win", "fast-json", "testing", "chosen", "unasked")
    lock = "".join(POETRY_PACKAGE.format(name=name, hash="a" * 64) + more.get(name, "") for name in packages)
    toml = (
        '[tool.poetry.dependencies]\npython = "^3.11"\nweb = {version = "^1", extras = ["json"]}\n'
        'chosen = {version = "1.0", optional = true}\nunasked = {version = "1.0", optional = true}\n'
        '[tool.poetry.extras]\nmore = ["chosen"]\n[tool.poetry.group.dev.dependencies]\ntesting = "1.0"\n'
    )
    write_files(project, {"poetry.lock": lock, "pyproject.toml": toml})
    manifest = project / "meta/package.yaml"
    manifest.write_text(manifest.read_text() + "python:\n  extras: [more]\n")
    read = read_lock(read_project(project), tmp_path)
    assert names(read) == {"web", "core", "win", "fast-json", "chosen"}
    assert "win==1.0 ; sys_platform == 'win32'" in read.text
    assert read.text.count("--hash=sha256:") == 5


@pytest.mark.parametrize(
    ("marker", "needed"),
    [
        ('extra == "more"', True),
        ('extra == "other"', False),
        ('extra == "other" or extra == "more"', True),
        ('(python_version >= "3.12") and extra == "more"', False),
        ('extra == "more" and extra != "other"', True),
    ],
)
def test_the_extras_that_a_manifest_names_decide_the_markers_of_poetry_2(project, tmp_path, marker, needed):
    """Read the lock of a project with optional dependencies, in which Poetry 2 says which extras need a package."""
    lock = POETRY_PACKAGE.format(name="chosen", hash="a" * 64) + f"markers = {json.dumps(marker)}\n"
    toml = '[project]\nname = "x"\n[project.optional-dependencies]\nmore = ["chosen"]\nother = ["chosen"]\n'
    write_files(project, {"poetry.lock": lock, "pyproject.toml": toml})
    manifest = project / "meta/package.yaml"
    manifest.write_text(manifest.read_text() + "python:\n  extras: [more]\n")
    (line,) = [one for one in read_lock(read_project(project), tmp_path).text.splitlines() if "==1.0" in one]
    condition = Marker(line.partition(" ; ")[2].removesuffix(" \\"))
    assert condition.evaluate({"extra": "", "python_version": "3.11"}) is needed


@pytest.mark.parametrize(("named", "declared"), [("My_Extra", "my-extra"), ("my.extra", "My_Extra")])
@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": '[project]\nname = "x"\nversion = "1"\n[project.optional-dependencies]\n{} = ["idna"]\n'},
        {
            "poetry.lock": POETRY_PACKAGE.format(name="idna", hash="a" * 64),
            "pyproject.toml": '[project]\nname = "x"\n[project.optional-dependencies]\n{} = ["idna"]\n',
        },
        {
            "poetry.lock": POETRY_PACKAGE.format(name="idna", hash="a" * 64),
            "pyproject.toml": "[tool.poetry.dependencies]\nidna = {{version = '*', optional = true}}\n"
            "[tool.poetry.extras]\n{} = ['idna']\n",
        },
    ],
    ids=["pyproject", "poetry-2", "poetry-1"],
)
def test_extras_are_compared_as_installers_compare_them(project, tmp_path, files, named, declared):
    key = json.dumps(declared)
    write_files(project, {name: text.format(key) if ".toml" in name else text for name, text in files.items()})
    manifest = project / "meta/package.yaml"
    manifest.write_text(manifest.read_text() + f"python:\n  extras: [{named}]\n")
    assert names(read_lock(read_project(project), tmp_path)) == {"idna"}


def test_poetrys_own_table_adds_nothing_to_standard_dependencies(project, tmp_path):
    """Poetry 2 reads in it only where the standard dependencies come from, and locks nothing else of it."""
    table = '[tool.poetry.dependencies]\nidna = {source = "pypi"}\nlib = {path = "lib", develop = true}\n'
    toml = f'[project]\nname = "x"\nversion = "1"\ndependencies = ["idna (>=1)"]\n{table}'
    write_files(project, {"pyproject.toml": toml, "poetry.lock": POETRY_PACKAGE.format(name="idna", hash="a" * 64)})
    assert names(read_lock(read_project(project), tmp_path)) == {"idna"}


NT, POSIX = "os_name == 'nt'", "os_name == 'posix'"
TABLE = f"""
[tool.poetry.dependencies]
core = [{{version = "1", markers = "{NT}"}}, {{version = "1", markers = "{POSIX}", extras = ["json"]}}]
"""


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        (
            f'[project]\ndependencies = ["core; {NT}", "core[json]; {POSIX}"]\n',
            {"core": f"({NT}) or ({POSIX})", "more": f"({NT}) or ({POSIX})"},
        ),
        (TABLE, {"core": f"({NT}) or ({POSIX})", "more": f"({NT}) or ({POSIX})"}),
        (f'[project]\ndependencies = ["core; {NT}", "core"]\n', {"core": ""}),
        (
            f'[project]\ndependencies = ["both; {NT}", "win"]\n',
            {"both": NT, "core": "sys_platform == 'win32'", "win": ""},
        ),
    ],
)
def test_requirements_of_one_package_are_united(project, tmp_path, toml, expected):
    """Read locks in which `core` is needed in several ways; `both` and `win` need it on Windows."""
    edge = '[package.dependencies]\ncore = {version = "*", markers = "sys_platform == \'win32\'"}\n'
    optional = '[package.dependencies]\nmore = {version = "*", optional = true}\n[package.extras]\njson = ["more"]\n'
    more = {"core": optional, "both": edge, "win": edge}
    lock = "".join(POETRY_PACKAGE.format(name=name, hash="a" * 64) + more.get(name, "") for name in (*more, "more"))
    write_files(project, {"poetry.lock": lock, "pyproject.toml": toml})
    lines = [line for line in read_lock(read_project(project), tmp_path).text.splitlines() if "==1.0" in line]
    assert {line.partition("==")[0]: line.removesuffix(" \\").partition(" ; ")[2] for line in lines} == expected


def test_pipfile_locks_are_read(project, tmp_path):
    package = {"version": "==1.0", "hashes": ["sha256:" + "a" * 64], "index": "pypi"}
    sources = [{"name": "pypi", "url": "https://pypi.org/simple"}, {"name": "own", "url": "https://example.org/simple"}]
    document = {
        "_meta": {"sources": sources},
        "default": {
            "web": {**package, "extras": ["json"], "markers": "python_version >= '3.8'"},
            "inner": {**package, "index": "own"},
        },
        "develop": {"testing": package},
    }
    write_files(project, {"Pipfile": "", "Pipfile.lock": json.dumps(document)})
    read = read_lock(read_project(project), tmp_path)
    assert "web[json]==1.0 ; python_version >= '3.8' \\\n    --hash=sha256:aaa" in read.text
    assert names(read) == {"web[json]", "inner"}
    assert read.text.startswith("--extra-index-url https://example.org/simple\n")
    document["default"]["unix"] = {"version": "*", "markers": "os_name != 'nt'"}  # as Pipenv writes it on Windows
    write_files(project, {"Pipfile.lock": json.dumps(document)})
    lines = [line for line in read_lock(read_project(project), tmp_path).text.splitlines() if "unix" in line]
    assert lines == ["unix==0+not.locked.by.pipenv ; os_name != 'nt' \\"], "installers refuse it by that name"
    document["default"]["fork"] = {"git": "https://example.org/fork", "ref": "main"}
    write_files(project, {"Pipfile.lock": json.dumps(document)})
    with pytest.raises(DrumheadError, match=r"Pipfile.lock:1: fork does not come from an index"):
        read_lock(read_project(project), tmp_path)


def test_pipfile_and_poetry_locks_install(drumhead, project, locked):
    hashes = [word.split("=", 1)[1] for word in locked.split() if word.startswith("--hash=")]
    files = ", ".join(f'{{file = "x", hash = "{one}"}}' for one in hashes)
    poetry = f'[[package]]\nname = "idna"\nversion = "3.10"\noptional = false\nfiles = [{files}]\n'
    toml = '[project]\nname = "x"\nversion = "1"\ndependencies = ["idna (>=3)"]\n'
    write_files(project, {"poetry.lock": poetry, "pyproject.toml": toml})
    drumhead("package", "compose", "t/poetry", "-C", project)
    assert f"{SITE}/idna/core.pyc" in listing(drumhead, "t/poetry", "python")
    (project / "poetry.lock").unlink()
    unresolved = {"version": "==>=0.4", "markers": "sys_platform == 'win32'"}  # as Pipenv writes it on Linux
    pipfile = {"default": {"idna": {"version": "==3.10", "hashes": hashes}, "windows": unresolved}}
    write_files(project, {"Pipfile.lock": json.dumps(pipfile)})
    drumhead("package", "compose", "t/pipfile", "-C", project)
    assert f"{SITE}/idna/core.pyc" in listing(drumhead, "t/pipfile", "python")
