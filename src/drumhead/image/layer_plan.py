"""The layers of one image: packages, missing libraries, Python dependencies, node_modules, the application."""

from __future__ import annotations

import hashlib
import posixpath
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import replacing
from drumhead.closure import Missing, Node, complete, find_missing, follow, index_of, merge
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.checks import judge, visible_findings
from drumhead.image.guest_program import compile_program
from drumhead.image.scan import Scan, split
from drumhead.package.osv.kernel import ROOT, root_files
from drumhead.python.bytecode import Interpreter, only_bytecode, with_bytecode
from drumhead.python.lock import read_lock
from drumhead.python.syntax_scan import remembering
from drumhead.tree import Tree, regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from drumhead.closure import Index
    from drumhead.guest.contract import Guest
    from drumhead.home import Home
    from drumhead.image.layers import LayerRecord, Layers
    from drumhead.manifest.records import Project
    from drumhead.package.records import Package, PackedLayer
    from drumhead.package.store import PackageStore
    from drumhead.python.lock import Lock
    from drumhead.records import Command, Layer, LayerKind

RUN_FILE = "etc/drumhead/run.json"
SEARCH_PATH = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin")
DEPENDENCY_RULES = 2
"""Counted up when the same lock is to give other files."""
NODE_MODULES = "node_modules"


