"""Build the planned layers that the layer store does not have. All functions here block the calling thread."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import exclusive, replacing
from drumhead.closure import Missing, Node, complete, find_missing, index_of, merge
from drumhead.debian.accounts import Accounts, declarations, is_declaration
from drumhead.guest import find_guest
from drumhead.image.guest_program import compile_program
from drumhead.image.inputs import ComposeInputs, find_node, find_python
from drumhead.image.layers.permissions import apply_permissions, check_permissions, closed_notices, replaced_notices
from drumhead.image.layers.plan import (
    OWN_MODULES,
    Dependencies,
    KernelModules,
    Libraries,
    NodeModules,
    PackageFiles,
    PlannedLayer,
    application_tree,
    plan_layers,
    plan_libraries,
    plan_modules,
    plan_package,
    split_project,
    usr_links,
    usr_merged,
)
from drumhead.image.layers.scan import Scan
from drumhead.node.lock import NODE_MODULES, read_node_lock
from drumhead.node.native import check_native
from drumhead.package.osv.kernel import root_files
from drumhead.python.bytecode import Interpreter, only_bytecode, with_bytecode
from drumhead.python.distribution import with_distribution
from drumhead.python.lock import read_lock
from drumhead.records import read_cached
from drumhead.tree import Tree, regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from drumhead.closure import Index
    from drumhead.home import Home
    from drumhead.image.layers.store import LayerStore, StoredLayer
    from drumhead.manifest.records import Project
    from drumhead.node.lock import NodeLock
    from drumhead.package.records import Package
    from drumhead.package.store import PackageStore
    from drumhead.python.lock import Lock


@dataclass(kw_only=True)
class LayerStack:
    """The layers of an image that is being composed. `missing` are libraries that no layer has."""

    layers: list[StoredLayer]
    application: Tree
    missing: list[Missing] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def index(self) -> Index:
        """The index of all layers united."""
        return merge(stored.record.index for stored in self.layers)


class LayerBuilder:
    """A builder of layers for one layer store. It unpacks each package at most once."""

    def __init__(self, home: Home, packages: PackageStore, layers: LayerStore) -> None:
        self._home = home
        self._packages = packages
        self._layers = layers
        self._trees: dict[str, Tree] = {}

    def build(self, project: Project, inputs: ComposeInputs, *, trust: bool) -> LayerStack:
        """Build every layer except that of the missing libraries, which the result lists.

        With `trust`, project files whose size and times have not changed are not read again.
        """
        lock = read_lock(project, self._home.cache) if inputs.python else None
        planned = plan_layers(inputs, lock, sources=project.package.python.sources)
        built = [self._build(layer) for layer in planned]
        permissions = project.package.permissions
        check_permissions(permissions, inputs.filesystem)
        skeleton = inputs.guest.skeleton(compile_program(inputs.guest.program, self._home.cache))
        scan = Scan(project, self._home.cache, trust=trust)
        scanned = scan.tree()
        declaring = [
            layer.source.package
            for layer, stored in zip(planned, built, strict=True)
            if isinstance(layer.source, PackageFiles) and any(map(is_declaration, stored.record.index))
        ]
        accounts = self._accounts(declaring, scanned)
        skeleton.update(accounts)
        owned = apply_permissions(scanned, permissions, skeleton)
        modules, files = split_project(owned)
        node_lock = self._node_lock(project, modules, inputs.node, installed=scan.has_modules)
        built += self._module_layers(node_lock, modules)
        if inputs.python:
            files = self._python_files(project, files, inputs.python, lock)
            skeleton = self._with_bytecode(skeleton, inputs.python)
        covered = merge(stored.record.index for stored in built)
        application = application_tree(skeleton, files, covered, inputs.commands, inputs.default)
        built.append(self._layers.from_tree("application", project.package.name, application))
        stack = LayerStack(layers=built, application=application)
        stack.missing = find_missing(stack.index)
        stack.notices += [*scan.notices, *([lock.notice] if lock and lock.notice else [])]
        stack.notices += [*replaced_notices(scanned, accounts), *(node_lock.notices if node_lock else ())]
        if inputs.filesystem != "rofs":
            stack.notices += closed_notices(owned, permissions)
        return stack

    def project_tree(self, project: Project, packages: Sequence[Package]) -> tuple[Tree, list[str]]:
        """Return a tree of everything that a project adds to the packages that it requires, and notices."""
        python, node = find_python(packages), find_node(packages)
        scan = Scan(project, self._home.cache, trust=False)
        scanned = scan.tree()
        base = find_guest("linux").skeleton(b"")
        if project.package.permissions:
            base.update(self._accounts(packages, scanned))
        files = apply_permissions(scanned, project.package.permissions, base)
        node_lock = self._node_lock(project, split_project(files)[0], node, installed=scan.has_modules)
        lock = read_lock(project, self._home.cache) if python else None
        below = [self._install(lock, python, sources=project.package.python.sources)] if lock and python else []
        below += [self._files(plan_modules(node_lock))] if node_lock else []
        compiled = self._python_files(project, files, python, lock) if python else files
        merged = usr_merged(*below, compiled, usr_links(compiled, usr_merged(*below)))
        notices = [lock.notice] if lock and lock.notice else []
        notices += closed_notices(files, project.package.permissions)
        return merged, [*scan.notices, *notices, *(node_lock.notices if node_lock else ())]

    def _accounts(self, packages: Iterable[Package], files: Tree) -> Tree:
        """Return /etc/passwd and /etc/group with the accounts that packages and the project's files declare."""
        declared = [
            (f"{package.name}: {path}", text)
            for package in packages
            for path, text in declarations(self._tree(package))
        ]
        tree = Tree()
        for path, text in Accounts([*declared, *declarations(files)]).files().items():
            tree.add(path, regular(text.encode()))
        return tree

    def _node_lock(self, project: Project, modules: Tree, node: Package | None, *, installed: bool) -> NodeLock | None:
        """Return the lock to install node_modules from, or None if they are `installed` or the project has no lock.

        `modules` are all node_modules of the project; `installed` means that some are beside the lock. Raises
        UNSUPPORTED for native modules of the project that were built for another version of Node.js.
        """
        if node is None:
            return None
        check_native(modules, node.name)
        return None if installed else read_node_lock(project, node.name)

    def _module_layers(self, lock: NodeLock | None, modules: Tree) -> list[StoredLayer]:
        """Return the layers of node_modules: what the lock says, and above it what the project has."""
        layers = [self._build(plan_modules(lock))] if lock else []
        if len(modules):
            name = OWN_MODULES if lock else NODE_MODULES
            layers.append(self._layers.from_tree("node", name, usr_merged(modules)))
        return layers

    def add_packages(self, stack: LayerStack, packages: Iterable[Package]) -> None:
        """Add the layers of packages that only the layers of `stack` show to be needed."""
        stack.layers += [self._build(plan_package(package, self._layers.filesystem)) for package in packages]

    def add_libraries(self, stack: LayerStack, pool: Package) -> None:
        """Add a layer with the libraries of `pool` that `stack` needs."""
        added, stack.missing = complete(stack.index, self._pool_index(pool))
        if added:
            stack.layers.append(self._build(plan_libraries(pool, added)))

    def _build(self, planned: PlannedLayer) -> StoredLayer:
        packed = planned.packed
        if isinstance(planned.source, PackageFiles) and self._layers.filesystem == "squashfs" and not packed:
            # A package from an older store: pack it now, once for all images.
            packed = self._packages.pack(planned.source.package).layer("squashfs")
        return self._layers.from_key(planned.kind, planned.name, planned.key, lambda: self._files(planned), packed)

    def _files(self, planned: PlannedLayer) -> Tree:
        """Return the tree of a layer that is not stored yet."""
        match planned.source:
            case KernelModules(kernel=kernel):
                return root_files(self._tree(kernel))
            case PackageFiles(package=package):
                return self._tree(package)
            case Dependencies(lock=lock, python=python, sources=sources):
                return self._install(lock, python, sources=sources)
            case NodeModules(lock=node_lock):
                from drumhead.node.lock import install as install_modules  # noqa: PLC0415 - as for wheels

                return usr_merged(install_modules(node_lock, self._home.cache))
            case Libraries(pool=pool, files=files):
                contents, tree = self._tree(pool), Tree()
                for place, source in files.items():
                    tree.add(place, contents[source])
                return tree

    def _install(self, lock: Lock, python: Package, *, sources: bool) -> Tree:
        from drumhead.python.sources import opened_as_files, reads_sources, top_level  # noqa: PLC0415 - as for wheels
        from drumhead.python.wheels import (  # noqa: PLC0415 - not needed when the layer is stored
            install,
            with_records,
        )

        tree = install(lock, self._home.cache)
        needed, opened = reads_sources(tree), opened_as_files(tree)

        def keep(path: str) -> bool:
            return sources or path in opened or top_level(path) in needed

        return with_records(only_bytecode(tree, self._interpreter(python), keep=keep))

    def _python_files(self, project: Project, files: Tree, python: Package, lock: Lock | None) -> Tree:
        local = lock.local if lock else ()
        return self._with_bytecode(with_distribution(files, Path(project.root), local), python)

    def _with_bytecode(self, tree: Tree, python: Package) -> Tree:
        return with_bytecode(tree, self._interpreter(python), self._home.cache / "bytecode", python.archive)

    def _tree(self, package: Package) -> Tree:
        if package.archive not in self._trees:
            self._trees[package.archive] = self._packages.tree(package)
        return self._trees[package.archive]

    def _interpreter(self, python: Package) -> Interpreter:
        """Return the image's Python, unpacked once on this host. Another command may unpack it at the same time."""
        root = self._home.cache / "interpreters" / python.archive
        complete_mark = root / ".complete"
        if not complete_mark.is_file():
            with exclusive(root.with_name(f"{root.name}.lock")):
                if not complete_mark.is_file():
                    if root.exists():  # left by a command that was interrupted
                        shutil.rmtree(root)
                    root.mkdir()
                    Interpreter.unpack(self._tree(python), root)
                    complete_mark.touch()
        return Interpreter.at(root)

    def _pool_index(self, pool: Package) -> Index:
        file = self._home.cache / "layers" / f"pool-{pool.archive}.json"
        known = read_cached(file, dict[str, Node])
        if known is not None:
            return known
        index = index_of(self._tree(pool))
        with replacing(file) as temporary:
            temporary.write_bytes(msgspec.json.encode(index))
        return index
