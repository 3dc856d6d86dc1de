"""Read the dependencies in pyproject.toml: the standard tables and those of Poetry."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import msgspec

from drumhead.errors import DrumheadError, manifest_error, wrong_document
from drumhead.manifest.project_files import is_there, read_text
from drumhead.python.requirements import PYTHON, normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Record = TypeVar("Record")


class PoetrySpec(msgspec.Struct, frozen=True):
    """A dependency of Poetry that is given as a table. `python` and `platform` are conditions."""

    version: str = "*"
    markers: str = ""
    python: str = "*"
    platform: str = "*"
    optional: bool = False
    extras: list[str] = []
    git: str = ""
    path: str = ""

    @property
    def for_guest(self) -> bool:
        """Whether `python` and `platform` accept the guest's. A condition that cannot be read accepts all."""
        return fits(f"{PYTHON}.2", self.python) is not False and any(
            all(_is_platform(one.strip()) for one in choice.split(",")) for choice in self.platform.split("||")
        )


PoetrySpecs = str | PoetrySpec | list[str | PoetrySpec]


def specs_of(specs: PoetrySpecs) -> list[PoetrySpec]:
    """Return the requirements of one package that hold for the guest."""
    found = [
        spec if isinstance(spec, PoetrySpec) else PoetrySpec(version=spec)
        for spec in (specs if isinstance(specs, list) else [specs])
    ]
    return [spec for spec in found if spec.for_guest]


def fits(version: str, constraint: str) -> bool | None:
    """Return whether a version fits a constraint of Poetry (``^1.2``, ``>=1,<3 || ~4``); None if it cannot be read."""
    from semantic_version import SimpleSpec, Version  # noqa: PLC0415 - only Poetry's constraints need it

    choices = [re.sub(r"(?<=[\w*])\s+(?=[\d^~<>=!])", ",", choice.strip()) for choice in re.split(r"\|\|?", constraint)]
    try:
        known = Version.coerce(version)
        return any(SimpleSpec(choice.replace(" ", "")).match(known) for choice in choices)
    except ValueError:
        return None


def _is_platform(condition: str) -> bool:
    name = condition.lstrip("!= ")
    return name == "*" or (name == "linux") is not condition.startswith("!")


class BuildSystem(msgspec.Struct, frozen=True, rename="kebab"):
    """The table ``build-system``."""

    build_backend: str = ""


class ProjectTable(msgspec.Struct, frozen=True, rename="kebab"):
    """The table ``project`` (packaging.python.org, pyproject.toml specification)."""

    name: str = ""
    version: str = ""
    dependencies: list[str] = []
    optional_dependencies: dict[str, list[str]] = {}
    dynamic: list[str] = []
    requires_python: str = ""
    scripts: dict[str, str] = {}
    entry_points: dict[str, dict[str, str]] = {}

    @property
    def extras(self) -> dict[str, list[str]]:
        """The requirements of each extra, by its normal name."""
        return {normal_name(extra): texts for extra, texts in self.optional_dependencies.items()}


class PoetryGroup(msgspec.Struct, frozen=True, rename="kebab"):
    """A group of dependencies of Poetry, with the names of the groups that it includes."""

    dependencies: dict[str, PoetrySpecs] = {}
    include_groups: list[str] = []


class PoetryTable(msgspec.Struct, frozen=True, rename="kebab"):
    """The table ``tool.poetry`` (python-poetry.org/docs/pyproject)."""

    name: str = ""
    version: str = ""
    scripts: dict[str, object] = {}
    dependencies: dict[str, PoetrySpecs] = {}
    declared_extras: dict[str, list[str]] = msgspec.field(default={}, name="extras")
    package_mode: bool = True
    group: dict[str, PoetryGroup] = {}

    @property
    def extras(self) -> dict[str, list[str]]:
        """The packages of each extra, by its normal name."""
        return {normal_name(extra): packages for extra, packages in self.declared_extras.items()}

    @property
    def console_scripts(self) -> dict[str, str]:
        """The scripts that are entry points; others are files of the project."""
        return {name: target for name, target in self.scripts.items() if isinstance(target, str)}


class UvIndex(msgspec.Struct, frozen=True):
    """An index of packages (docs.astral.sh/uv, Package indexes)."""

    url: str
    name: str = ""
    default: bool = False
    format: str = "simple"


class UvSource(msgspec.Struct, frozen=True):
    """Where uv takes a package from, instead of an index."""

    path: str = ""
    workspace: bool = False


class UvPip(msgspec.Struct, frozen=True, rename="kebab"):
    """The table ``pip`` of uv's settings."""

    index_url: str = ""
    extra_index_url: list[str] = []
    find_links: list[str] = []


class UvTable(msgspec.Struct, frozen=True, rename="kebab"):
    """uv's settings in a project: the table ``tool.uv`` or the file uv.toml."""

    index: list[UvIndex] = []
    index_url: str = ""
    extra_index_url: list[str] = []
    find_links: list[str] = []
    pip: UvPip = UvPip()
    sources: dict[str, UvSource | list[UvSource]] = {}
    workspace: dict[str, object] = {}


class Tools(msgspec.Struct, frozen=True):
    """The table ``tool``."""

    poetry: PoetryTable = PoetryTable()
    uv: UvTable = UvTable()


