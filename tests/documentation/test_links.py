"""Test that the targets of all links in the documents exist, and all documents, files and directories they mention."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT, check=True, capture_output=True, text=True,
).stdout.split()  # fmt: skip
PAGES = [name for name in FILES if name.endswith(".md") and (ROOT / name).is_file()]
CODE = (".py", ".c", ".h", ".ts", ".tsx", ".sh", ".toml", ".yaml")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[(.+?)\]\(.*?\)", r"\1", head).lower()).replace(" ", "-") for head in heads
    }


@pytest.mark.parametrize("name", PAGES)
def test_link_targets_exist(name: str) -> None:
    page = ROOT / name
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), f"{name} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(found), f"{name} links to {target}; there is no such heading"


def test_documents_that_are_mentioned_exist() -> None:
    missing = {
        (name, mentioned)
        for name in FILES
        if name.endswith((*CODE, ".md")) and (ROOT / name).is_file() and name != "CHANGELOG.md"
        for mentioned in re.findall(r"(?<![\w/.-])docs/[\w/-]+\.md", (ROOT / name).read_text(errors="replace"))
        if not (ROOT / mentioned).is_file()
    }
    assert not missing


def test_every_document_can_be_found_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = [target.partition("#")[0] for target in LINK.findall(page.read_text())]
        todo += [(page.parent / path).resolve() for path in targets if path and not re.match(r"[a-z]+:", path)]
    assert {ROOT / name for name in PAGES if name.startswith("docs/")} <= seen


@pytest.mark.parametrize("name", ["docs/internals/architecture.md", "docs/internals/drumhead.md"])
def test_layouts_name_files_that_exist(name: str) -> None:
    """Check the lists below "Layout" or "Modules": a root, indented directories, and the files of each directory."""
    blocks = re.findall(
        r"^## (?:Layout|Modules)\n.*?^```\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL
    )
    assert blocks, name
    for line in "".join(blocks).splitlines():
        words = line.split()
        if line.startswith("src/"):
            root = directory = ROOT / words[0]
        elif re.match(r"  \S", line):
            directory = root / words[0] if words[0].endswith("/") else root
        assert directory.is_dir(), line
        for file in re.findall(r"(?<![\w/*])(\w+\.(?:py|c|sql))\b", line):
            assert any(directory.rglob(file)), f"{name}: there is no {file} in {directory.relative_to(ROOT)}"
