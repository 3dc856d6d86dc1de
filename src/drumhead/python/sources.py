"""Find the packages that read the sources of Python modules while they run, and the sources that they open as files.
Others work from bytecode alone.
"""

from __future__ import annotations

import ast
import os
import re
from typing import TYPE_CHECKING

from drumhead.python.distribution import SITE

if TYPE_CHECKING:
    from drumhead.tree import Tree

READERS = ("getsource", "getsourcelines", "findsource")
"""Functions of ``inspect`` that raise OSError if there is no source."""
CAUGHT = {"OSError", "IOError", "EnvironmentError", "Exception", "BaseException"}
NAMES_READER = re.compile(rb"getsource|findsource")
READS_FILE = (re.compile(rb"\bgetfile\("), re.compile(rb"\b(?:read_text|open)\("))
"""A module that asks for the file of an object and reads it as text (gradio)."""
LISTS_SOURCES = (
    re.compile(rb"""endswith\(\(?\s*["']\.py["']\)|glob\([^)\n]*\.py["']"""),
    re.compile(rb"\b(?:listdir|scandir|iterdir|r?glob|walk)\("),
)
"""A module that takes the names of its submodules from a directory (transformers)."""
CACHES = (re.compile(rb"\bnumba\b"), re.compile(rb"\bcache\s*=\s*True"))
"""A module whose functions numba compiles and caches by the time of their source (librosa)."""
COMPILED = (re.compile(rb"\btorch\.jit\.script|\btriton\.jit"),)
"""A module whose functions torch or triton compiles from source."""
NAMES_FILE = re.compile(rb"""["']((?:[\w.-]+/)*[\w.-]+\.py)["']""")
"""The name of a source as a whole text, which a module joins to its own directory, to run or to read that file."""
MIGRATIONS = re.compile(r"(.+)/versions/.+")
"""Alembic lists the sources of migrations in the directory ``versions`` beside an ``env.py`` (jupyterhub)."""
NOT_RUN = {"tests", "testing"}
"""Directories that no program imports."""


def reads_sources(tree: Tree) -> set[str]:
    """Return the top-level packages (paths such as ``…/dist-packages/gradio``) that need the sources of modules.

    If one module of a package reads sources, those of the whole package are needed.
    """
    found: set[str] = set()
    for path, entry in tree:
        package = top_level(path)
        if package in found or entry.kind != "file" or not path.endswith(".py") or NOT_RUN & {*path.split("/")}:
            continue
        if module_reads_sources(entry.read()):
            found.add(package)
    return found


def opened_as_files(tree: Tree) -> set[str]:
    """Return the paths of sources that nothing imports, or that programs open as well.

    These are files outside dist-packages (commands), files with names that no import can have (OpenCV's
    ``config-3.py``), files that a module of the same package names (its ``config.py``), and migrations of Alembic.
    """
    sources = {path: entry for path, entry in tree if entry.kind == "file" and path.endswith(".py")}
    named: dict[str, set[str]] = {}
    for path, entry in sources.items():
        names = set(map(os.fsdecode, NAMES_FILE.findall(entry.read())))
        named.setdefault(top_level(path), set()).update(names - {"__init__.py"})

    def is_opened(path: str) -> bool:
        *directories, name = path.removeprefix(f"{SITE}/").split("/")
        ends = ("/".join([*directories[start:], name]) for start in range(len(directories) + 1))
        return (
            not path.startswith(f"{SITE}/")
            or not name.removesuffix(".py").isidentifier()
            or ((migration := MIGRATIONS.fullmatch(path)) is not None and f"{migration[1]}/env.py" in sources)
            or any(end in named[top_level(path)] for end in ends)
        )

    return set(filter(is_opened, sources))


def top_level(path: str) -> str:
    """Return the path of the package in dist-packages to which a file belongs; for other files, their own path."""
    inside = path.removeprefix(f"{SITE}/")
    return f"{SITE}/{inside.partition('/')[0]}" if inside != path else path


def module_reads_sources(source: bytes) -> bool:
    """Return whether a module fails, or works differently, if modules have no sources."""
    for needed in (READS_FILE, LISTS_SOURCES, CACHES, COMPILED):
        if all(pattern.search(source) for pattern in needed):
            return True
    if not NAMES_READER.search(source):
        return False
    try:
        return _calls_reader(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _calls_reader(node: ast.AST) -> bool:
    """Return whether a reader is called where nothing handles that there is no source."""
    if isinstance(node, ast.Call) and _last_name(node.func) in READERS:
        return True
    parts = ast.iter_child_nodes(node)
    if isinstance(node, ast.Try) and any(map(_handles, node.handlers)):
        parts = iter([*node.handlers, *node.orelse, *node.finalbody])
    return any(map(_calls_reader, parts))


def _handles(handler: ast.ExceptHandler) -> bool:
    if any(isinstance(part, ast.Raise) for part in ast.walk(handler)):
        return False
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or _last_name(kind) in CAUGHT for kind in kinds)


def _last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
