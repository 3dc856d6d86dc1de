"""Read a project: meta/package.yaml and meta/run.yaml."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode, manifest_error
from drumhead.manifest.permissions import read_permissions
from drumhead.manifest.project_files import is_there
from drumhead.manifest.records import PackageManifest, Project, PythonNeeds
from drumhead.manifest.run_yaml import read_run
from drumhead.manifest.yaml_reader import Section, read_yaml
from drumhead.records import version_fault

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE_FILE = "meta/package.yaml"
RUN_FILE = "meta/run.yaml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]*")
PACKAGE_KEYS = ("name", "title", "author", "version", "require", "guest", "kernel", "files", "permissions", "python")
CAPSTAN_ONLY = ("binary", "created", "platform")
"""Keys of Capstan that have no effect here."""


def read_project(root: Path) -> Project:
    """Read the project in the directory `root`, which may be a link to it.

    Raises MANIFEST with file, line and reason, and NOT_FOUND if there is no package.yaml.
    """
    for wanted in (PACKAGE_FILE, RUN_FILE):
        short = wanted.replace(".yaml", ".yml")
        if is_there(root, short) and not is_there(root, wanted):
            raise manifest_error(short, 1, f"it is not read under this name; rename it to {wanted}")
    if not is_there(root, PACKAGE_FILE):
        raise DrumheadError(
            ErrorCode.NOT_FOUND,
            f"{root / PACKAGE_FILE} does not exist; `drumhead package init {root}` writes one",
        )
    root = root.resolve()  # a link among the files of a project goes into the image as a link
    section = read_yaml(root, PACKAGE_FILE, "package.yaml")
    notices = list(section.known(*PACKAGE_KEYS, *CAPSTAN_ONLY))
    package = _package(section, root)
    run = None
    if is_there(root, RUN_FILE):
        run, more = read_run(read_yaml(root, RUN_FILE, "run.yaml"))
        notices += more
    return Project(root=str(root), package=package, run=run, notices=tuple(notices))


def _package(section: Section, root: Path) -> PackageManifest:
    name = section.text("name")
    if not NAME.fullmatch(name) or ".." in name:
        raise section.refuse(
            "name", f"{name!r} is not a package name (letters and digits, with . _ + - / between them)"
        )
    guest = section.text("guest", "linux")
    if guest not in {"linux", "osv"}:
        raise section.refuse("guest", f"guest must be linux or osv, not {guest}")
    for required, line in section.located_texts("require"):
        wanted, at, version = required.partition("@")
        if not NAME.fullmatch(wanted) or (at and not version):
            raise manifest_error(section.file, line, f"{required!r} is not a package (NAME or NAME@VERSION)")
    version = section.text("version", "")
    if fault := version_fault(version):
        raise section.refuse("version", fault)
    return PackageManifest(
        name=name,
        title=section.text("title"),
        author=section.text("author"),
        version=version,
        require=section.texts("require"),
        guest="osv" if guest == "osv" else "linux",
        kernel=section.text("kernel", ""),
        files=_files(section, root),
        permissions=read_permissions(section),
        python=_python(section, root),
    )


def _files(section: Section, root: Path) -> dict[str, str]:
    """Read ``files`` (path in the image → existing path in the project). Neither path may lead outside."""
    files = section.pairs("files")
    inside = section.section("files", "files")
    for place, source in files.items():
        if not place.startswith("/") or ".." in PurePosixPath(place).parts:
            raise inside.refuse(place, f"{place} must be a path from the image's root (/srv/app)")
        if not is_inside(root, source):
            raise inside.refuse(place, f"{source or 'it'} is not a file or directory of the project")
        if not place.strip("/") and ((root / source).is_symlink() or not (root / source).is_dir()):
            raise inside.refuse(place, f"{source} is a file or a link, and only a directory can be the image's root")
    return files


def _python(section: Section, root: Path) -> PythonNeeds:
    python = section.section("python", "python")
    for notice in python.known("lock", "extras", "groups", "sources"):
        raise python.refuse(notice.split(": ")[1].split(" ")[0], "python has the keys lock, extras, groups and sources")
    lock = python.text("lock", "")
    if lock and not (is_inside(root, lock) and (root / lock).is_file()):
        raise python.refuse("lock", f"{lock} is not a file of the project")
    extras, groups = python.texts("extras"), python.texts("groups")
    return PythonNeeds(lock=lock, extras=extras, groups=groups, sources=python.flag("sources"))


def is_inside(root: Path, path: str) -> bool:
    """Return whether a path exists and is inside the project after following the links among its components.

    A project may be untrusted, and a link in it must not bring files of this host into an image. The last component
    may itself be a link, because it goes into the image as a link.
    """
    if not path or path.startswith("/") or ".." in PurePosixPath(path).parts:
        return False
    place = root / path
    try:
        place.lstat()
        return (place.parent if place.is_symlink() else place).resolve(strict=True).is_relative_to(root.resolve())
    except OSError:
        return False