class Contents:
    """Makes the layers of one project. Blocks. `notices` and `reused` tell how it went."""

    def __init__(
        self,
        home: Home,
        store: PackageStore,
        layers: Layers,
        guest: Guest,
        project: Project,
        find_pool: Callable[[], Package | None],
    ) -> None:
        """`find_pool` gives the package of common libraries; it is called when something lacks one."""
        self.home = home
        self.store = store
        self.guest = guest
        self.project = project
        self.notices: list[str] = []
        self.reused = 0
        self._layers = layers
        self._find_pool = find_pool
        self._made: list[tuple[Layer, LayerRecord]] = []
        self._missing: dict[str, str] = {}
        self._trees: dict[str, Tree] = {}

    def compose(
        self, packages: list[Package], commands: dict[str, Command], default: str, *, kernel: Package, trust: bool
    ) -> list[Layer]:
        """All layers in order. With `trust`, project files whose size and times are as before are not read again."""
        self._from_kernel(kernel)
        python = next((package for package in packages if package.name == "python"), None)
        for package in packages:
            self._from_package(package)
        if python and (lock := read_lock(self.project, self.home.cache)):
            self.notices += [lock.notice] if lock.notice else []
            self._from_lock(lock, python)
        modules, application = split(Scan(self.project, self.home.cache, trust=trust).tree(), _in_node_modules)
        if len(modules):
            self._add("node", NODE_MODULES, modules)
        below = self.guest.skeleton(compile_program(self.guest.program, self.home.cache))
        if python:
            cache, interpreter = self.home.cache / "bytecode", self._interpreter(python)
            application = with_bytecode(application, interpreter, cache, python.archive)
            below = with_bytecode(below, interpreter, cache, python.archive)
        application = self._add_application(below, application, commands, default)
        self._add_libraries()
        order = {"package": 0, "libraries": 1, "python": 2, "node": 3, "application": 4}
        self._made.sort(key=lambda made: order[made[0].kind])
        self._check(application, self._find_programs(commands))
        layers = [layer for layer, _ in self._made]
        return [*layers, self._layers.root(layers)] if self._layers.filesystem == "rofs" else layers

    def _keep(self, made: tuple[Layer, LayerRecord], *, fresh: bool) -> None:
        self._made.append(made)
        self.reused += not fresh

    def _from_key(
        self, kind: LayerKind, name: str, key: str, make: Callable[[], Tree], packed: PackedLayer | None = None
    ) -> None:
        made_now = []

        def make_noted() -> Tree:
            made_now.append(True)
            return make()

        self._keep(self._layers.from_key(kind, name, key, make_noted, packed), fresh=bool(made_now))

    def _add(self, kind: LayerKind, name: str, tree: Tree) -> None:
        known = self._layers.record(tree.digest()) is not None
        self._keep(self._layers.from_tree(kind, name, tree), fresh=not known)

    def _from_kernel(self, kernel: Package) -> None:
        """What belongs in the root tree of a kernel that a user brought: its modules."""
        if any(origin.name.startswith(f"{ROOT}/") for origin in kernel.origins):
            title = f"{kernel.name} {kernel.version}"
            self._from_key("package", title, f"{kernel.archive} {ROOT}", lambda: root_files(self._tree(kernel)))

    def _from_package(self, package: Package) -> None:
        """A package's layer: packed when the package was built or pulled; one from an older store, now."""
        title, filesystem = f"{package.name} {package.version}", self._layers.filesystem
        if filesystem == "squashfs" and not package.layers:
            package = self.store.pack(package)
        packed = package.layer(filesystem)
        self._from_key("package", title, package.archive, lambda: self._tree(package), packed)

    def _from_lock(self, lock: Lock, python: Package) -> None:
        from drumhead.python.wheels import install  # noqa: PLC0415 - not needed when the layer is there

        key = f"{DEPENDENCY_RULES} {python.archive} {lock.digest}"
        self._from_key(
            "python",
            "dependencies",
            key,
            lambda: only_bytecode(install(lock, self.home.cache), self._interpreter(python)),
        )

    def _tree(self, package: Package) -> Tree:
        """A package's files, unpacked at most once."""
        if package.archive not in self._trees:
            self._trees[package.archive] = self.store.tree(package)
        return self._trees[package.archive]

    def _interpreter(self, python: Package) -> Interpreter:
        """The project's python, unpacked once on this host."""
        root = self.home.cache / "interpreters" / python.archive
        mark = root / ".complete"
        if not mark.is_file():
            root.mkdir(parents=True, exist_ok=True)
            Interpreter.unpack(self._tree(python), root)
            mark.touch()
        return Interpreter.at(root)

    def _add_application(self, tree: Tree, files: Tree, commands: dict[str, Command], default: str) -> Tree:
        """The project's files over `tree`, what the guest needs below every application; returns them all."""
        covered = merge(record.index for _, record in self._made)
        for path in [path for path, entry in tree if entry.kind == "file" and path in covered]:
            tree.remove(path)
        tree.update(files)
        settings = {"default": default, "commands": {name: commands[name] for name in sorted(commands)}}
        tree.add(RUN_FILE, regular(msgspec.json.encode(settings)))
        self._add("application", self.project.package.name, tree)
        return tree

    def _add_libraries(self) -> None:
        """A layer of the libraries that something needs and no package has."""
        index = self._index()
        missing = find_missing(index)
        if missing and (pool := self._find_pool()):
            added, missing = complete(index, self._pool_index(pool))
            if added:
                key = f"{pool.archive} {sorted(added.items())}"
                self._from_key("libraries", "libraries", key, lambda: _pick(self._tree(pool), added))
        self._notice(missing)

    def _pool_index(self, pool: Package) -> Index:
        file = self.home.cache / "layers" / f"pool-{pool.archive}.json"
        if file.is_file():
            return msgspec.json.decode(file.read_bytes(), type=dict[str, Node])
        index = index_of(self._tree(pool))
        with replacing(file) as temporary:
            temporary.write_bytes(msgspec.json.encode(index))
        return index

    def _notice(self, missing: Iterable[Missing]) -> None:
        """A library that is nowhere: fatal for a config set's program (``_find_programs``), else worth a notice."""
        self._missing = {lack.path: lack.library for lack in missing}
        self.notices += [
            f"/{path} needs {library}, which is in no package; it will not load"
            for path, library in sorted(self._missing.items())
        ]

    def _check(self, application: Tree, commands: dict[str, tuple[Command, str]]) -> None:
        layers = [(record.index, self._layers.findings(record)) for _, record in self._made]
        project = hashlib.sha256(self.project.root.encode()).hexdigest()
        with remembering(self.home.cache / "uses" / f"{project}.json"):
            self.notices += judge(self.guest, visible_findings(layers), application, commands)

    def _find_programs(self, commands: dict[str, Command]) -> dict[str, tuple[Command, str]]:
        """Each config set with its program. Refuses one that is not in the image, or a library of it (INCOMPLETE)."""
        index = self._index()
        found = {}
        for name, command in commands.items():
            program = find_program(index, command)
            if not program:
                raise DrumheadError(
                    ErrorCode.INCOMPLETE,
                    f"config set {name} starts {command.argv[0]}, which is not in the image; require its package",
                )
            if library := self._missing.get(program):
                raise DrumheadError(
                    ErrorCode.INCOMPLETE,
                    f"config set {name} starts /{program}, which needs {library}; no package has it, so add the file "
                    "to the project (below /usr/lib) or build the package `libraries`",
                )
            found[name] = (command, program)
        return found

    def _index(self) -> Index:
        return merge(record.index for _, record in self._made)


def _in_node_modules(path: str) -> bool:
    return NODE_MODULES in path.split("/")


def _pick(pool: Tree, added: dict[str, str]) -> Tree:
    tree = Tree()
    for place, source in added.items():
        tree.add(place, pool[source])
    return tree


def find_program(index: Index, command: Command) -> str:
    """The path of a command's program in an image, links followed; empty when it is not there."""
    name = command.argv[0]
    if name.startswith("/"):
        return follow(index, name)
    if "/" in name:
        return follow(index, posixpath.join(command.cwd, name))
    return next(filter(None, (follow(index, f"{folder}/{name}") for folder in SEARCH_PATH)), "")
