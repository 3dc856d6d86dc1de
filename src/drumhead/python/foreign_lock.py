"""Read the locks of Poetry and Pipenv as requirements with hashes."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

from drumhead.errors import manifest_error

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.manifest.records import PythonNeeds

PUBLIC_INDEX = re.compile(r"https?://pypi(\.python)?\.org/simple/?")


def read_pipfile_lock(file: Path, name: str) -> str:
    """Return the default packages of a Pipfile.lock as requirements with hashes. Raises MANIFEST."""
    try:
        document = json.loads(file.read_text())
        packages = document["default"]
        sources = {source["name"]: source["url"] for source in document.get("_meta", {}).get("sources", [])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise manifest_error(name, 1, f"it is not a lock of Pipenv ({error}); `pipenv lock` writes one") from error
    lines, indexes = [], set()
    for package, facts in sorted(packages.items()):
        if "version" not in facts:
            raise manifest_error(name, 1, f"{package} does not come from an index and has no hash; name a release")
        extras = f"[{','.join(facts['extras'])}]" if facts.get("extras") else ""
        requirement = f"{package}{extras}{facts['version']}"
        lines.append(_line(requirement, facts.get("markers", ""), facts.get("hashes", [])))
        indexes.add(sources.get(facts.get("index", ""), ""))
    return _text(lines, indexes)


def read_poetry_lock(root: Path, name: str, needs: PythonNeeds) -> str:
    """Return the packages that the main dependencies of a poetry.lock need, with hashes. Raises MANIFEST.

    Which dependencies are main ones is in the pyproject.toml beside it.
    """
    lock = _toml(root / name, name)
    project = name.replace("poetry.lock", "pyproject.toml")
    wanted = _roots(_toml(root / project, project), needs, project)
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in lock.get("package", []):
        packages.setdefault(_normal(package["name"]), []).append(package)
    lines, indexes = [], set()
    for package_name, marker in sorted(_walk(packages, wanted, name).items()):
        for package in packages[package_name]:
            source = package.get("source", {})
            if source.get("type", "legacy") != "legacy":
                raise manifest_error(
                    name, 1, f"{package_name} comes from {source['type']} and has no hash; name a released version"
                )
            indexes.add(source.get("url", ""))
            own = package.get("markers", "")
            files = package.get("files") or lock.get("metadata", {}).get("files", {}).get(package["name"], [])
            condition = own.get("main", "") if isinstance(own, dict) else own
            requirement = f"{package['name']}=={package['version']}"
            lines.append(_line(requirement, condition or marker, [one["hash"] for one in files]))
    return _text(lines, indexes)


def _roots(document: dict[str, Any], needs: PythonNeeds, file: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the main dependencies of a pyproject.toml: their names with a marker and extras."""
    project, poetry = document.get("project", {}), document.get("tool", {}).get("poetry", {})
    optional = project.get("optional-dependencies", {})
    extras = poetry.get("extras", {})
    chosen: set[str] = set()
    texts = list(project.get("dependencies", []))
    for extra in needs.extras:
        if extra not in optional and extra not in extras:
            raise manifest_error(file, 1, f"it has no extra {extra}, which package.yaml names")
        texts += optional.get(extra, [])
        chosen |= {_normal(one) for one in extras.get(extra, [])}
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for text in texts:
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;\s*(.*))?", text)
        if match:
            found[_normal(match[1])] = (match[3] or "", tuple(re.findall(r"[\w.-]+", match[2] or "")))
    for package, spec in poetry.get("dependencies", {}).items():
        name = _normal(package)
        first = spec if isinstance(spec, dict) else {}
        if name != "python" and (not first.get("optional") or name in chosen):
            found.setdefault(name, (first.get("markers", ""), tuple(first.get("extras", ()))))
    return found


def _walk(
    packages: dict[str, list[dict[str, Any]]], roots: dict[str, tuple[str, tuple[str, ...]]], file: str
) -> dict[str, str]:
    """Return every package that `roots` need, with the marker under which it is needed (empty: always)."""
    needed: dict[str, str] = {}
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    todo = [(name, marker, extras) for name, (marker, extras) in roots.items()]
    while todo:
        name, marker, extras = todo.pop()
        if name not in packages:
            raise manifest_error(file, 1, f"it does not have {name}; `poetry lock` writes it again")
        before = needed.get(name)
        needed[name] = marker if before is None else _either(before, marker)
        if (name, needed[name], extras) in seen or len(needed[name]) > 2000:
            continue
        seen.add((name, needed[name], extras))
        for package in packages[name]:
            for child, edge, asked in _edges(package, extras):
                todo.append((child, _both(needed[name], edge), asked))
    return needed


def _edges(package: dict[str, Any], extras: tuple[str, ...]) -> list[tuple[str, str, tuple[str, ...]]]:
    offered = {_normal(extra): names for extra, names in package.get("extras", {}).items()}
    optional = {
        _normal(re.split(r"[\s\[(<>=!~;]", text, maxsplit=1)[0])
        for extra in extras
        for text in offered.get(_normal(extra), [])
    }
    found = []
    for name, specs in package.get("dependencies", {}).items():
        for spec in specs if isinstance(specs, list) else [specs]:
            facts = spec if isinstance(spec, dict) else {}
            marker = facts.get("markers", "")
            if facts.get("optional") or "extra ==" in marker:
                if _normal(name) not in optional:
                    continue
                marker = ""
            found.append((_normal(name), marker, tuple(facts.get("extras", ()))))
    return found


def _either(one: str, other: str) -> str:
    if not one or not other:
        return ""
    return one if other in one else f"({one}) or ({other})"


def _both(one: str, other: str) -> str:
    if not one or not other or one == other:
        return one or other
    return f"({one}) and ({other})"


def _line(requirement: str, marker: str, hashes: list[str]) -> str:
    condition = f" ; {marker}" if marker else ""
    return " \\\n    ".join([requirement + condition, *(f"--hash={one}" for one in sorted(hashes))])


def _text(lines: list[str], indexes: set[str]) -> str:
    more = [f"--extra-index-url {url}" for url in sorted(indexes) if url and not PUBLIC_INDEX.fullmatch(url)]
    return "\n".join([*more, *lines]) + "\n"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _toml(path: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise manifest_error(name, 1, "it does not exist, but a poetry.lock belongs to it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise manifest_error(name, 1, f"it is not TOML: {error}") from error
