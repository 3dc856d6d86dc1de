"""Test that Python finds the modules of a project where its layout has them, as after an editable installation."""

import pytest

from drumhead.python.distribution import SITE, with_distribution
from drumhead.tree import Tree, regular
from support.guests.composing import write_files

NAMED = '[project]\nname = "My-App"\nversion = "1"\n'


def searched(tmp_path, *paths, pyproject=NAMED, local=()):
    """Return the directories that the .pth files of a project name, by file."""
    files = Tree()
    described = {
        "pyproject.toml": pyproject,
        **{f"{place}/pyproject.toml": text for place, text in dict(local).items()},
    }
    for path in (*paths, *described):
        files.add(path, regular(b""))
    tree = with_distribution(files, write_files(tmp_path, described), [*dict(local)])
    found = {path.removeprefix(f"{SITE}/"): entry for path, entry in tree if path.endswith(".pth")}
    return {name: entry.read().decode().splitlines() for name, entry in found.items()}


@pytest.mark.parametrize(
    ("paths", "directories"),
    [
        (["src/my_app/__init__.py"], ["/src"]),
        (["src/other/__init__.py", "tests/my_app/test_a.py"], ["/src"]),
        (["src/my_app.py"], ["/src"]),
        (["lib/my_app/__init__.py"], ["/lib"]),
        (["src/other.py", "python/my_app.py"], ["/src", "/python"]),
        (["my_app/__init__.py"], None),
        (["my_app.py", "tests/src/my_app.py"], None),
        (["src/__init__.py", "src/app.py"], None),  # import src.app
        (["src/style.css", "src/deep/er/x.py"], None),
        (["tests/data/my_app/__init__.py"], None),
        ([], None),
    ],
)
def test_python_looks_where_the_layout_has_modules(tmp_path, paths, directories):
    assert searched(tmp_path, *paths) == ({"my_app.pth": directories} if directories else {})


def test_a_project_without_a_name_is_no_package(tmp_path):
    assert searched(tmp_path, "src/a.py", pyproject="[tool.ruff]\nline-length = 90\n") == {}


def test_packages_of_a_workspace_are_found_too(tmp_path):
    local = {"libs/core": '[project]\nname = "core"\n', "libs/api": '[project]\nname = "the-api"\n'}
    paths = ("libs/core/core/__init__.py", "libs/api/src/the_api/__init__.py", "my_app.py")
    found = searched(tmp_path, *paths, local=local)
    assert found == {"core.pth": ["/libs/core"], "the_api.pth": ["/libs/api/src"]}
