"""Find the exact versions and hashes of a Python project's dependencies, in a lock file or by resolving with uv."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from contextlib import suppress
from itertools import takewhile
from pathlib import Path, PurePosixPath
from textwrap import dedent
from typing import TYPE_CHECKING, Any, cast

import msgspec

from drumhead import host
from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode, manifest_error
from drumhead.manifest.ignore import ALWAYS
from drumhead.manifest.project_files import is_there, read_text
from drumhead.python.foreign.pipenv import read_pipfile_lock
from drumhead.python.foreign.poetry import read_poetry_lock
from drumhead.python.foreign.pylock import read_pylock
from drumhead.python.local import (
    descriptions,
    files_of_backends,
    leave_out_local,
    local_directory,
    local_file,
    local_files,
    local_notice,
)
from drumhead.python.pyproject import (
    PyProject,
    UvSource,
    check_poetry,
    check_workspace,
    convert,
    index_flags,
    read_toml,
)
from drumhead.python.requirements import (
    PLATFORM,
    PYTHON,
    check_hashes,
    check_resolvable,
    has_hashes,
    included_files,
    kept_options,
    linked_files,
    normal_name,
)
from drumhead.python.stale import check_uv_lock, stale_notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drumhead.manifest.records import Project, PythonNeeds

RESOLVED = "requirements.lock"
RESOLVED_FROM = "# drumhead: resolved from "
LEFT_OUT = "# drumhead: a package of the project: "
FILES = (
    RESOLVED,
    "pylock.toml",
    "uv.lock",
    "poetry.lock",
    "Pipfile.lock",
    "requirements.txt",
    "pyproject.toml",
    "Pipfile",
)
"""The files in which dependencies are searched for. The first one that has any is used."""
NEWER_PYTHON = "hint: The `--python-version` value"
"""How uv's hint begins if only a newer Python has a solution."""
MAX_ERROR = 3
"""How many lines of a build backend's error are shown."""


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """Exact requirements. `text` is a requirements file with hashes or a pylock.toml.

    `indexes` are flags of uv that say where the packages come from. Paths in the text start from `directory` of this
    host. `notice` is for the user. `local` are directories of the project with packages, whose files are not installed.
    """

    file: str
    text: str
    notice: str = ""
    indexes: tuple[str, ...] = ()
    directory: str = ""
    local: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def find_uv() -> str:
    """Return the path of uv: the one installed with drumhead, or else the host's. Raises HOST_TOOL."""
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - only projects with dependencies need it

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        if found := shutil.which("uv"):
            return found
    raise DrumheadError(ErrorCode.HOST_TOOL, "uv is needed to install Python packages; pip install uv")


def why_uv_failed(output: str) -> str:
    """Return why uv failed. Keep only the error at the end of what a build backend printed, and no hint about a flag
    that drumhead gives.
    """
    told, printed, _ = output.partition("[std")
    if not printed:
        told, newer, _ = output.partition(NEWER_PYTHON)
        return host.joined(told) + (f" The image has Python {PYTHON}; choose versions that run on it" if newer else "")
    said = output.partition("[stderr]")[2] or output.partition("[stdout]")[2]
    lines = dedent(said.partition("hint: ")[0].lstrip("\n")).rstrip().splitlines()
    error = list(takewhile(lambda line: not line.startswith(" "), reversed(lines[-MAX_ERROR:])))
    source = re.search(r"Failed to build `([\w.-]+==\S+)`", told)
    advice = f"; {source[1]} has no wheel for the guest, so choose a version with a wheel" if source else ""
    return host.joined("\n".join([f"{told.rstrip()}:", *(error or lines[-1:])[::-1]])) + advice


def read_lock(project: Project, cache: Path) -> Lock | None:
    """Return the lock of a project, or None if it has no dependencies.

    It is the file named in package.yaml, or the first of FILES. A plain requirements.txt or pyproject.toml is resolved
    into requirements.lock whenever its dependencies change. Raises MANIFEST for a requirement that cannot have a hash.
    """
    root, needs = Path(project.root), project.package.python
    for name in [needs.lock] if needs.lock else FILES:
        if not is_there(root, name):
            continue
        if name == RESOLVED and read_text(root, name).startswith(RESOLVED_FROM) and _source(root):
            continue  # it was resolved from another file, which may have changed
        if lock := _read(root, name, needs, cache):
            notices = [lock.notice, *_unused(name, needs)]
            return msgspec.structs.replace(lock, notice="; ".join(filter(None, notices)))
    return None


