"""Test JavaScript projects: the checks of the lock, and what npm installs from it."""

import base64
import hashlib
import io
import json
import subprocess
import tarfile

import pytest

from drumhead.closure import follow
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.home import Home
from drumhead.image.inputs import ComposeInputs, resolve_packages
from drumhead.image.layers.builder import LayerBuilder
from drumhead.image.layers.store import LayerStore
from drumhead.manifest.project import read_project
from drumhead.node.lock import install, read_node_lock
from drumhead.node.versions import engines
from drumhead.package.records import Package
from drumhead.package.store import PackageStore
from drumhead.report import silent
from drumhead.tree import Tree, regular
from support.guests.composing import node_project, write_files

ENTRY = {
    "version": "1.0.0",
    "resolved": "https://registry.npmjs.org/x/-/x-1.0.0.tgz",
    "integrity": "sha512-AAAA",
}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({**ENTRY, "integrity": ""}, "package-lock.json:9: node_modules/x has no integrity"),
        ({"version": "1.0.0", "resolved": "git+ssh://git@github.com/a/x.git#1"}, "node_modules/x has no integrity"),
        ({"resolved": "packages/x", "link": True}, "node_modules/x is a local package outside the project"),
        ({"resolved": "file:x.tgz"}, "node_modules/x is a file outside the project or without integrity"),
        ({"resolved": "file:../x.tgz", "integrity": "sha512-AAAA"}, "node_modules/x is a file outside"),
        ({**ENTRY, "engines": {"node": ">= 22"}}, "node_modules/x 1.0.0 needs Node.js >= 22"),
        ({**ENTRY, "engines": {"node": ">=22"}}, "node_modules/x 1.0.0 needs Node.js >=22, but node is 18.20.4"),
    ],
)
def test_a_lock_that_does_not_say_everything_is_refused(tmp_path, entry, said):
    lock = {"": {"name": "web", "version": "1.0.0", "license": "MIT"}, "node_modules/x": entry}
    with pytest.raises(DrumheadError) as refused:
        read_node_lock(node_project(tmp_path, package={"name": "web"}, lock=lock), "node")
    assert said in refused.value.message


@pytest.mark.parametrize("written", [None, [], "any", {"node": 18}, {"node": None}])
def test_what_others_write_for_engines_stops_nobody(tmp_path, written):
    lock = {"": {}, "node_modules/x": {**ENTRY, "engines": written}}
    assert read_node_lock(node_project(tmp_path, package={"name": "web"}, lock=lock), "node")


WORKSPACE = {
    "package": {"name": "web", "version": "1.0.0", "dependencies": {"shared": "file:lib/shared"}},
    "lock": {
        "": {"name": "web", "version": "1.0.0", "dependencies": {"shared": "file:lib/shared"}},
        "node_modules/shared": {"resolved": "lib/shared", "link": True},
        "lib/shared": {"version": "1.0.0"},
    },
}
"""A project whose only dependency is its own, so that npm needs no registry."""
SHARED = {"lib/shared/package.json": '{"name": "shared", "version": "1.0.0"}'}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "installed"),
    [
        ({}, False),
        ({"node_modules/.cache/x/data": "", "node_modules/.package-lock.json": "{}"}, False),
        (
            {"client/node_modules/x/index.js": "", ".drumheadignore": "/node_modules\n", "node_modules/x/x.js": ""},
            False,
        ),
        ({"node_modules/x/index.js": ""}, True),
        ({"node_modules/@a/x/index.js": ""}, True),
    ],
)
def test_modules_beside_the_lock_replace_it_and_others_are_added(tmp_path, files, installed):
    root, home = tmp_path / "project", Home(root=tmp_path / "home")
    (root / "node_modules").mkdir(parents=True)
    project = node_project(write_files(root, SHARED | files), **WORKSPACE)
    builder = LayerBuilder(home, PackageStore(home), LayerStore(home, "squashfs", silent))
    tree, _ = builder.project_tree(project, [node_package(home)])
    assert ("node_modules/shared" in tree) != installed
    places = {path for path in files if not path.startswith((".", "node_modules/x/x.js"))}
    assert places <= {path for path, _ in tree}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["engines", "devEngines"])
