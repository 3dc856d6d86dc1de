"""Find Python's modules in an image, as its interpreter looks for them.

Where something may change the path that cannot be seen here, such as a .pth file of a package, nothing is refused.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import sys
from typing import TYPE_CHECKING

from drumhead.closure import follow
from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from drumhead.closure import Index
    from drumhead.records import Command

INTERPRETER = re.compile(r"python3\.[0-9]+")
STARTED = (".py", ".pyc", "/__main__.py", "/__main__.pyc")
"""What ``python -m`` runs of a module, after its path."""
IMPORTED = (".py", ".pyc", "/__init__.py", "/__init__.pyc")
PACKAGE = ("/__init__.py", "/__init__.pyc")
ELSEWHERE = ("PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONUSERBASE")
"""Variables that change where Python looks for its own modules."""


def search_path(program: str, options: Sequence[str], command: Command) -> list[str]:
    """Return the directories in which ``python -m`` looks for modules; none where that cannot be known.

    `program` is the path of the interpreter, `options` are its own.
    """
    version = posixpath.basename(program)
    if not INTERPRETER.fullmatch(version) or any(name in command.env for name in ELSEWHERE):
        return []
    letters = {letter for option in options if not option.startswith(("--", "-W", "-X")) for letter in option[1:]}
    own = [] if letters & {"I", "P"} or "PYTHONSAFEPATH" in command.env else [command.cwd]
    if not letters & {"I", "E"}:
        named = command.env.get("PYTHONPATH", "").split(":")
        own += [posixpath.join(command.cwd, directory) for directory in named if directory]
    standard = [f"/usr/lib/{version}", f"/usr/lib/{version}/lib-dynload"]
    return [*own, *standard, *([] if "S" in letters else _site(version))]


def _site(version: str) -> list[str]:
    return ["/usr/lib/python3/dist-packages", f"/usr/local/lib/{version}/dist-packages"]


def module_fault(index: Index, path: Sequence[str], module: str) -> str:
    """Return why ``python -m MODULE`` cannot start, as the end of a sentence; empty where it can, or may."""
    place = module.replace(".", "/")
    path = [*path, *_named_by_pth(index, path)]
    if not path or _any(index, path, place, STARTED) or _is_changed(index, path):
        return ""
    if _any(index, path, place, PACKAGE):
        return f"the package {module}, which has no __main__.py; name a module of it, or add that file"
    ends = tuple(f"/{place}{end}" for end in STARTED)
    found = next((f"/{one}" for one in index if f"/{one}".endswith(ends)), "")
    if found:
        directory = next(found.removesuffix(end) for end in ends if found.endswith(end)) or "/"
        return (
            f"the module {module}, which is in {directory}, where Python does not look; add cwd: {directory}, or env: "
            f"{{PYTHONPATH: {directory}}}"
        )
    return f"the module {module}, which is not in the image; correct its name, or add it to the project or its lock"


def check_warm(index: Index, warm: Iterable[str], shared: Command) -> None:
    """Check that a snapshot can import its modules. `shared` is what all config sets share. Raises INCOMPLETE."""
    path = search_path(follow(index, "/usr/bin/python3"), (), shared)
    path += _named_by_pth(index, path)
    for module in warm:
        if path and not _may_import(index, path, module) and not _is_changed(index, path):
            raise DrumheadError(
                ErrorCode.INCOMPLETE,
                f"warm names the module {module}, which is not in the image where all config sets look; remove it from "
                "meta/run.yaml, or give all config sets the same cwd and PYTHONPATH",
            )


def _may_import(index: Index, path: Sequence[str], module: str) -> bool:
    """Tell whether a module can be imported, or may be made by a module above it, as os.path is."""
    parts = module.split(".")
    if parts[0] in sys.builtin_module_names:
        return True
    for count in range(len(parts), 0, -1):
        place = "/".join(parts[:count])
        if _any(index, path, place, IMPORTED) or _is_library(index, path, place):
            return count == len(parts) or not _any(index, path, place, PACKAGE)
    return any(follow(index, posixpath.join(directory, "/".join(parts))) for directory in path)  # without __init__.py


def _is_library(index: Index, path: Sequence[str], place: str) -> bool:
    """Tell whether a module is a shared library: ``_ssl.cpython-311-x86_64-linux-gnu.so``."""
    starts = tuple(posixpath.join(directory, place).lstrip("/") + "." for directory in path)
    return any(name.endswith(".so") and name.startswith(starts) for name in index)


def _any(index: Index, path: Sequence[str], place: str, ends: Iterable[str]) -> bool:
    return any(follow(index, posixpath.join(directory, place) + end) for directory in path for end in ends)


def _is_changed(index: Index, path: Sequence[str]) -> bool:
    """Tell whether there are modules that cannot be seen: in an archive, or where a .pth file says."""
    archives = any((node := index.get(follow(index, directory))) and node.kind == "file" for directory in path)
    known = {_line_digest(directory) for directory in path}
    return archives or not known.issuperset(_pth_digests(index, path))


def _named_by_pth(index: Index, path: Sequence[str]) -> list[str]:
    """Return the directories that .pth files of one line name, such as those for the project (python.distribution)."""
    wanted = _pth_digests(index, path)
    directories = {posixpath.dirname(name) for name in index} if wanted else set()
    return sorted(f"/{directory}" for directory in directories if _line_digest(f"/{directory}") in wanted)


def _pth_digests(index: Index, path: Sequence[str]) -> set[str]:
    site = tuple(directory.lstrip("/") for directory in path if directory.endswith("dist-packages"))
    return {node.digest for name, node in index.items() if name.endswith(".pth") and posixpath.dirname(name) in site}


def _line_digest(directory: str) -> str:
    """Return the digest of a file with this line; an index has no contents of files."""
    return hashlib.sha256(f"{directory}\n".encode()).hexdigest()
