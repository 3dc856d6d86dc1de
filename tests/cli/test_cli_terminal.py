"""Test the command in a terminal that is resized and in which keys are pressed."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from safelight.cli.printing import worker_state
from safelight.wire import WorkerInfo, WorkerSeen
from support.photos import photo
from support.programs.command import COMMAND, environment, everything, terminal

pytestmark = pytest.mark.slow


class Tmux:
    """Run a terminal in tmux, which wraps lines again when it is resized."""

    def __init__(self, socket: Path) -> None:
        self._base = ["tmux", "-f", "/dev/null", "-S", str(socket)]

    def __call__(self, *argv: object) -> str:
        words = [*self._base, *map(str, argv)]
        return subprocess.run(words, check=True, capture_output=True, text=True, env=environment()).stdout

    def screen(self) -> str:
        return self("capture-pane", "-p")

    def until(self, satisfied: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 30
        while not satisfied(shown := self.screen()):
            assert time.monotonic() < deadline, shown
        return shown


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    run = Tmux(tmp_path / "tmux")
    yield run
    with suppress(subprocess.CalledProcessError):  # the server has ended with its last window
        run("kill-server")


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run a system without a worker, so that uploads wait."""
    with everything(tmp_path_factory.mktemp("idle") / "data", "--workers", 0) as found:
        yield found


@pytest.mark.parametrize("widths", [(100, 61, 80, 57), (40,)])
def test_bars_stay_two_lines_when_the_terminal_is_resized(
    idle: dict[str, str], tmux: Tmux, tmp_path: Path, widths: tuple[int, ...]
) -> None:
    (tmp_path / "one.png").write_bytes(photo(60))
    command = f"{COMMAND} upload {tmp_path}/one.png --wait --keyvaluestore {idle['keyvaluestore']}"
    tmux("new-session", "-d", "-x", 120, "-y", 30, command)
    tmux.until(lambda shown: "0/1" in shown)

    def two_bars(shown: str) -> bool:
        return [line[:4] for line in shown.splitlines() if line.strip()] == ["Uplo", "Proc"]

    for width in widths:
        tmux("resize-window", "-x", width, "-y", 30)
        drawn = tmux.until(two_bars)  # a bar that was drawn twice would stay
        assert all(len(line) <= width for line in drawn.splitlines())
    tmux("send-keys", "C-c")


def test_top_ends_at_q_and_leaves_the_terminal_as_it_was(addresses: dict[str, str]) -> None:
    where = {"SAFELIGHT_KEYVALUESTORE": addresses["keyvaluestore"]}
    with terminal("top", "--interval", "30", **where) as shown:
        shown.until(lambda text: "WORKER" in text)
        shown.press(b"x")
        shown.press(b"q")
        began = time.monotonic()
        assert shown.ended() == 0
        assert time.monotonic() - began < 10
    assert "\x1b[?1049l" in shown.shown


@pytest.mark.parametrize(
    ("silent_for", "busy", "state"), [(1.0, 1, "busy"), (1.0, 0, "idle"), (40.0, 1, "silent"), (40.0, 0, "silent")]
)
def test_a_worker_that_is_not_heard_of_is_not_shown_as_busy(silent_for: float, busy: int, state: str) -> None:
    seen = WorkerSeen(worker=WorkerInfo(id="w", busy=busy), first_seen=0.0, last_seen=time.time() - silent_for)
    assert worker_state(seen).plain == state
