"""Read a Python project's dependencies as exact versions with hashes, from its lock file or resolved into one."""

from __future__ import annotations

import hashlib
import re
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead import host
from drumhead.errors import DrumheadError, ErrorCode, manifest_error

if TYPE_CHECKING:
    from drumhead.manifest.records import Project, PythonNeeds

PLATFORM = "x86_64-manylinux_2_36"
"""The guest has Debian 12's glibc 2.36, which also runs wheels for older versions."""
PYTHON = "3.11"
LOCK_FILES = ("requirements.lock", "pylock.toml", "uv.lock", "requirements.txt")
RESOLVED = "meta/requirements.lock"
RESOLVED_FROM = "# drumhead: resolved from "


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """Exact requirements. `text` is a requirements file with hashes, or a pylock.toml; `notice` is for the user."""

    file: str
    text: str
    notice: str = ""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def find_uv() -> str:
    """Return the uv program: the one installed with drumhead, else the host's. Raises HOST_TOOL."""
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - only projects with dependencies need it

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        if found := shutil.which("uv"):
            return found
    raise DrumheadError(ErrorCode.HOST_TOOL, "uv is needed to install Python packages; pip install uv")


def read_lock(project: Project, cache: Path) -> Lock | None:
    """Return the lock of a project, or None when it names no dependencies.

    It is the file named in package.yaml, one of LOCK_FILES, or meta/requirements.lock, into which pyproject.toml is
    resolved whenever its dependencies change. Raises MANIFEST for requirements without a hash.
    """
    root, needs = Path(project.root), project.package.python
    named = [needs.lock] if needs.lock else [name for name in LOCK_FILES if (root / name).is_file()]
    if not named:
        return _from_pyproject(root, needs, cache)
    name = named[0]
    if name.endswith("uv.lock"):
        return Lock(file=name, text=_export(root / name, needs))
    text = (root / name).read_text()
    if name.endswith(".toml"):
        _check_pylock(text, name)
    else:
        check_hashes(text, name)
    return Lock(file=name, text=text)


def check_hashes(text: str, file: str) -> None:
    """Refuse a requirements file that has a requirement without a hash or includes another file. Raises MANIFEST."""
    logical, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        logical, start = (logical + line, start) if logical else (line, number)
        if logical.endswith("\\"):
            logical = logical[:-1]
            continue
        words = re.sub(r"(^|\s)#.*", "", logical).strip()
        logical = ""
        if not words or words.startswith(("--index-url", "--extra-index-url", "-i ", "--only-binary", "--no-binary")):
            continue
        if words.startswith("-"):
            raise manifest_error(file, start, f"{words.split()[0]} is not supported; list exact versions with hashes")
        if "--hash=sha256:" not in words:
            raise manifest_error(
                file,
                start,
                f"{words.split()[0]} has no --hash=sha256:…; `uv pip compile --generate-hashes` or "
                "`pip-compile --generate-hashes` writes them",
            )


def _check_pylock(text: str, file: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise manifest_error(file, 1, f"it is not TOML: {error}") from error
    for package in document.get("packages", []):
        wheels = package.get("wheels", [])
        if not wheels or any("sha256" not in wheel.get("hashes", {}) for wheel in wheels):
            raise manifest_error(file, 1, f"{package.get('name', 'a package')} has no wheel with a SHA-256 hash")


def _export(lock: Path, needs: PythonNeeds) -> str:
    extras = [word for extra in needs.extras for word in ("--extra", extra)]
    command = [find_uv(), "export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--quiet"]
    return host.run([*command, "--project", lock.parent, *extras]).decode()


def _from_pyproject(root: Path, needs: PythonNeeds, cache: Path) -> Lock | None:
    file = root / "pyproject.toml"
    if not file.is_file():
        return None
    try:
        project = tomllib.loads(file.read_text()).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise manifest_error("pyproject.toml", 1, f"it is not TOML: {error}") from error
    optional = project.get("optional-dependencies", {})
    for extra in needs.extras:
        if extra not in optional:
            raise manifest_error("pyproject.toml", 1, f"it has no extra {extra}, which package.yaml names")
    wanted = [*project.get("dependencies", []), *(line for extra in needs.extras for line in optional[extra])]
    if not wanted:
        return None
    inputs = hashlib.sha256("\n".join([PLATFORM, PYTHON, *wanted]).encode()).hexdigest()
    resolved = root / RESOLVED
    if resolved.is_file() and resolved.read_text().startswith(RESOLVED_FROM + inputs):
        text = resolved.read_text()
        check_hashes(text, RESOLVED)
        return Lock(file=RESOLVED, text=text)
    text = f"{RESOLVED_FROM}{inputs}\n" + _resolve(file, needs, cache)
    resolved.write_text(text)
    return Lock(file=RESOLVED, text=text, notice=f"pyproject.toml was resolved into {RESOLVED}; keep that file")


def _resolve(file: Path, needs: PythonNeeds, cache: Path) -> str:
    extras = [word for extra in needs.extras for word in ("--extra", extra)]
    command: list[str | Path] = [find_uv(), "pip", "compile", file, "--generate-hashes", "--no-header", "--no-annotate"]
    target: list[str | Path] = ["--python-version", PYTHON, "--python-platform", PLATFORM, "--cache-dir", cache / "uv"]
    return host.run([*command, *target, *extras]).decode()
