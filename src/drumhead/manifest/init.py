"""Write the initial manifests of a project, with an explanation of each line."""

from __future__ import annotations

import getpass
import json
import re
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.manifest.project import NAME
from drumhead.manifest.run_yaml import RUNTIMES
from drumhead.records import version_fault

if TYPE_CHECKING:
    from pathlib import Path

COMMON = """\
    # OPTIONAL. Environment variables.
    # env:
    #   PORT: 8000
    # OPTIONAL. The directory to start in.
    # cwd: /
"""
TEMPLATES = {
    "native": """\
    # REQUIRED. The command to run. The project's root is / in the image.
    bootcmd: /hello
""",
    "node": """\
    # REQUIRED. The script to run. The project's root is / in the image. (Or shell: true for the interpreter alone.)
    main: /server.js
    # OPTIONAL. Arguments of the script, and of node itself.
    # args:
    #   - argument
    # node_args:
    #   - --max-old-space-size=64
""",
    "python": """\
    # REQUIRED. The script to run (or module: NAME, or shell: true). The project's root is / in the image.
    main: /main.py
    # OPTIONAL. Arguments of the script, and of python itself.
    # args:
    #   - argument
    # python_args:
    #   - -O
""",
}


def init_project(
    root: Path,
    *,
    name: str = "",
    title: str = "",
    author: str = "",
    version: str = "",
    require: tuple[str, ...] = (),
    runtime: str = "",
) -> list[Path]:
    """Write meta/package.yaml and, for a runtime, meta/run.yaml. Raises CONFLICT if one of them exists, USAGE."""
    if runtime and runtime not in RUNTIMES:
        raise DrumheadError(ErrorCode.USAGE, f"{runtime} is not a runtime; runtimes are {', '.join(RUNTIMES)}")
    directory = root.absolute().name.encode(errors="replace").decode()  # a name that is not UTF-8 has a ? instead
    if name and not NAME.fullmatch(name):
        raise DrumheadError(
            ErrorCode.USAGE, f"{name!r} is not a package name (letters and digits, with . _ + - / inside)"
        )
    if fault := version_fault(version):
        raise DrumheadError(ErrorCode.USAGE, fault)
    name = name or re.sub(r"[^A-Za-z0-9._+-]+", "-", directory).strip("-._+") or "project"
    title = title or directory or name
    lines = [f"name: {quote(name)}", f"title: {quote(title)}", f"author: {quote(author or _author())}"]
    lines += [f"version: {quote(version)}"] if version else []
    lines += ["require:", *(f"- {quote(package)}" for package in require)] if require else []
    texts = {"package.yaml": "\n".join(lines) + "\n"}
    if runtime:
        texts["run.yaml"] = run_template(runtime)
    files = {root / "meta" / file: text for file, text in texts.items()}
    for file in files:
        if file.exists():
            raise DrumheadError(ErrorCode.CONFLICT, f"{file} already exists; edit it, or delete it first")
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return list(files)


def _author() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without an account, as in many containers
        return "nobody"


def run_template(runtime: str) -> str:
    """Return a meta/run.yaml for `runtime`, with its keys explained. Raises USAGE."""
    if runtime not in TEMPLATES:
        raise DrumheadError(ErrorCode.USAGE, f"{runtime or 'it'} is not a runtime; runtimes are {', '.join(TEMPLATES)}")
    return (
        f"runtime: {runtime}\n\nconfig_set:\n  # Add as many named sets as you need.\n"
        f"  default:\n{TEMPLATES[runtime]}{COMMON}\n# OPTIONAL with one set. The set that runs by default.\n"
        "config_set_default: default\n"
    )


def quote(text: str) -> str:
    """Return `text` as a YAML scalar: plain if that is safe, otherwise quoted as in JSON."""
    plain = text and all(character.isalnum() or character in "._/@+-" for character in text) and text[0].isalnum()
    plain = plain and text.lower() != "null"
    return text if plain else json.dumps(text, ensure_ascii=False)