def test_the_version_of_the_hosts_node_does_not_matter(tmp_path, key):
    asked = {"engines": {"node": "^18.20"}, "devEngines": {"runtime": {"name": "node", "version": "18"}}}
    root = write_files(tmp_path, SHARED | {".npmrc": "engine-strict=true\n"})
    project = node_project(root, package=WORKSPACE["package"] | {key: asked[key]}, lock=WORKSPACE["lock"])
    assert install(read_node_lock(project, "node"), tmp_path / "cache")["node_modules/shared"].kind == "symlink"


def node_package(home):
    """Store a package with the name of Node.js and one file, and return it."""
    tree = Tree()
    tree.add("usr/bin/node", regular(b""))
    package = Package(
        name="node", version="18", kind="runtime", description="", created="", archive="0" * 64, archive_size=0,
        unpacked_size=0,
    )  # fmt: skip
    return PackageStore(home).add(tree, package)


@pytest.mark.slow
def test_modules_below_lib_are_where_the_guests_link_leads(tmp_path):
    """Build the layers of a lock and of modules below /lib, which is a link to /usr/lib in every guest."""
    home = Home(root=tmp_path / "home")
    files = {"lib/app/node_modules/x/index.js": "", "lib/app/web.js": "", "bin/node_modules/y/y.js": ""}
    project = node_project(write_files(tmp_path / "project", SHARED | files), **WORKSPACE)
    inputs = ComposeInputs(
        guest=find_guest("linux"), filesystem="squashfs", kernel_files=None, packages=(node_package(home),),
        commands={}, default="", notices=(),
    )  # fmt: skip
    stack = LayerBuilder(home, PackageStore(home), LayerStore(home, "squashfs", silent)).build(
        project, inputs, trust=False
    )
    assert [stored.layer.name for stored in stack.layers] == ["node 18", "node_modules", "nested node_modules", "web"]
    for path in ("lib/app/node_modules/x/index.js", "lib/app/web.js", "bin/node_modules/y/y.js"):
        assert follow(stack.index, f"/{path}") == f"usr/{path}"
    assert follow(stack.index, "/node_modules/shared/package.json") == "usr/lib/shared/package.json"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("", "package.json has dependencies, but there is no lock of npm"),
        ("yarn.lock", "yarn.lock is not read, and the image has no node_modules; run `yarn install`"),
        ("pnpm-lock.yaml", "run `pnpm install`"),
        ("package-lock.json", ""),
        (".pnp.cjs", ""),
        ("node_modules/x/index.js", ""),
        ("node_modules/.cache/x", "the image has no node_modules"),
        ("client/node_modules/x/index.js", "the image has no node_modules"),
    ],
)
def test_dependencies_that_nothing_installs_are_noted(tmp_path, file, said):
    project = node_project(tmp_path, package={"name": "web", "dependencies": {"x": "1"}})
    write_files(tmp_path, {file: "{}"} if file else {})
    notices = resolve_packages(project)[1]
    assert bool(notices) == bool(said)
    assert said in " ".join(notices)


