"""Test what an image has of packages and of the project itself: scripts, metadata, sources, and its own wheels."""

import importlib.metadata
import posixpath
import re
import shutil
import subprocess
import sys

import pytest

from drumhead.errors import DrumheadError
from drumhead.manifest.project import read_project
from drumhead.python.distribution import BIN, SITE, scripts_of_wheels, with_distribution
from drumhead.python.lock import Lock, find_uv, read_lock
from drumhead.python.notices import python_notices
from drumhead.python.sources import module_reads_sources, opened_as_files
from drumhead.python.wheels import PYTHON_SCRIPT, install, with_records
from drumhead.tree import Tree, regular
from support.guests.composing import write_files, write_wheel

PROJECT = (
    '[project]\nname = "My-App"\nversion = "1.2"\n[project.scripts]\nserve = "my_app.web:App.main"\n'
    'gone = "not_here:main"\n[project.entry-points.plugins]\none = "my_app.web"\n'
)


def tree(*paths):
    files = Tree()
    for path in paths:
        files.add(path, regular(b""))
    return files


def composed(tmp_path, pyproject, *paths):
    return with_distribution(tree("pyproject.toml", *paths), write_files(tmp_path, {"pyproject.toml": pyproject}))


def scripts(files):
    return {path.removeprefix(f"{BIN}/"): entry for path, entry in files if path.startswith(f"{BIN}/")}


@pytest.mark.parametrize(
    ("module", "place"),
    [("src/my_app/web.py", "/src"), ("my_app/web/__init__.py", "/"), ("srv/x/my_app/web.py", "/srv/x")],
)
def test_a_projects_script_finds_its_module_in_every_layout(tmp_path, module, place):
    found = scripts(composed(tmp_path, PROJECT, module))
    assert list(found) == ["serve"], "a script whose module is not in the image is left out"
    assert found["serve"].mode == 0o755
    assert f"sys.path.insert(0, {place!r})" in found["serve"].read().decode()


def test_a_script_ends_with_what_its_function_returns_and_can_spawn_processes(tmp_path):
    """A process that multiprocessing spawns (hypercorn, sanic, uvicorn --workers) imports the script of its parent."""
    main = (
        "import multiprocessing\n\nclass App:\n    @staticmethod\n    def main():\n"
        "        child = multiprocessing.get_context('spawn').Process(target=print, args=('spawned',))\n"
        "        child.start()\n        child.join()\n        return 7 + child.exitcode\n"
    )
    text = scripts(composed(tmp_path, PROJECT, "my_app/web.py"))["serve"].read().decode()
    app = f"sys.path.insert(0, {str(tmp_path / 'app')!r})"
    write_files(tmp_path, {"app/my_app/web.py": main, "serve": text.replace("sys.path.insert(0, '/')", app)})
    done = subprocess.run([sys.executable, tmp_path / "serve"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "spawned\n"), done.stderr


def test_a_project_knows_its_own_version_and_plugins(tmp_path):
    for path, entry in composed(tmp_path, PROJECT, "my_app/web.py"):
        if path.startswith(f"{SITE}/") and entry.kind == "file":
            write_files(tmp_path / "image", {path: entry.read().decode()})
    (found,) = importlib.metadata.distributions(path=[str(tmp_path / "image" / SITE)])
    assert (found.name, found.version) == ("My-App", "1.2")
    assert {(one.group, one.name, one.value) for one in found.entry_points} == {
        ("plugins", "one", "my_app.web"),
        ("console_scripts", "serve", "my_app.web:App.main"),
        ("console_scripts", "gone", "not_here:main"),
    }


def test_poetrys_table_is_read_as_well(tmp_path):
    text = (
        '[tool.poetry]\nname = "a"\nversion = "2"\n'
        '[tool.poetry.scripts]\nb = "a:main"\nc = {reference = "x", type = "file"}\n'
    )
    files = composed(tmp_path, text, "a.py")
    assert list(scripts(files)) == ["b"]
    assert f"{SITE}/a-2.dist-info/METADATA" in files


@pytest.mark.parametrize("text", ["", "[tool.ruff]\n", '[project]\nname = "a"\ndynamic = ["version"]\n'])
def test_without_a_name_and_a_version_nothing_is_added(tmp_path, text):
    assert [path for path, _ in composed(tmp_path, text, "a.py")] == ["a.py", "pyproject.toml"]
    assert with_distribution(tree("a.py"), tmp_path / "empty").get("a.py")


DYNAMIC = '[project]\nname = "my-app"\ndynamic = ["version"]\n'


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (
            '[tool.hatch.version]\npath = "src/my_app/__about__.py"\n',
            {"src/my_app/__about__.py": "VERSION = '1.2rc1'\n"},
        ),
        ('[tool.pdm.version]\nsource = "file"\npath = "a.py"\n', {"a.py": 'x = 1\n__version__: str = "1.2rc1"\n'}),
        (
            '[tool.setuptools.dynamic]\nversion = {attr = "my_app.core.VERSION"}\n',
            {"my_app/core/__init__.py": '    VERSION = "0"\nVERSION = "1.2rc1"  # next\n'},
        ),
        ('[tool.setuptools.dynamic]\nversion = {file = ["VERSION.txt"]}\n', {"VERSION.txt": "1.2rc1\n"}),
        ('[build-system]\nbuild-backend = "flit_core.buildapi"\n', {"src/my_app.py": '__version__ = "1.2rc1"\n'}),
    ],
    ids=["hatch", "pdm", "attribute", "file", "flit"],
)
def test_a_version_that_a_build_reads_from_a_file_is_known(tmp_path, text, files):
    write_files(tmp_path, files)
    assert f"{SITE}/my_app-1.2rc1.dist-info/METADATA" in composed(tmp_path, DYNAMIC + text, *files)


