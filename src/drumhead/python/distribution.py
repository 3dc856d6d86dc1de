"""Install what an installer would make of the project: console scripts, the metadata of its packages, and their place.

The project's files lie in the image as they are, so nothing has installed the project. Its metadata let programs ask
for their own version and plugins (packaging.python.org, Core metadata and Entry points specifications). A .pth file
lets Python look where its modules are, as after an editable installation.
"""

from __future__ import annotations

import configparser
import posixpath
import re
from typing import TYPE_CHECKING

from drumhead.manifest.project_files import is_there
from drumhead.python.dynamic_version import version_in_files
from drumhead.python.pyproject import read_pyproject, read_toml
from drumhead.python.requirements import PYTHON
from drumhead.tree import Tree, regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from drumhead.python.pyproject import PyProject

SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
BIN = "usr/local/bin"
CONSOLE_SCRIPTS = "console_scripts"
PYPROJECT = "pyproject.toml"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_OBJECT = re.compile(r"\s*([A-Za-z_][\w.]*)\s*:\s*([A-Za-z_][\w.]*)\s*(\[.*\])?\s*")
_SCRIPT = """\
#!/usr/bin/python3
import sys
{path}from {module} import {first}
if __name__ == "__main__":  # a process that multiprocessing spawns imports this file too
    sys.exit({attribute}())
"""


def scripts_of_wheels(entry_points: Iterable[str]) -> Tree:
    """Return the console scripts of installed wheels, whose ``entry_points.txt`` are given."""
    tree = Tree()
    for text in entry_points:
        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
        parser.optionxform = _as_written  # type: ignore[method-assign, assignment]
        try:
            parser.read_string(text)
        except configparser.Error:
            continue  # installers ignore such a file, too
        if parser.has_section(CONSOLE_SCRIPTS):
            tree.update(_scripts(parser[CONSOLE_SCRIPTS]))
    return tree


def with_distribution(files: Tree, root: Path, local: Iterable[str] = ()) -> Tree:
    """Return the files of a project in the image, with the metadata and console scripts of its pyproject.toml.

    `local` are directories of further packages of the project, of which the same is added. Files that the project has
    itself are kept. Without a version there are no metadata: one that a build computes is not known, unless it is in a
    file of the project. Raises MANIFEST.
    """
    directories = [place for place in (*sorted({*local} - {"."}), ".") if is_there(root, _described(place))]
    documents = {place: read_pyproject(root, _described(place)) for place in directories}
    modules = {place: _normalized(_name(document)) for place, document in documents.items()}
    shared = [found for place in documents if place != "." and (found := _place(files, modules[place], place))]
    tree = Tree()
    for place, document in documents.items():
        if modules[place] and (searched := _searched(files, modules[place], place)):
            tree.add(f"{SITE}/{modules[place]}.pth", regular("".join(f"{one}\n" for one in searched).encode()))
        scripts = {**document.tool.poetry.console_scripts, **document.project.scripts}
        tree.update(_metadata(document, scripts, version_in_files(root, place, read_toml(root, _described(place)))))
        for script, target in scripts.items():
            if found := _place(files, target, place):
                tree.update(_scripts({script: target}, found, shared))
    tree.update(files)
    return tree


def _described(place: str) -> str:
    return posixpath.normpath(posixpath.join(place, PYPROJECT))


def _name(document: PyProject) -> str:
    return document.project.name or document.tool.poetry.name


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _searched(files: Tree, module: str, directory: str) -> list[str]:
    """Return the directories of the image where Python must look for the modules of a package that is called `module`.

    They are `src`, if it has modules and is none itself, and the directory that has the module of that name.
    """
    source = posixpath.normpath(posixpath.join(directory, "src"))
    inside = [path.removeprefix(f"{source}/").split("/") for path, _ in files if path.startswith(f"{source}/")]
    has_modules = any(
        path[1:] == ["__init__.py"] or (len(path) == 1 and path[0].endswith(".py") and path[0] != "__init__.py")
        for path in inside
    )
    found = [f"/{source}"] if has_modules and ["__init__.py"] not in inside else []
    place = _place(files, module, directory)
    own = directory != "." or place.count("/") == 1  # of deeper ones, which may be tests, nothing is known
    return list(dict.fromkeys([*found, *([place] if place not in {"", "/"} and own else [])]))


def _metadata(document: PyProject, scripts: Mapping[str, str], in_files: str) -> Tree:
    """Return the metadata of a package. `in_files` is its version if a build reads it from a file."""
    tree = Tree()
    named = document.project.version or document.tool.poetry.version
    name, version = _name(document), in_files if "version" in document.project.dynamic else named
    groups = {**document.project.entry_points, **({CONSOLE_SCRIPTS: scripts} if scripts else {})}
    if _NAME.fullmatch(name) and _NAME.fullmatch(version):
        directory = f"{SITE}/{_normalized(name)}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        tree.add(f"{directory}/METADATA", regular(metadata.encode()))
        if groups:
            lines = [line for group, named in sorted(groups.items()) for line in (f"[{group}]", *_lines(named), "")]
            tree.add(f"{directory}/entry_points.txt", regular("\n".join(lines).encode()))
    return tree


def _as_written(name: str) -> str:
    return name


def _lines(named: Mapping[str, str]) -> list[str]:
    return [f"{name} = {target}" for name, target in sorted(named.items()) if "\n" not in f"{name}{target}"]


def _place(files: Tree, target: str, directory: str) -> str:
    """Return the directory of the image that has the module of an entry point, or an empty string.

    Several packages of a project may have modules of one name, so those below the package's own `directory` come first.
    """
    module = target.partition(":")[0].strip().replace(".", "/")
    found = [
        path.removesuffix(end)
        for path, _ in files
        for end in (f"{module}.py", f"{module}/__init__.py")
        if f"/{path}".endswith(f"/{end}")
    ]
    own = [] if directory == "." else [place for place in found if f"/{directory}/" in f"/{place}/"]
    return f"/{min(own or found, key=len)}".rstrip("/") or "/" if found else ""


def _scripts(named: Mapping[str, str], place: str = "", shared: Iterable[str] = ()) -> Tree:
    """Return console scripts, which look for modules in `place` first and in `shared` last."""
    tree = Tree()
    for name, target in named.items():
        match = _OBJECT.fullmatch(target)
        if match and _NAME.fullmatch(name):
            path = f"sys.path.insert(0, {place!r})\n" if place else ""
            path += "".join(f"sys.path.append({one!r})\n" for one in dict.fromkeys(shared) if one != place)
            first = match[2].partition(".")[0]
            text = _SCRIPT.format(path=path, module=match[1], first=first, attribute=match[2])
            tree.add(f"{BIN}/{name}", regular(text.encode(), 0o755))
    return tree
