"""Plan an image's layers: their order, and the key that determines each. Nothing here touches the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from drumhead.node.lock import NODE_MODULES
from drumhead.package.osv.kernel import ROOT
from drumhead.tree import USR_MERGED, Tree, regular, symlink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.closure import Index
    from drumhead.image.inputs import ComposeInputs
    from drumhead.image.layers.store import StoredLayer
    from drumhead.node.lock import NodeLock
    from drumhead.package.records import Package, PackedLayer
    from drumhead.python.lock import Lock
    from drumhead.records import Command, Filesystem, LayerKind

RUN_FILE = "etc/drumhead/run.json"
DEPENDENCY_RULES = 12
"""Increase this if the same lock file should produce other files."""
NODE_RULES = 2
"""Increase this if the same package-lock.json should produce other files."""
OWN_MODULES = "nested node_modules"
"""The name of the layer with a project's own node_modules if another has those of its lock."""
USR_DIRECTORIES = ("games", "include", "libexec", "local", "share", "src")
"""Directories below /usr into which several packages put files. A layer must not cover them with a link."""
ORDER: dict[LayerKind, int] = {"package": 0, "libraries": 1, "python": 2, "node": 3, "application": 4, "root": 5}


@dataclass(frozen=True, kw_only=True)
class KernelModules:
    """The files that a kernel package puts into the root tree."""

    kernel: Package


@dataclass(frozen=True, kw_only=True)
class PackageFiles:
    """The files of a package."""

    package: Package


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """The wheels of a lock file, compiled by the interpreter in the package `python`. `sources` keeps all sources."""

    lock: Lock
    python: Package
    sources: bool


@dataclass(frozen=True, kw_only=True)
class NodeModules:
    """The packages that npm installs from the lock of a project."""

    lock: NodeLock


@dataclass(frozen=True, kw_only=True)
class Libraries:
    """Files of the package of common libraries: path in the image → path in the package."""

    pool: Package
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class PlannedLayer:
    """A layer whose tree is determined by `key`, so it is built once. `packed` is the layer if it is already packed."""

    kind: LayerKind
    name: str
    key: str
    source: KernelModules | PackageFiles | Dependencies | NodeModules | Libraries
    packed: PackedLayer | None = None


def plan_layers(inputs: ComposeInputs, lock: Lock | None, *, sources: bool) -> list[PlannedLayer]:
    """Plan the layers that do not depend on the project's files, in order. `sources` is for the dependencies."""
    kernel = inputs.kernel_files
    planned = []
    if kernel and any(origin.name.startswith(f"{ROOT}/") for origin in kernel.origins):
        name, key = f"{kernel.name} {kernel.version}", f"{kernel.archive} {ROOT}"
        planned.append(PlannedLayer(kind="package", name=name, key=key, source=KernelModules(kernel=kernel)))
    planned += [plan_package(package, inputs.filesystem) for package in inputs.packages]
    if lock and inputs.python:
        planned.append(
            PlannedLayer(
                kind="python",
                name="dependencies",
                key=f"{DEPENDENCY_RULES} {inputs.python.archive} {lock.digest}{' sources' if sources else ''}",
                source=Dependencies(lock=lock, python=inputs.python, sources=sources),
            )
        )
    return planned


def plan_package(package: Package, filesystem: Filesystem) -> PlannedLayer:
    """Plan the layer of a package."""
    return PlannedLayer(
        kind="package",
        name=f"{package.name} {package.version}",
        key=package.archive,
        source=PackageFiles(package=package),
        packed=package.layer(filesystem),
    )


def plan_libraries(pool: Package, files: dict[str, str]) -> PlannedLayer:
    """Plan the layer of libraries that the other layers need and do not have."""
    return PlannedLayer(
        kind="libraries",
        name="libraries",
        key=f"{pool.archive} {sorted(files.items())}",
        source=Libraries(pool=pool, files=files),
    )


def plan_modules(lock: NodeLock) -> PlannedLayer:
    """Plan the layer of node_modules that a lock determines."""
    return PlannedLayer(
        kind="node", name=NODE_MODULES, key=f"{NODE_RULES} {lock.digest}", source=NodeModules(lock=lock)
    )


def split_project(files: Tree) -> tuple[Tree, Tree]:
    """Split a project's files into node_modules and the rest."""

    def is_module(path: str) -> bool:
        return NODE_MODULES in path.split("/")

    return files.filter(is_module), files.filter(lambda path: not is_module(path))


def usr_merged(*trees: Tree) -> Tree:
    """Return the trees over one another, with their files in /bin or /lib placed in /usr/bin or /usr/lib.

    Every guest has links there, which would cover a directory of a lower layer.
    """
    whole = Tree()
    for name in USR_MERGED:
        whole.add(name, symlink(f"usr/{name}"))
    for tree in trees:
        whole.update(tree)
    return whole.filter(lambda path: path not in USR_MERGED)


def usr_links(files: Tree, covered: Index | Tree) -> Tree:
    """Return links below /usr to the root's files if a project (`files`) has some in /bin or /lib; else an empty tree.

    Their real paths are in /usr/bin and /usr/lib, and programs go up from there: Node.js looks for the ``../app`` of
    /bin/www at /usr/app. Nothing that `files` or lower layers (`covered`) have below /usr is replaced. The links are
    absolute, which every guest follows.
    """
    links = Tree()
    if not any(path.partition("/")[0] in USR_MERGED and entry.kind != "directory" for path, entry in files):
        return links
    if NODE_MODULES in covered and NODE_MODULES not in files:
        links.add(f"usr/{NODE_MODULES}", symlink(f"/{NODE_MODULES}"))
    replaced = ""
    for path, entry in files:
        if path.partition("/")[0] in {"usr", *USR_MERGED} or (replaced and path.startswith(replaced)):
            continue
        place = f"usr/{path}"
        there = files.get(place) or covered.get(place)
        kept = there.kind if there else "directory" if path in USR_DIRECTORIES else ""
        if not kept:
            links.add(place, symlink(f"/{path}"))
        if kept != "directory" or entry.kind != "directory":
            replaced = f"{path}/"
    return links


def application_tree(skeleton: Tree, files: Tree, covered: Index, commands: dict[str, Command], default: str) -> Tree:
    """Return the guest's skeleton with the project's files and commands over it.

    Files of the skeleton that lower layers already have (`covered`) are left out.
    """
    tree = skeleton.filter(lambda path: skeleton[path].kind != "file" or path not in covered)
    tree.update(files)
    tree.update(usr_links(files, covered))
    settings = {"default": default, "commands": {name: commands[name] for name in sorted(commands)}}
    tree.add(RUN_FILE, regular(msgspec.json.encode(settings)))
    return tree


def in_order(layers: Iterable[StoredLayer]) -> list[StoredLayer]:
    """Sort layers from the lowest to the highest; layers of one kind keep their order."""
    return sorted(layers, key=lambda stored: ORDER[stored.layer.kind])