@pytest.mark.parametrize(
    "text",
    [
        '[tool.hatch.version]\nsource = "vcs"\n',
        '[tool.hatch.version]\npath = "../outside.py"\n',
        '[tool.setuptools.dynamic]\nversion = {attr = "my_app.version"}\n',
        '[tool.setuptools]\ndynamic = "x"\n[tool.hatch]\nversion = 1\n',
    ],
)
def test_a_version_that_no_file_of_the_project_gives_is_not_known(tmp_path, text):
    root = write_files(tmp_path / "a", {"../outside.py": "__version__ = '1'\n", "my_app.py": "def version(): ...\n"})
    assert [path for path, _ in composed(root, DYNAMIC + text, "my_app.py")] == ["my_app.py", "pyproject.toml"]


def test_files_of_the_project_are_kept(tmp_path):
    files = composed(tmp_path, PROJECT, "my_app/web.py", f"{BIN}/serve")
    assert files[f"{BIN}/serve"].read() == b""


def test_packages_of_a_project_have_their_scripts_and_metadata_too(tmp_path):
    described = (
        '[project]\nname = "{0}"\nversion = "{1}"\n[project.scripts]\nrun-{0} = "{2}:main"\nserve = "{2}:main"\n'
    )
    write_files(
        tmp_path,
        {
            "pyproject.toml": described.format("shop", "1", "main"),
            "lib/my-api/pyproject.toml": described.format("my-api", "2", "main"),
            "lib/core/pyproject.toml": described.format("core", "3", "core.cli"),
            "other/pyproject.toml": described.format("other", "4", "main"),
        },
    )
    modules = ("main.py", "lib/my-api/src/main.py", "lib/my-api/src/my_api/__init__.py", "lib/core/core/cli.py")
    files = with_distribution(tree(*modules, "lib/core/core/__init__.py"), tmp_path, (".", "lib/core", "lib/my-api"))
    metadata = {path.split("/")[-2] for path, _ in files if path.endswith("METADATA")}
    assert metadata == {"shop-1.dist-info", "my_api-2.dist-info", "core-3.dist-info"}
    texts = {name: entry.read().decode() for name, entry in scripts(files).items()}
    assert set(texts) == {"serve", "run-shop", "run-my-api", "run-core"}
    api, core = "/lib/my-api/src", "/lib/core"
    assert {name: re.findall(r"(insert|append).*'(.*)'", text) for name, text in texts.items()} == {
        "serve": [("insert", "/"), ("append", core), ("append", api)],
        "run-shop": [("insert", "/"), ("append", core), ("append", api)],
        "run-my-api": [("insert", api), ("append", core)],
        "run-core": [("insert", core), ("append", api)],
    }, "each package's own modules come first, and the project's scripts replace those of its packages"


