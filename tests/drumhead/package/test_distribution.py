"""Test what an image has of entry points: console scripts, and the metadata of the project itself."""

import importlib.metadata
import subprocess
import sys

import pytest

from drumhead.errors import DrumheadError
from drumhead.python.distribution import BIN, SITE, scripts_of_wheels, with_distribution
from drumhead.tree import Tree, regular
from support.guests.composing import write_files

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


def test_a_script_ends_with_what_its_function_returns(tmp_path):
    text = scripts(composed(tmp_path, PROJECT, "my_app/web.py"))["serve"].read().decode()
    write_files(tmp_path, {"app/my_app/web.py": "class App:\n    @staticmethod\n    def main():\n        return 7\n"})
    run = text.replace("sys.path.insert(0, '/')", f"sys.path.insert(0, {str(tmp_path / 'app')!r})")
    assert subprocess.run([sys.executable, "-c", run], check=False).returncode == 7


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


def test_files_of_the_project_are_kept(tmp_path):
    files = composed(tmp_path, PROJECT, "my_app/web.py", f"{BIN}/serve")
    assert files[f"{BIN}/serve"].read() == b""


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
    assert found["Gunicorn"].read().decode().splitlines() == [
        "#!/usr/bin/python3",
        "import sys",
        "from gunicorn.app.wsgiapp import run",
        "sys.exit(run())",
    ]