def _unused(name: str, needs: PythonNeeds) -> list[str]:
    """Return a notice if package.yaml chooses extras or groups that a file with dependencies does not know."""
    kind = name.rpartition("/")[2]
    unused = {"extras": needs.extras} if kind not in {"pyproject.toml", "uv.lock", "poetry.lock"} else {}
    if unused and kind != "Pipfile.lock":
        unused["groups"] = needs.groups
    words = " and ".join(word for word, chosen in unused.items() if chosen)
    return [f"{name} has no {words}, so those in meta/package.yaml were ignored"] if words else []


def _source(root: Path) -> str:
    """Return the name of the file that is read, or resolved, if there is no requirements.lock; empty if none is."""
    return next((name for name in FILES[1:] if is_there(root, name)), "")


def _read(root: Path, name: str, needs: PythonNeeds, cache: Path) -> Lock | None:
    match name.rpartition("/")[2]:
        case "uv.lock":
            return _from_uv(root, name, needs)
        case "poetry.lock":
            return _checked(root, name, *read_poetry_lock(root, name, needs))
        case "Pipfile.lock":
            return _checked(root, name, *read_pipfile_lock(root, name, needs))
        case "Pipfile":
            raise manifest_error(name, 1, "it has no Pipfile.lock beside it; `pipenv lock` writes one")
        case "pyproject.toml":
            return _from_pyproject(root, name, needs, cache)
        case _:
            return _from_text(root, name, needs, cache)


def _checked(root: Path, name: str, text: str, local: list[str]) -> Lock:
    """Return the lock of another tool, without the directories of the project in `local`, after checking that every
    line is a requirement with a hash.
    """
    _check(root, name, text)
    directory = str((root / name).parent)
    return Lock(file=name, text=text, directory=directory, notice=local_notice(local), local=tuple(local))


def _check(root: Path, name: str, text: str) -> None:
    """Check that every requirement of a lock has a hash, and that its files are in the project. Raises MANIFEST."""
    check_hashes(text, name)
    linked_files(root, name, text)
    local_files(root, name.rpartition("/")[0], text, name)


def _from_text(root: Path, name: str, needs: PythonNeeds, cache: Path) -> Lock | None:
    """Read a pylock.toml or a requirements file. Resolve the latter if no requirement has a hash."""
    text = read_text(root, name)
    if name.endswith(".toml"):
        text, left_out = read_pylock(root, name)
        notices = (stale_notice(root, name, text, needs), local_notice(left_out))
        return Lock(file=name, text=text, notice="; ".join(filter(None, notices)), local=tuple(left_out))
    indexes, directory = index_flags(root, name), name.rpartition("/")[0]
    if not name.endswith(".lock") and not has_hashes(text):
        files = included_files(root, name)
        linked = [path for file in files for path in linked_files(root, file, files[file])]
        linked += [path for file in files for path in local_files(root, directory, files[file], file)]
        local: set[str] = set()
        for file, contents in files.items():
            check_resolvable(contents, file, is_local=lambda words: _note_local(root, name, words, local))
        if not any(not line.lstrip().startswith("#") and line.strip() for line in text.splitlines()):
            return None
        inputs = [f"{file}\n{files[file]}" for file in sorted(files)]
        inputs += [*linked, *(text for place in sorted(local) for text in descriptions(root, place))]
        options = kept_options(files, directory)
        return _resolved(root, name, inputs, cache, options=options, indexes=indexes, builds=bool(local))
    if name == RESOLVED and not has_hashes(text) and (source := _source(root)):
        again = f"or rename it, and drumhead resolves {source} into a file of this name"
        raise manifest_error(name, 1, f"no requirement has a hash; write it again with --generate-hashes, {again}")
    _check(root, name, text)
    notice = stale_notice(root, name, text, needs)
    return Lock(file=name, text=text, notice=notice, indexes=indexes, directory=str(root / directory))


