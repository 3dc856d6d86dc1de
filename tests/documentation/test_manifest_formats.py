"""Test docs/reference/manifests.md and package-recipes.md: they name every key, and their examples are valid."""

import re
from itertools import chain
from pathlib import Path

import pytest

from drumhead.debian.accounts import Accounts
from drumhead.fleet import file as fleet_file
from drumhead.fleet.file import read_fleet
from drumhead.manifest import permissions, project, run_yaml
from drumhead.manifest.project import read_project
from drumhead.package.recipe import read_recipe
from drumhead.package.records import Demo, Recipe

REFERENCE = Path(__file__).parents[2] / "docs/reference"
PAGE = (REFERENCE / "manifests.md").read_text()
RECIPES = (REFERENCE / "package-recipes.md").read_text()
PACKAGE, PERMISSIONS, RUN, FLEET = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
RECIPE, ACCOUNTS = re.findall(r"```yaml\n(.*?)```", RECIPES, re.DOTALL)


def section(head: str) -> str:
    if head == "Package recipes":
        return RECIPES.partition("\n## ")[0]
    return PAGE.partition(f"\n## {head}\n")[2].partition("\n## ")[0].partition("<!-- generated")[0]


@pytest.mark.parametrize(
    ("head", "keys"),
    [
        ("meta/package.yaml", (*project.PACKAGE_KEYS, *permissions.KEYS, *project.CAPSTAN_ONLY)),
        (
            "meta/run.yaml",
            (*run_yaml.TOP_KEYS, *run_yaml.COMMON_KEYS, *chain.from_iterable(run_yaml.KEYS.values())),
        ),
        ("Fleet files", (*fleet_file.KEYS, *fleet_file.HEALTH_KEYS)),
        ("Package recipes", (*Recipe.__struct_fields__, *Demo.__struct_fields__)),
    ],
)
def test_every_key_is_named(head: str, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if f"`{key}`" not in section(head)]
    assert not missing
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section(head), re.MULTILINE)
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert named <= {*keys}


def test_the_examples_are_read(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/package.yaml").write_text(PACKAGE)
    (tmp_path / "meta/run.yaml").write_text(RUN)
    (tmp_path / "server.py").write_text("print()")
    read = read_project(tmp_path)
    assert (read.package.name, read.package.require, read.notices) == ("node-micro", ("node",), ())
    assert read.run is not None
    (tmp_path / "meta/package.yaml").write_text(PERMISSIONS)
    assert [one.mode for one in read_project(tmp_path).package.permissions] == [0o640, 0o750, 0o700]
    (tmp_path / "fleet.yaml").write_text(FLEET)
    fleet = read_fleet(tmp_path / "fleet.yaml", "fleet.yaml")
    assert (fleet.members["web"].count, fleet.members["web"].after) == (2, ("db",))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert read_recipe(tmp_path / "recipe.yaml").name == "jq"
    (tmp_path / "recipe.yaml").write_text(RECIPE + ACCOUNTS)
    recipe = read_recipe(tmp_path / "recipe.yaml")
    users = Accounts(recipe.files.items()).users
    assert set(recipe.owners.values()) <= users.keys()
