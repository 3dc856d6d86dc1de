"""Test which version of Node.js a project gets."""

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.image.inputs import resolve_packages
from drumhead.node.versions import MODULE_ABI, RELEASES
from drumhead.package.names import gather_packages
from drumhead.package.recipe import known_recipes
from drumhead.package.store import PackageStore, parse_ref
from drumhead.report import silent
from support.guests.composing import node_project


def chosen(project):
    refs, notices = resolve_packages(project)
    return [ref.name for ref in refs], " ".join(notices)


@pytest.mark.parametrize(
    ("required", "meant"), [("node@20.11.1", "node-20"), ("node@22", "node-22"), ("node@19", "node"), ("nodde", "node")]
)
async def test_the_package_that_was_probably_meant_is_named(tmp_path, required, meant):
    home = Home(root=tmp_path)
    with pytest.raises(DrumheadError) as refused:
        await gather_packages(home, PackageStore(home), [parse_ref(required)], silent)
    assert f"requires {required}, which no store, remote or recipe has (did you mean {meant}?)" in str(refused.value)


async def test_a_recipe_is_offered_for_a_package_that_nothing_has(tmp_path):
    home = Home(root=tmp_path)
    with pytest.raises(DrumheadError, match="`drumhead package new memcached` writes a recipe for a program of Debian"):
        await gather_packages(home, PackageStore(home), [parse_ref("osv.memcached")], silent)


@pytest.mark.parametrize(
    ("range_", "expected"),
    [
        ("", "node"),
        (">=14", "node-24"),
        ("18.x", "node"),
        ("^20", "node-20"),
        ("^18 || ^20", "node-20"),
        (">=18 <23", "node-22"),
        ("~22.23.0", "node-22"),
        ("^20.19", "node-20"),
        ("^20.19.0 || >=22.12.0", "node-24"),
        ("20 - 22", "node-22"),
        ("*", "node-24"),
        (">= 18.0.0 < 21", "node-20"),
        ("^ 20", "node-20"),
        (">=v18.0.0  <v23", "node-22"),
        ("18 - v20", "node-20"),
        ("~>20", "node-20"),
        ("lts/*", "node-24"),
        ("lts/Iron", "node-20"),
        (22, "node-22"),
    ],
)
def test_engines_choose_the_newest_that_fits(tmp_path, range_, expected):
    package = {"name": "web", "engines": {"node": range_}} if range_ else {"name": "web"}
    names, _ = chosen(node_project(tmp_path, package=package))
    assert names == [expected]


def test_the_name_of_the_package_goes_before_engines(tmp_path):
    names, said = chosen(node_project(tmp_path, require="node-20", package={"engines": {"node": ">=22"}}))
    assert names == ["node-20"]
    assert "asks for Node.js >=22, but node-20 is 20.20.2" in said
    names, said = chosen(node_project(tmp_path, require="cli, node", package={"engines": {"node": "22"}}))
    assert names == ["node-22", "cli"]
    assert "the image gets node-22" in said
    names, said = chosen(node_project(tmp_path / "old", require="eu.mikelangelo-project.app.node-4.4.5"))
    assert names == ["node"]


@pytest.mark.parametrize(
    ("require", "package", "said"),
    [
        ("", {"engines": {"node": "<16"}}, "engines asks for Node.js <16; there are node (18.20.4), node-20"),
        ("", {"engines": {"node": "sixteen or so"}}, "is not a range of versions"),
        ("", {"engines": {"node": ">=18.1.0 - 20"}}, "is not a range of versions"),
        ("node-20, node-22", None, "require one version of Node.js, not node-20 and node-22"),
    ],
)
def test_what_no_version_fits_is_refused(tmp_path, require, package, said):
    with pytest.raises(DrumheadError) as refused:
        chosen(node_project(tmp_path, require=require, package=package))
    assert refused.value.code is ErrorCode.MANIFEST
    assert said in refused.value.message


def test_versions_are_those_of_the_recipes():
    recipes = known_recipes()
    assert {name: recipes[name].version for name in RELEASES if recipes[name].version} == {
        name: release for name, release in RELEASES.items() if name != "node"
    }
    assert MODULE_ABI.keys() == RELEASES.keys()