def test_a_wrong_table_is_refused_with_its_place(tmp_path):
    with pytest.raises(DrumheadError, match="project.scripts: expected keys with values, not a list"):
        composed(tmp_path, "[project]\nscripts = []\n")


def test_scripts_of_wheels_keep_their_names_and_faulty_files_are_left_out():
    texts = [
        "[console_scripts]\nGunicorn = gunicorn.app.wsgiapp:run\nplain = a:main [extra]\n[gui_scripts]\nx = a:b\n",
        "no section",
        "[console_scripts]\n../evil = a:b\ninjected = a:b; import os\nwithout = a\n",
    ]
    found = scripts(scripts_of_wheels(texts))
    assert list(found) == ["Gunicorn", "plain"]
    head = ["#!/usr/bin/python3", "import sys", "from gunicorn.app.wsgiapp import run"]
    assert found["Gunicorn"].read().decode().splitlines()[:3] == head


def test_commands_and_data_files_of_wheels_are_where_pip_puts_them(tmp_path):
    data = "inhouse-1.0.data"
    files = {
        f"{data}/scripts/tool": "#!python\nprint(1)\n",
        f"{data}/scripts/shell": "#!/bin/sh\n",
        f"{data}/scripts/env.py": "#!/usr/bin/env python3\n",
        f"{data}/data/etc/inhouse/on.json": "{}",
        f"{data}/data/share/inhouse/page.html": "",
        f"{data}/data/opt/inhouse/model.bin": "1",
        f"{data}/data/lib/inhouse/plugin.txt": "",
        f"{data}/headers/inhouse.hpp": "",
        f"{data}/platlib/etc/__init__.py": "",
        "inhouse-1.0.dist-info/entry_points.txt": "[console_scripts]\nserve = inhouse:main\n",
        "inhouse.py": "",
    }
    wheel, digest = write_wheel(tmp_path, files)
    lock = Lock(file="requirements.txt", text=f"inhouse @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    tree = install(lock, tmp_path / "cache")
    local = {path.removeprefix("usr/local/"): entry for path, entry in tree if not path.startswith(SITE)}
    texts = {path: entry.read().decode() for path, entry in local.items() if entry.kind == "file"}
    assert texts.pop("bin/serve").startswith("#!/usr/bin/python3\nimport sys\n")
    assert texts == {
        "bin/tool": "#!/usr/bin/python3\nprint(1)\n",
        "bin/shell": "#!/bin/sh\n",
        "bin/env.py": "#!/usr/bin/python3\n",
        "etc/inhouse/on.json": "{}",
        "share/inhouse/page.html": "",
        "opt/inhouse/model.bin": "1",
        "lib/inhouse/plugin.txt": "",
    }
    modules = {path for path, entry in tree if entry.kind == "file" and "dist-info" not in path} - {
        f"usr/local/{path}" for path in local
    }
    assert modules == {f"{SITE}/inhouse.py", f"{SITE}/etc/__init__.py"}
    assert {local[path].mode for path in texts if path.startswith("bin/")} == {0o755}


def test_whose_a_module_is_can_be_asked_although_the_sources_are_left_out(tmp_path, monkeypatch):
    wheel, digest = write_wheel(tmp_path, {"inhouse.py": "", "tools/web/x.py": "", "inhouse.libs/lib.so": ""})
    lock = Lock(file="requirements.txt", text=f"inhouse @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    compiled = Tree()
    for path, entry in install(lock, tmp_path / "cache"):
        compiled.add(f"{path}c" if path.endswith(".py") else path, entry)
    files = {path: entry.read() for path, entry in with_records(compiled) if entry.kind == "file"}
    write_files(tmp_path / "image", files)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "image" / SITE)])
    assert importlib.metadata.packages_distributions() == {"inhouse": ["inhouse"], "tools": ["inhouse"]}