def _note_local(root: Path, name: str, requirement: str, local: set[str]) -> bool:
    """Add the directory that a requirement names to `local`; return whether it is one, or a wheel, of the project."""
    base = name.rpartition("/")[0]
    place = local_directory(root, base, requirement)
    if place is not None:
        local.add(place)
    return place is not None or local_file(root, base, requirement) is not None


def _from_uv(root: Path, name: str, needs: PythonNeeds) -> Lock:
    beside = name.replace("uv.lock", "pyproject.toml")
    if not is_there(root, beside):
        raise manifest_error(beside, 1, "it does not exist, but a uv.lock belongs to it")
    for read in (name, beside):  # check the files before uv reads them
        read_text(root, read)
    stale = check_uv_lock(root, name, needs)
    command = [find_uv(), "export", "--frozen", "--no-emit-project", "--no-header", "--quiet"]
    command += [] if "dev" in needs.groups else ["--no-dev"]
    text = host.run([*command, "--project", (root / name).parent, *_chosen(needs)]).decode()
    text, local = leave_out_local(text, root, name.rpartition("/")[0], name)
    _check(root, name, text)
    return Lock(
        file=name,
        text=text,
        directory=str((root / name).parent),
        notice="; ".join(filter(None, (stale, local_notice(local)))),
        indexes=index_flags(root, beside),
        local=tuple(local),
    )


def _chosen(needs: PythonNeeds) -> list[str]:
    """Return flags of uv for the extras and groups of package.yaml."""
    words = [word for extra in needs.extras for word in ("--extra", extra)]
    return words + [word for group in needs.groups for word in ("--group", group)]


def _from_pyproject(root: Path, name: str, needs: PythonNeeds, cache: Path) -> Lock | None:
    table = read_toml(root, name)
    document = convert(table, PyProject, name)
    project, poetry = document.project, document.tool.poetry
    optional = project.extras | poetry.extras
    for extra in needs.extras:
        if normal_name(extra) not in optional and "optional-dependencies" not in project.dynamic:
            raise manifest_error(name, 1, f"it has no extra {extra}, which package.yaml names")
    wanted = [*project.dependencies, *(line for extra in needs.extras for line in optional.get(normal_name(extra), []))]
    of_groups, only_poetrys = document.groups(needs.groups, name)
    if only_poetrys:
        raise manifest_error(name, 1, "only Poetry can resolve its groups; write a lock with `poetry lock`")
    wanted += of_groups
    text = read_text(root, name)
    for one in wanted:
        check_resolvable(one, name, first=text.count("\n", 0, max(text.find(one), 0)) + 1)
    check_poetry(document, name)
    check_workspace(document, wanted, name)
    extras = tuple(_chosen(needs))
    builds = "dependencies" in project.dynamic or (bool(needs.extras) and "optional-dependencies" in project.dynamic)
    if builds:
        extras = (*extras, "--refresh")  # uv keeps what a backend said until pyproject.toml changes
        wanted += [text, *files_of_backends(root, name.rpartition("/")[0], table)]  # the build backend decides
    if poetry.dependencies:
        described = cast("Any", table)["tool"]["poetry"]["dependencies"]
        wanted += [f"{one} {json.dumps(spec, default=str)}" for one, spec in described.items() if one != "python"]
    if not wanted:
        return None
    wanted += _local_sources(root, name, document)
    return _resolved(root, name, wanted, cache, extras=extras, indexes=index_flags(root, name), builds=builds)


def _local_sources(root: Path, name: str, document: PyProject) -> list[str]:
    """Return the descriptions of the packages that uv takes from directories of the project, and its wheels."""
    found, base = [], name.rpartition("/")[0]
    for sources in document.tool.uv.sources.values():
        for source in [sources] if isinstance(sources, UvSource) else sources:
            place = local_directory(root, base, source.path) if source.path else None
            found += local_files(root, base, source.path, name) if place is None else descriptions(root, place)
    return found