@pytest.mark.parametrize(
    ("package", "files", "said"),
    [
        ({"workspaces": ["web"]}, {}, "package.json has workspaces, but there is no lock of npm"),
        ({}, {"pnpm-workspace.yaml": "packages: [web]", "pnpm-lock.yaml": "{}"}, "run `pnpm install`"),
        ({}, {"pnpm-workspace.yaml": "packages: [web]", "node_modules/.pnpm/x/index.js": ""}, ""),
        ({"dependencies": {"x": "1"}}, {".pnp.cjs": '"packageLocation": "./.yarn/cache/x.zip/"'}, ""),
        ({"dependencies": {"x": "1"}}, {".pnp.cjs": '"packageLocation": "../../.yarn/x.zip/"'}, "outside the project"),
        (
            {"dependencies": {"x": "1"}},
            {".pnp.cjs": "", ".pnp.data.json": '{"packageLocation": "../x/"}'},
            "`enableGlobalCache: false`",
        ),
    ],
)
def test_packages_of_workspaces_and_of_plug_and_play_that_the_image_lacks_are_noted(tmp_path, package, files, said):
    project = node_project(tmp_path, package={"name": "web", **package})
    write_files(tmp_path, files)
    notices = resolve_packages(project)[1]
    assert bool(notices) == bool(said)
    assert said in " ".join(notices)


def test_a_byte_order_mark_is_not_part_of_package_json(tmp_path):
    (tmp_path / "package.json").write_bytes(b'\xef\xbb\xbf{"engines": {"node": "20"}}')
    assert engines(tmp_path) == "20"


def test_what_development_needs_does_not_matter(tmp_path):
    lock = {"": {}, "node_modules/x": {**ENTRY, "integrity": "", "dev": True}}
    assert read_node_lock(node_project(tmp_path, package={"name": "web"}, lock=lock), "node") is None
    lock["node_modules/y"] = {**ENTRY, "hasInstallScript": True}
    lock |= {
        "../rules": {"version": "1.0.0", "dev": True},
        "node_modules/rules": {"resolved": "../rules", "link": True},
    }
    read = read_node_lock(node_project(tmp_path, package={"name": "web"}, lock=lock), "node")
    assert "the install scripts of y are not run" in read.notices[0]
    assert read.local == ()
    (tmp_path / "package-lock.json").write_text('{"lockfileVersion": 1, "dependencies": {"x": {}}}')
    with pytest.raises(DrumheadError, match="it was written by npm 6; `npm install --package-lock-only` with npm 7"):
        read_node_lock(read_project(tmp_path), "node")


@pytest.mark.slow
def test_npm_installs_what_the_lock_says_and_refuses_another_digest(tmp_path):
    """Install the package `ms` from the registry with a lock that npm wrote."""
    root = tmp_path / "project"
    node_project(root, package={"name": "web", "version": "1.0.0", "dependencies": {"ms": "2.1.3"}})
    subprocess.run(["npm", "install", "--package-lock-only", "--no-audit"], cwd=root, check=True, capture_output=True)
    lock = read_node_lock(read_project(root), "node")
    tree = install(lock, tmp_path / "cache")
    assert tree["node_modules/ms/index.js"].kind == "file"
    assert install(lock, tmp_path / "cache").digest() == tree.digest()
    assert not [path for path, _ in tree if path.endswith(".package-lock.json")]
    text = (root / "package-lock.json").read_text()
    digest = text.partition('"integrity": "sha512-')[2][:8]
    (root / "package-lock.json").write_text(text.replace(digest, digest[::-1]))
    with pytest.raises(DrumheadError, match="Integrity checksum failed") as refused:
        install(read_node_lock(read_project(root), "node"), tmp_path / "other")
    assert refused.value.code is ErrorCode.HOST_TOOL