def test_the_files_of_a_wheel_can_be_listed_and_each_of_them_is_there(tmp_path, monkeypatch):
    files = {
        "inhouse/a.py": "",
        "inhouse/kept.py": "",
        "inhouse/a, b.json": "{}",
        "inhouse/a.pyi": "",
        "inhouse-1.0.dist-info/entry_points.txt": "[console_scripts]\nserve = inhouse:main\n",
    }
    wheel, digest = write_wheel(tmp_path, files)
    lock = Lock(file="requirements.txt", text=f"inhouse @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    compiled = install(lock, tmp_path / "cache").filter(lambda path: not path.endswith("/a.py"))
    compiled.add(f"{SITE}/inhouse/a.pyc", regular(b""))
    write_files(
        tmp_path / "image", {path: entry.read() for path, entry in with_records(compiled) if entry.kind == "file"}
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path / "image" / SITE)])
    listed = importlib.metadata.files("inhouse")
    assert all(path.locate().is_file() for path in listed)
    assert {str(path) for path in listed if "dist-info" not in str(path)} == {
        "inhouse/a.pyc",
        "inhouse/kept.py",
        "inhouse/a, b.json",
        "../../../bin/serve",
    }


@pytest.mark.parametrize(
    "head",
    [
        "#!/opt/a/bin/python\n",
        "#!/usr/bin/env python3.11\n",
        "#!/bin/sh\n'''exec' '/opt/a b/python' \"$0\" \"$@\"\n' '''\n",
    ],
)
def test_a_script_for_python_starts_the_guests_whatever_the_installer_wrote(head):
    assert PYTHON_SCRIPT.sub(b"", f"{head}import x\n".encode()) == b"import x\n"


def test_sources_that_nothing_imports_or_that_their_package_names_are_kept():
    opened = {
        "pkg/config.py": "",
        "pkg/config-3.py": "",
        "pkg/deep/run/server.py": "",
        "../../../bin/tool.py": "",
        "pkg/db/migrations/versions/a1_first.py": "",
        "pkg/db/migrations/versions/sqlite/a2_second.py": "",
    }
    others = {
        "pkg/__init__.py": "open(join(here, 'config.py')); run(\"run/server.py\", '__init__.py', 'a b.py')\n",
        "pkg/xconfig.py": "",
        "pkg/other/server.py": "",
        "other/config.py": "",
        "six.py": "",
        "pkg/db/migrations/env.py": "",
        "pkg/api/versions/first.py": "",
    }
    tree = Tree()
    for path, text in {**opened, **others}.items():
        tree.add(posixpath.normpath(f"{SITE}/{path}"), regular(text.encode()))
    assert opened_as_files(tree) == {posixpath.normpath(f"{SITE}/{path}") for path in opened}


@pytest.mark.parametrize(
    ("source", "needed"),
    [
        ("import inspect\nprint(inspect.getsource(print))\n", True),
        ("from inspect import getsourcelines as get, findsource\nfindsource(print)\n", True),
        ("import inspect\ntry:\n    inspect.getsource(print)\nexcept (TypeError, OSError):\n    pass\n", False),
        (
            "import inspect\ntry:\n    inspect.getsource(print)\nexcept OSError as e:\n    raise ValueError from e\n",
            True,
        ),
        ("import inspect\ntry:\n    inspect.getsource(print)\nexcept TypeError:\n    pass\n", True),
        ("import inspect\nprint(inspect.getfile(print))\n", False),
        ("import inspect, pathlib\npathlib.Path(inspect.getfile(print)).read_text()\n", True),
        ("import os\n[n for n in os.listdir('x') if n.endswith('.py')]\n", True),
        ("import os\n[n for n in os.listdir('x') if n.endswith(('.py', '.pyc'))]\n", False),
        ("def is_source(name):\n    return name.endswith('.py')\n", False),
        ("import pathlib\npathlib.Path('x').glob('*.py')\n", True),
        ("import numba\n@numba.jit(cache=True)\ndef f(): ...\n", True),
        ("import functools\ncached = functools.partial(print, cache=True)\n", False),
        ("import torch\n@torch.jit.script\ndef f(): ...\n", True),
        ("getsource( is no Python", False),
    ],
)
def test_which_modules_need_the_sources_of_modules(source, needed):
    assert module_reads_sources(source.encode()) is needed