def _settings(root: Path, name: str) -> list[str]:
    """Return uv's settings in the project (constraints, overrides, indexes), which decide what it resolves a file to.

    uv reads uv.toml, or the table ``tool.uv``, in the directory of the file or above it.
    """
    found = []
    for directory in PurePosixPath(name).parents:
        settings, described = str(directory / "uv.toml"), str(directory / "pyproject.toml")
        if is_there(root, settings):
            found.append(read_text(root, settings))
        with suppress(DrumheadError):  # uv ignores a pyproject.toml that is not one, unless it resolves it
            tools = read_toml(root, described).get("tool") if is_there(root, described) else None
            if isinstance(tools, dict) and (table := tools.get("uv")):
                found.append(json.dumps(table, sort_keys=True, default=str))
    return found


def _resolved(
    root: Path,
    name: str,
    inputs: list[str],
    cache: Path,
    *,
    extras: tuple[str, ...] = (),
    options: Sequence[str] = (),
    indexes: tuple[str, ...] = (),
    builds: bool = False,
) -> Lock:
    """Return the existing lock if it was resolved from `inputs` and uv's settings of today, or resolve now.

    Versions of the old lock that still fit are kept, as uv does with its output file. `options` are lines for the lock.
    `builds` means that a build backend may be asked for dependencies. Raises HOST_TOOL with uv's message.
    """
    kept = ["options", *options] if options else []
    parts = [PLATFORM, PYTHON, *extras, *kept, *inputs, *_settings(root, name)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    file = (root / name).parent / RESOLVED
    shown = file.relative_to(root).as_posix()
    old = read_text(root, shown) if is_there(root, shown) else ""
    if old.startswith(RESOLVED_FROM + digest):
        _check(root, shown, old)
        local = [line.removeprefix(LEFT_OUT) for line in old.splitlines() if line.startswith(LEFT_OUT)]
        return Lock(file=shown, text=old, indexes=indexes, directory=str(file.parent), local=tuple(local))
    if old and not old.startswith(RESOLVED_FROM):
        raise manifest_error(
            shown, 1, f"drumhead did not write it, and {name} is resolved into a file of this name; rename it"
        )
    resolved = _resolve(root / name, old, extras, cache, builds=builds)
    resolved, local = leave_out_local(resolved, root, name.rpartition("/")[0], name)
    text = "\n".join([f"{RESOLVED_FROM}{digest} ({name})", *(LEFT_OUT + place for place in local), *options, resolved])
    _check(root, shown, text)
    _write(file, text, name)
    made = f"{name} was resolved into {shown}, with hashes; it is used until {name} changes, so keep that file"
    notice = "; ".join([made, *filter(None, [local_notice(local)])])
    return Lock(file=shown, text=text, notice=notice, indexes=indexes, directory=str(file.parent), local=tuple(local))


def _write(file: Path, text: str, name: str) -> None:
    try:
        with replacing(file) as temporary:
            temporary.write_text(text)
    except OSError as error:
        raise DrumheadError(
            ErrorCode.USAGE, f"{name} was resolved, but {file} cannot be written: {error.strerror}"
        ) from error


def _resolve(file: Path, old: str, extras: tuple[str, ...], cache: Path, *, builds: bool) -> str:
    command: list[str | Path] = [find_uv(), "pip", "compile", file.name, "--quiet", "--generate-hashes", "--no-header"]
    target: list[str | Path] = ["--python-version", PYTHON, "--python-platform", PLATFORM, "--cache-dir", cache / "uv"]
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / RESOLVED
        output.write_text(old)
        place = _without_manifests(file, Path(scratch) / "project") if builds else file.parent
        host.run(
            [*command, "--no-annotate", *target, *extras, "--output-file", output], cwd=place, reason=why_uv_failed
        )
        return output.read_text()


def _without_manifests(file: Path, place: Path) -> Path:
    """Make a directory with the file and links to what is beside it, without the directories of drumhead.

    setuptools takes ``meta`` for a package, and refuses a project with more than one. What it writes stays in `place`.
    """
    place.mkdir()
    for path in file.parent.iterdir():
        if path.name == file.name:
            shutil.copyfile(path, place / path.name)  # uv would follow a link
        elif f"/{path.name}" not in ALWAYS or path.name == ".git":
            (place / path.name).symlink_to(path.absolute())
    return place