class PyProject(msgspec.Struct, frozen=True, rename="kebab"):
    """A pyproject.toml."""

    project: ProjectTable = ProjectTable()
    tool: Tools = Tools()
    build_system: BuildSystem = BuildSystem()
    dependency_groups: dict[str, list[str | dict[str, str]]] = {}

    def groups(self, chosen: Iterable[str], file: str) -> tuple[list[str], list[PoetryGroup]]:
        """Return the requirements of the groups that package.yaml chooses and those that they include.

        They are those of the table ``dependency-groups``, and the groups of Poetry. Raises MANIFEST for a name that is
        no group of the pyproject.toml `file`.
        """
        standard = {normal_name(name): entries for name, entries in self.dependency_groups.items()}
        poetry = {normal_name(name): group for name, group in self.tool.poetry.group.items()}
        texts, tables = [], []
        todo, seen = list(map(normal_name, chosen)), set[str]()
        while todo:
            if (name := todo.pop()) in seen:
                continue
            seen.add(name)
            if name not in standard and name not in poetry:
                raise manifest_error(file, 1, f"it has no group {name}, which package.yaml names")
            for entry in standard.get(name, []):
                if isinstance(entry, str):
                    texts.append(entry)
                else:
                    todo += map(normal_name, entry.values())
            if name in poetry:
                tables.append(poetry[name])
                todo += map(normal_name, poetry[name].include_groups)
        return texts, tables


def read_pyproject(root: Path, name: str) -> PyProject:
    """Return the pyproject.toml of a project. Raises MANIFEST."""
    return convert(read_toml(root, name), PyProject, name)


def index_flags(root: Path, name: str) -> tuple[str, ...]:
    """Return flags of uv for the indexes in its settings for a file. A name lets uv find credentials in its
    environment. Raises MANIFEST.
    """
    uv, directory = _uv_settings(root, name)

    def place(url: str) -> str:
        return url if "://" in url else (root / directory / url).absolute().as_uri()

    flags = ["--default-index", place(uv.pip.index_url or uv.index_url)] if uv.pip.index_url or uv.index_url else []
    links = [*uv.find_links, *uv.pip.find_links]
    for one in uv.index:
        if one.format == "flat":
            links.append(one.url)
            continue
        named = f"{one.name}={place(one.url)}" if one.name else place(one.url)
        flags += ["--default-index" if one.default else "--index", named]
    flags += [word for url in (*uv.extra_index_url, *uv.pip.extra_index_url) for word in ("--index", place(url))]
    return (*flags, *(word for url in links for word in ("--find-links", place(url))))


def _uv_settings(root: Path, name: str) -> tuple[UvTable, str]:
    """Return the settings that uv reads for a file, and their directory: those that are nearest above it."""
    for directory in map(str, PurePosixPath(name).parents):
        settings, described = f"{directory}/uv.toml", f"{directory}/pyproject.toml"
        if is_there(root, settings):
            return convert(read_toml(root, settings), UvTable, settings, "settings of uv"), directory
        with suppress(DrumheadError):  # uv ignores a pyproject.toml that it cannot read
            tools = read_toml(root, described).get("tool") if is_there(root, described) else None
            if isinstance(tools, dict) and "uv" in tools:
                return convert(tools["uv"], UvTable, described), directory
    return UvTable(), "."


def check_poetry(project: PyProject, name: str) -> None:
    """Check that other tools than Poetry can resolve the dependencies. Raises MANIFEST."""
    poetry = project.tool.poetry
    for package, specs in poetry.dependencies.items():
        for spec in specs if isinstance(specs, list) else [specs]:
            if isinstance(spec, PoetrySpec) and (spec.git or spec.path):
                where = "version control" if spec.git else "a directory of this host"
                raise manifest_error(name, 1, f"{package} comes from {where} and has no hash; name a released version")
    if project.project.dependencies or not poetry.dependencies.keys() - {"python"}:
        return
    if not poetry.package_mode or not project.build_system.build_backend.startswith("poetry."):
        why = "package-mode is false" if not poetry.package_mode else "build-system does not name Poetry"
        raise manifest_error(
            name,
            1,
            f"only Poetry can resolve its dependencies, because {why}; write a lock with `poetry lock`",
        )


def check_workspace(project: PyProject, wanted: Iterable[str], name: str) -> None:
    """Check that no dependency is a member of a workspace of uv, which only uv can lock. Raises MANIFEST."""
    members = {
        normal_name(package)
        for package, sources in project.tool.uv.sources.items()
        if any(one.workspace for one in ([sources] if isinstance(sources, UvSource) else sources))
    }
    for one in wanted:
        package = re.split(r"[^A-Za-z0-9._-]", one.strip(), maxsplit=1)[0]
        if normal_name(package) in members:
            raise manifest_error(
                name, 1, f"{package} is in a workspace of uv, which has no uv.lock; write it with `uv lock`"
            )


LONG_KEY = re.compile(r"""(?:[\w"'-]+[ \t]*\.[ \t]*){64}""")
"""Keys with 64 or more parts are refused, because parsing takes time and memory that grow with their square."""


def read_toml(root: Path, name: str) -> dict[str, object]:
    """Return the tables of a TOML file of a project. Raises MANIFEST."""
    text = read_text(root, name)
    if LONG_KEY.search(text) is not None:
        raise manifest_error(name, 1, "a key has more than 64 parts")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise manifest_error(name, 1, f"it is not TOML: {error}") from error


def convert(document: object, kind: type[Record], name: str, what: str = "a valid pyproject.toml") -> Record:
    """Convert a document to a record and ignore unknown keys. Raises MANIFEST with the place of a wrong value."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise wrong_document(name, what, error) from error
