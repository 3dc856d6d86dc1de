"""Read requirements files: whether every requirement has a hash, and which other files they include."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from drumhead.errors import manifest_error
from drumhead.manifest.project_files import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

PLATFORM = "x86_64-manylinux_2_36"
"""The platform of the guest: Debian 12's glibc 2.36, which also runs wheels for older versions."""
PYTHON = "3.11"
EDITABLE = re.compile(r"^(-e\s*|--editable[\s=]+)")
LOCAL = re.compile(r"(\S+\s*@\s*)?(file:|[./~])|[^\s@:]*/|[^\s@:]+\.(whl|zip|tar\.gz)(\s|$)")
"""Requirements that pip takes for a path: a ``file:`` URL, a path, or the name of an archive."""
SOURCES = re.compile(r"(^|@\s*)(git|hg|svn|bzr)\+")
OPTION = 2
"""The number of words on a line with an option. Further words would be another option or requirement."""
LINKS = ("--find-links", "-f ", "-f=")
JOINED = re.compile(r"-[rceif][^\s=]")
"""A short option and its value with nothing between them, which pip reads and uv does not."""
KEPT = ("--index-url", "--extra-index-url", "-i ", "--no-index", "--only-binary", "--no-binary", *LINKS)
"""Options that a lock needs for installing from it."""
ALLOWED = (*KEPT, "--prefer-binary", "--pre", "--require-hashes", "--trusted-host")
"""Options that a lock may have. pip-compile writes most of them; uv reads those that are kept."""
LOCAL_LINKS = re.compile(r"^[ \t]*(?:--find-links|-f)[ \t=]+(?!\w[\w+.-]*:)(\S+)", re.MULTILINE)
"""A directory with wheels, or a page that links them, given by its path from the file that names it."""
LOCAL_FILE = re.compile(
    r"^(?P<name>[\w.-]+(?:\[[^\]]*\])?[ \t]*@[ \t]*)?(?:file:)?"
    r"(?P<path>[^\s:@;/~-][^\s:@;]*\.(?:whl|zip|tar\.gz))(?=[\s;]|$)",
    re.MULTILINE,
)
"""A requirement that is a wheel or a source distribution, given by its path from the file that names it."""
FILE_LINKS = re.compile(r"(?:--find-links|-f)[ \t=]+file:")


def normal_name(name: str) -> str:
    """Return the name of a Python package or of an extra as installers compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each requirement or option with its first line. Comments and line continuations are removed."""
    logical, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        logical, start = (logical + line, start) if logical else (line, number)
        if logical.endswith("\\"):
            logical = logical[:-1]
            continue
        words = re.sub(r"(^|\s)#.*", "", logical).strip()
        logical = ""
        if words:
            yield start, words


def has_hashes(text: str) -> bool:
    """Return whether a requirements file is meant as a lock: whether any of its requirements has a hash."""
    return any("--hash=" in words for _, words in requirement_lines(text))


def check_hashes(text: str, file: str) -> None:
    """Check that every requirement has a hash and that no other file is included. Raises MANIFEST."""
    for line, words in requirement_lines(text):
        if words.startswith(ALLOWED) and len(words.replace("=", " ").split()) <= OPTION:
            continue
        if words.startswith("-"):
            raise manifest_error(file, line, f"{words.split()[0]} is not supported; list exact versions with hashes")
        if "--hash=sha256:" not in words:
            raise manifest_error(file, line, f"{words.split()[0]} has no --hash=sha256:…; {lock_advice(file)}")


def lock_advice(file: str) -> str:
    """Return a sentence with the command that writes a lock for a requirements file."""
    source = file if file.endswith("requirements.txt") else "requirements.txt"
    command = (
        f"uv pip compile --generate-hashes --python-version {PYTHON} --python-platform {PLATFORM} "
        f"{source} -o requirements.lock"
    )
    return f"`{command}` writes a lock with hashes, and so does drumhead if no line of {source} has one"


def kept_options(texts: Mapping[str, str], directory: str) -> list[str]:
    """Return the lines of requirements files (by path) that say where packages come from, each once and as written.

    Paths start from `directory`, that of the lock.
    """
    lines = []
    for file, text in texts.items():
        for _, words in requirement_lines(text):
            if match := LOCAL_LINKS.match(words):
                place = posixpath.relpath(posixpath.join(posixpath.dirname(file), match[1]), directory or ".")
                lines.append(f"--find-links {place}")
            elif words.startswith(KEPT):
                lines.append(words)
    return list(dict.fromkeys(lines))


def linked_files(root: Path, file: str, text: str) -> list[str]:
    """Return the paths of the files in the directories with wheels that a requirements file names.

    Raises MANIFEST for one outside the project.
    """
    found = []
    for line, words in requirement_lines(text):
        match = LOCAL_LINKS.match(words)
        if not match and not FILE_LINKS.match(words):
            continue
        place = root / posixpath.dirname(file) / match[1] if match else None
        if place is None or not (place.exists() and place.resolve().is_relative_to(root.resolve())):
            raise manifest_error(file, line, "it names no directory of the project; put the wheels into the project")
        found += sorted(str(path.relative_to(root)) for path in place.glob("*"))
    return found


def with_places(text: str, directory: Path) -> str:
    """Return a requirements file with the paths of its wheels, and of directories with wheels, as URLs of this host."""
    text = LOCAL_FILE.sub(lambda match: f"{match['name'] or ''}{(directory / match['path']).resolve().as_uri()}", text)
    return LOCAL_LINKS.sub(lambda match: f"--find-links {(directory / match[1]).resolve().as_uri()}", text)


def check_resolvable(
    text: str, file: str, *, first: int = 1, is_local: Callable[[str], bool] = lambda _requirement: False
) -> None:
    """Check that every requirement can have a hash, or is part of the project by `is_local`.

    `text` begins at line `first` of the file. Raises MANIFEST.
    """
    for line, words in ((first - 1 + number, words) for number, words in requirement_lines(text)):
        wanted = EDITABLE.sub("", words)
        if SOURCES.search(wanted):
            raise manifest_error(
                file, line, f"{wanted.split()[0]} comes from version control and has no hash; name a released version"
            )
        if JOINED.match(words):
            raise manifest_error(file, line, f"write a blank after {words[:2]}; uv, which reads the file, needs one")
        if words.startswith("-") and any(word.startswith("-") for word in words.split()[1:]):
            raise manifest_error(file, line, "it has several options; give each one a line of its own")
        if (wanted != words or (not words.startswith("-") and LOCAL.match(words))) and not is_local(words):
            raise manifest_error(
                file,
                line,
                f"{words} is a file of this host, or a directory that is no Python package of the project; "
                "name the packages that are needed from it instead",
            )


def included_files(root: Path, name: str, *, constraints: bool = True) -> dict[str, str]:
    """Return the texts of a requirements file and those that it includes with -r or -c, by path. Raises MANIFEST.

    Without `constraints`, leave out those that it includes with -c.
    """
    found: dict[str, str] = {}
    todo = [(name, name, 1)]
    while todo:
        path, by, line = todo.pop()
        if path in found:
            continue
        found[path] = read_text(root, path, (by, line))
        for number, words in requirement_lines(found[path]):
            include = re.match(r"(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)", words)
            if include and "://" in include[1] and words.startswith(("-r", "--requirement")):
                raise manifest_error(path, number, f"{include[1]} is not a file of the project")
            if include and "://" not in include[1] and (constraints or words.startswith(("-r", "--req"))):
                directory = path.rpartition("/")[0]
                todo.append((f"{directory}/{include[1]}" if directory else include[1], path, number))
    return found