POETRY_LOCK = """\
[[package]]
name = "inhouse"
version = "1"
files = [{{file = "x", hash = "sha256:{digest}"}}]
[package.source]
type = "file"
url = "{wheel}"
"""
PIPFILE_LOCK = (  # Pipenv writes the hashes of all files of a release beside one
    '{{"default": {{"inhouse": {{"file": "{wheel}", "hashes": ["sha256:%s", "sha256:{digest}"]}}}}}}' % ("a" * 64)
)
DEPENDS = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["inhouse"]\n'
SOURCE = '[tool.uv.sources]\ninhouse = {{path = "{wheel}"}}\n'


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "./{wheel}\n"},
        {
            "requirements.txt": "-r needs/more.txt\n",
            "needs/more.txt": "inhouse @ file:{wheel} ; python_version > '3'\n",
        },
        {"requirements.txt": "./{wheel} --hash=sha256:{digest}\n"},
        {"pyproject.toml": DEPENDS + SOURCE},
        {"pyproject.toml": DEPENDS + SOURCE, "uv.lock": ""},
        {"pyproject.toml": DEPENDS, "poetry.lock": POETRY_LOCK},
        {"Pipfile.lock": PIPFILE_LOCK},
    ],
    ids=["path", "included", "hash", "pyproject", "uv", "poetry", "pipenv"],
)
def test_a_wheel_of_the_project_is_installed_and_one_outside_is_refused(project, tmp_path, files):
    (project / "wheels").mkdir()
    wheel, digest = write_wheel(project / "wheels", {"inhouse.py": "answer = 42\n"})

    def read(place):
        write_files(project, {name: text.format(wheel=place, digest=digest) for name, text in files.items()})
        if "uv.lock" in files:
            (project / "uv.lock").unlink()
            subprocess.run([find_uv(), "lock", "--quiet", "--project", project], check=True)
        return read_lock(read_project(project), tmp_path)

    for _ in range(2):
        lock = read(f"wheels/{wheel.name}")
        assert str(tmp_path) not in lock.text
        assert install(lock, tmp_path / "cache")[f"{SITE}/inhouse.py"].read() == b"answer = 42\n"
    shutil.copy(wheel, tmp_path)
    with pytest.raises(DrumheadError, match="is not a file of the project; move it there|is a file of this host"):
        read(f"../{wheel.name}")


def test_a_wheel_of_the_project_that_changes_is_locked_again(project, tmp_path):
    wheel, _ = write_wheel(project, {"inhouse.py": "answer = 42\n"})
    for text in (f"./{wheel.name}\n", ""):
        write_files(project, {"requirements.txt": text, "pyproject.toml": DEPENDS + SOURCE.format(wheel=wheel.name)})
        for content in (b"old", b"new"):
            write_wheel(project, {"inhouse.py": f"answer = {content!r}\n"})
            tree = install(read_lock(read_project(project), tmp_path), tmp_path / "cache")
            assert content in tree[f"{SITE}/inhouse.py"].read()


def test_a_workspace_of_uv_without_its_lock_is_told_to_write_it(project, tmp_path):
    member = '[project]\nname = "api"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["idna"]\n'
    workspace = '[tool.uv.workspace]\nmembers = ["api"]\n'
    write_files(project, {"pyproject.toml": workspace, "api/pyproject.toml": member})
    assert read_lock(read_project(project), tmp_path) is None
    (notice,) = python_notices(read_project(project))
    assert notice.endswith("no dependencies are installed; run `uv lock`")
    sources = "[tool.uv.sources]\napi = {workspace = true}\n"
    write_files(project, {"pyproject.toml": member.replace("idna", "API>=1").replace("api", "x") + workspace + sources})
    with pytest.raises(DrumheadError, match="^pyproject.toml:1: API is in a workspace of uv, which has no uv.lock"):
        read_lock(read_project(project), tmp_path)
    subprocess.run([find_uv(), "lock", "--quiet", "--project", project], check=True)
    lock = read_lock(read_project(project), tmp_path)
    assert (lock.text.count("=="), lock.local) == (1, ("api",))
    assert python_notices(read_project(project)) == []