def test_packages_of_the_project_are_installed_as_links(tmp_path):
    """Install the lock of a workspace, which needs no registry."""
    root = tmp_path / "project"
    programs = {"shared": {"share": "./cli.js", "out": "../../../x", "not-there": "x.js", "no": 1}, "docs": "cli.js"}
    described = {"name": "web", "version": "1.0.0", "workspaces": ["packages/*"], "dependencies": {"shared": "1.0.0"}}
    lock = {
        "": described,
        "node_modules/shared": {"resolved": "packages/shared", "link": True},
        "packages/shared": {"version": "1.0.0", "bin": programs["shared"]},
        "node_modules/docs": {"resolved": "packages/docs", "link": True, "dev": True},
        "packages/docs": {"version": "1.0.0", "dev": True},
    }
    node_project(root, package=described, lock=lock)
    for name, program in programs.items():
        inner = json.dumps({"name": name, "version": "1.0.0", "bin": program})
        write_files(root / "packages" / name, {"package.json": inner, "cli.js": "#!/usr/bin/env node\n"})
    read = read_node_lock(read_project(root), "node")
    assert read.local == ("packages/docs", "packages/shared")
    tree = install(read, tmp_path / "cache")
    assert tree["node_modules/shared"].target == "../packages/shared"
    assert tree["node_modules/.bin/share"].target == "../shared/cli.js"
    assert [path for path, _ in tree if "/.bin/" in path] == ["node_modules/.bin/share"]
    (root / "packages/shared").rename(tmp_path / "shared")
    with pytest.raises(DrumheadError, match="^package-lock.json:.*shared is a local package outside the project"):
        read_node_lock(read_project(root), "node")


def test_a_tarball_of_the_project_is_installed(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in {"package.json": '{"name": "x", "version": "1.0.0"}', "index.js": "//"}.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    digest = base64.b64encode(hashlib.sha512(packed.getvalue()).digest()).decode()
    described = {"name": "web", "version": "1.0.0", "dependencies": {"x": "file:vendor/x.tgz"}}
    entry = {"version": "1.0.0", "resolved": "file:vendor/x.tgz", "integrity": f"sha512-{digest}"}
    project = node_project(tmp_path, package=described, lock={"": described, "node_modules/x": entry})
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor/x.tgz").write_bytes(packed.getvalue())
    assert install(read_node_lock(project, "node"), tmp_path / "cache")["node_modules/x/index.js"].read() == b"//"


def test_a_lock_that_lacks_a_dependency_is_refused(tmp_path):
    lock = {"": {"dependencies": {"x": "^1"}, "optionalDependencies": {"z": "1"}}, "node_modules/x": ENTRY}
    package = {"name": "web", "dependencies": {"x": "^1", "y": "2"}, "devDependencies": {"w": "1"}}
    with pytest.raises(DrumheadError) as refused:
        read_node_lock(node_project(tmp_path, package=package, lock=lock), "node")
    assert refused.value.message == (
        "package-lock.json:1: it does not have y, which package.json names; "
        "`npm install --package-lock-only` brings it up to date"
    )
    package = {"name": "web", "dependencies": {"x": "^1.0.0", "z": "1"}}
    assert read_node_lock(node_project(tmp_path, package=package, lock=lock), "node")


NPM_ERROR = """\
npm error code EUSAGE
npm error
npm error `npm ci` can only install packages when your package.json and package-lock.json are in sync.
npm error
npm error Invalid: lock file's x@1.0.0 does not satisfy x@2.0.0
npm error
npm error Clean install a project
npm error
npm error Usage:
npm error npm ci
npm error
npm error Options:
npm error [--install-strategy <hoisted|nested|shallow|linked>] [--omit <dev|optional|peer>]
npm error A complete log of this run can be found in: /tmp/_logs/2026-11-28T09_06_51_696Z-debug-0.log
"""


def test_what_npm_says_is_shown_without_its_usage(tmp_path, monkeypatch):
    (tmp_path / "npm").write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{NPM_ERROR}END\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    lock = {"": {"dependencies": {"x": "^2"}}, "node_modules/x": ENTRY}
    package = {"name": "web", "dependencies": {"x": "^2"}}
    read = read_node_lock(node_project(tmp_path / "web", package=package, lock=lock), "node")
    with pytest.raises(DrumheadError) as refused:
        install(read, tmp_path / "cache")
    assert refused.value.message == (
        f"{tmp_path}/npm failed with status 1: code EUSAGE `npm ci` can only install packages when your package.json "
        "and package-lock.json are in sync. Invalid: lock file's x@1.0.0 does not satisfy x@2.0.0"
    )
