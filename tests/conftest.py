"""Settings and fixtures for all tests."""

import gc
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from support.servers.azurite import Azurite
    from support.servers.google import Google
    from support.servers.seaweedfs import Seaweed

# A failed assertion of the tests' own modules shows its values, as those of the tests do.
pytest.register_assert_rewrite("support")

# A shell starts background jobs with Ctrl-C ignored, and nohup ignores SIGHUP. Every program that a test starts would
# inherit this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# xdist tells its processes the size of the terminal, which the programs would inherit and fold their output to.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# A busy machine takes longer for an example, but these tests do not measure time.
# Every run uses the same examples; `--hypothesis-profile=explore` searches for new ones.
hypothesis.settings.register_profile(
    "safelight", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.register_profile(
    "explore", hypothesis.settings.get_profile("safelight"), derandomize=False, print_blob=True
)
hypothesis.settings.load_profile("safelight")

TESTS = Path(__file__).parent
LONGEST = (
    "drumhead/machine/network/test_host_networks.py",  # the first of drumhead's builds the packages for the others
    "kills/test_soak.py",  # three minutes, most of which it waits
    "deploy/test_containerfile.py",
    "simulation",
    "kills",
    "hostile",
    "web",
    "drumhead/test_machines_page.py",
    "drumhead/fleet",
    "drumhead/applications",
    "faults",
    "up",
    "drumhead",
    "access",
    "backup",
    "cli",
    "tutorial",
)
"""The longest test files, in the order in which they start. Short files come last, so that no process waits for
another at the end."""
WAITING = ("faults", "drumhead/guest/test_dhcp_client.py", "tus/test_tus_kills.py")
"""Files that mostly wait. They start between the others: side by side, they would leave the machine idle."""
APART = 3
"""How many other files start between two that wait."""


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Seaweed]":
    """Run a real S3 server, once for all tests."""
    from support.servers.seaweedfs import seaweedfs

    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def bucket_url(seaweed: "Seaweed", monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty prefix in a bucket, and set the environment for its server."""
    return _place(seaweed, monkeypatch)


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Azurite]":
    """Microsoft's emulator of Azure, started once."""
    from support.servers.azurite import azurite

    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def google() -> "Iterator[Google]":
    """A server of Google's API, started once."""
    from support.servers.google import google

    with google() as server:
        yield server


@pytest.fixture
def azure_url(azurite: "Azurite", monkeypatch: pytest.MonkeyPatch) -> str:
    """The same as `bucket_url`, on Azure."""
    return _place(azurite, monkeypatch)


@pytest.fixture
def google_url(google: "Google", monkeypatch: pytest.MonkeyPatch) -> str:
    """The same as `bucket_url`, on Google Cloud Storage."""
    return _place(google, monkeypatch)


def _place(server: "Seaweed | Azurite | Google", monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server.url()


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """Give back the log, the umask and the signals of this process after a test that ran the `main` of a program."""
    root = logging.getLogger()
    handlers, level, umask = [*root.handlers], root.level, os.umask(0o022)
    os.umask(umask)
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    os.umask(umask)
    for number, handler in signals.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (`--dist loadfile`), start the longest files first."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        files = sorted({_place_of(item): None for item in items}, key=_rank)
        order = {place: number for number, place in enumerate(_spread(files))}
        items.sort(key=lambda item: order[_place_of(item)])


def _place_of(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).as_posix()


def _rank(place: str) -> int:
    return next((rank for rank, long in enumerate(LONGEST) if place.startswith(long)), len(LONGEST))


def _spread(files: list[str]) -> list[str]:
    """Put each file that waits behind APART others; the others keep their order."""
    waiting = [place for place in files if place.startswith(WAITING)]
    spread = [place for place in files if not place.startswith(WAITING)]
    for number, place in enumerate(waiting, 1):
        spread.insert(number * (APART + 1) - 1, place)
    return spread


def pytest_collection_finish() -> None:
    """Keep the garbage collector away from what pytest keeps for every test, which took it a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
