from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support.photos import photo
from support.programs.command import everything, safelight

Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="package")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run one system for all these tests; yield its addresses."""
    data = tmp_path_factory.mktemp("system") / "data"
    with everything(data, "--slots", 2) as found:
        yield {**found, "data": str(data)}


@pytest.fixture
def run(addresses: dict[str, str], tmp_path: Path) -> Run:
    """Return a function that runs the command against that system, in the test's directory."""

    def command(*argv: object, before: Sequence[str] = (), **env: str) -> "CompletedProcess[str]":
        found = {"SAFELIGHT_KEYVALUESTORE": addresses["keyvaluestore"], **env}
        return safelight(*argv, cwd=tmp_path, before=before, **found)

    return command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a directory with three photos, one of them in a subdirectory, and files that are not photos."""
    directory = tmp_path / "photos"
    (directory / "below" / ".hidden").mkdir(parents=True)
    (directory / "one.png").write_bytes(photo(1))
    (directory / "two.jpg").write_bytes(photo(2, kind="JPEG"))
    (directory / "below" / "three.PNG").write_bytes(photo(3))
    (directory / "below" / ".hidden" / "four.png").write_bytes(photo(4))
    (directory / "notes.txt").write_text("not a photo")
    return directory
