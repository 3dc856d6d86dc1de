"""Find code that cannot run on OSv before an image is composed. OSv is one process without fork, exec or Unix sockets.

The ELF files of programs and libraries are checked, and the project's Python sources. Dependencies are in images as
bytecode only and are not checked.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from drumhead.elf import MAGIC, is_elf, is_foreign, read_linkage
from drumhead.guest.contract import Finding
from drumhead.python.command_line import split_python
from drumhead.python.syntax_scan import MARKER, scan_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drumhead.guest.contract import Severity
    from drumhead.python.syntax_scan import ScanResult, Use
    from drumhead.records import Command
    from drumhead.tree import Entry, Tree

STARTERS = {"fork", "vfork", "execv", "execve", "execvp", "posix_spawn", "posix_spawnp"}
"""Functions of libc that create or replace a process."""
INTERPRETERS = re.compile(r"(python|node)[0-9.]*")
"""Programs that start other programs only on behalf of the code that they run."""
PYTHON = re.compile(r"python[0-9.]*")
SHOWN = 3
"""The number of places that one sentence names."""


def check_tree(tree: Tree) -> Iterator[Finding]:
    """Yield findings about single files of a layer, independent of config sets."""
    for path, entry in tree:
        if entry.kind != "file" or not entry.size:
            continue
        if entry.starts_with(MAGIC):
            yield from _check_elf(path, entry.read())
        elif entry.starts_with(b"#!"):
            first = entry.read().partition(b"\n")[0][2:].decode(errors="replace").strip()
            yield Finding(
                path=path,
                severity="quiet",
                sentence=f"is a script for {first}; OSv starts ELF programs only, so start the interpreter with it",
            )


def _check_elf(path: str, elf: bytes) -> Iterator[Finding]:
    if is_foreign(elf) or not is_elf(elf):
        yield Finding(path=path, severity="program", sentence="is made for a processor other than x86-64")
        return
    linkage = read_linkage(elf)
    if linkage.flaw:
        yield Finding(path=path, severity="program", sentence=f"{linkage.flaw}; OSv cannot load it")
    if linkage.static and not posixpath.basename(path).startswith("ld-linux"):
        yield Finding(path=path, severity="quiet", sentence="is linked statically; OSv starts what a loader loads")
    if linkage.imports & STARTERS and not INTERPRETERS.fullmatch(posixpath.basename(path)):
        severity: Severity = "program" if ".so" in posixpath.basename(path) else "quiet"
        called = ", ".join(sorted(linkage.imports & STARTERS))
        yield Finding(path=path, severity=severity, sentence=f"may start processes ({called}), which OSv does not have")


def check_command(tree: Tree, command: Command, program: str) -> Iterator[Finding]:
    """Yield findings about a config set that runs Python, from the project's sources in `tree`.

    Uses in a module that is imported at the start are refused, because the program cannot avoid them.
    """
    if not PYTHON.fullmatch(posixpath.basename(program)):
        return
    start = _entry(command)
    if start is None:
        return
    sources = Sources(tree, start[1], command)
    early, late = sources.reach(start[0])
    for module in early:
        if uses := sources.uses(module).uses:
            yield Finding(
                path=sources.path(module),
                severity="refused",
                sentence=f"{_places(uses)}, which OSv does not have, in a module that is imported at the start; import "
                f"it in the function that needs it, or write `{MARKER}` there if that is never reached on OSv",
            )
    for module in late:
        if uses := sources.uses(module).uses:
            yield Finding(
                path=sources.path(module),
                severity="notice",
                sentence=f"{_places(uses)}, which OSv does not have; it is imported only when it is needed",
            )


def _places(uses: tuple[Use, ...]) -> str:
    shown = ", ".join(f"line {use.line} ({use.name})" for use in uses[:SHOWN])
    more = f" and {len(uses) - SHOWN} more" if len(uses) > SHOWN else ""
    kinds = " and ".join(dict.fromkeys(use.kind for use in uses))
    return f"needs {kinds} in {shown}{more}"


def _entry(command: Command) -> tuple[str, str] | None:
    """Return the module that a command starts and the directory of its imports, or None for -c and a prompt."""
    _, argv = split_python(command.argv[1:])
    if not argv or argv[0] == "-c":
        return None
    if argv[0] == "-m":
        return (argv[1], command.cwd) if len(argv) > 1 else None
    file = posixpath.normpath(posixpath.join(command.cwd, argv[0]))
    return posixpath.basename(file).removesuffix(".py"), posixpath.dirname(file)


class Sources:
    """The project's modules, as a program in the directory `root` finds them."""

    def __init__(self, tree: Tree, root: str, command: Command) -> None:
        self._tree = tree
        named = [directory for directory in command.env.get("PYTHONPATH", "").split(":") if directory]
        self._roots = [tree.resolve(directory.strip("/")) for directory in (root, *named)]
        self._read: dict[str, ScanResult] = {}
        self._places: dict[str, str] = {}

    def path(self, module: str) -> str:
        """Return the path of a module of the project, or an empty string for other modules."""
        if module not in self._places:
            parts = module.replace(".", "/")
            ends = (f"{parts}/__init__.py", f"{parts}.py")
            names = (posixpath.join(root, name) for root in self._roots for name in ends)
            self._places[module] = next((name for name in names if self._source(name)), "")
        return self._places[module]

    def _source(self, path: str) -> Entry | None:
        entry = self._tree.get(path)
        return entry if entry and entry.kind == "file" else None

    def uses(self, module: str) -> ScanResult:
        """Return the scan of a module of the project."""
        if module not in self._read:
            path = self.path(module)
            entry = self._tree[path]
            self._read[module] = scan_source(entry.read(), module, package=path.endswith("/__init__.py"))
        return self._read[module]

    def reach(self, module: str) -> tuple[list[str], list[str]]:
        """Return the modules that are imported when `module` starts, and the modules that only functions import."""
        start = [module, f"{module}.__main__"] if self.path(module).endswith("/__init__.py") else [module]
        early = self._follow(start, set(), late=False)
        begun = [name for found in early for name in self.uses(found).late]
        return early, self._follow(begun, set(early), late=True)

    def _follow(self, names: list[str], known: set[str], *, late: bool) -> list[str]:
        found, todo = [], [*reversed(names)]
        while todo:
            name = todo.pop()
            parts = name.split(".")
            for count in range(1, len(parts) + 1):
                module = ".".join(parts[:count])
                if module in known or not self.path(module):
                    continue
                known.add(module)
                found.append(module)
                uses = self.uses(module)
                todo += [*uses.early, *(uses.late if late else ())]
        return found
