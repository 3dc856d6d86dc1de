"""Test what the programs of `safelight up` are given by themselves; test_up.py tests it with processes."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safelight.cli.up.command import Config, Up
from safelight.cli.up.forward import Forward
from safelight.cli.up.own import Own

FILE = """
log_level = "warning"
connections = 7

[master]
connections = 8
data = "/fast/masters"
drain = "40s"

[worker]
log_level = "debug"
drain = "1m"

[db]
data = "/large/db"
"""


class Child:
    """A program that stops at once and records how long it might have taken."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.timeout = 0.0
        self.killed = False

    def kill(self) -> None:
        self.killed = True

    async def stop(self, timeout: float) -> None:
        self.timeout = timeout


@pytest.fixture
def everything(tmp_path: Path) -> Up:
    path = tmp_path / "safelight.toml"
    path.write_text(FILE)
    config = Config(masters=2, log_level="warning", connections=7, cluster_key_file="key")
    return Up(config, Forward(json=True, color=False), [f"--config={path}"], Own(str(path)))


def flags(everything: Up, name: str) -> dict[str, str]:
    """Return the flags of a program with their values."""

    def pairs() -> Iterator[tuple[str, str]]:
        words = everything._argv(name)
        for index, word in enumerate(words):
            if word.startswith("--"):
                flag, _, value = word.partition("=")
                yield flag, value or (words[index + 1] if index + 1 < len(words) else "")

    return dict(pairs())


def test_the_table_of_a_program_counts_more_than_what_all_get(everything: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flags(everything, "db")["--log-level"] == "warning"
    assert "--log-level" not in flags(everything, "worker-1")
    assert flags(everything, "db")["--connections"] == "7"
    assert "--connections" not in flags(everything, "master-1")
    monkeypatch.setenv("SAFELIGHT_DB_LOG_LEVEL", "debug")
    assert "--log-level" not in flags(everything, "db")


def test_a_program_has_its_own_data_directory_and_each_of_several_one_of_its_own(everything: Up) -> None:
    data = {name: flags(everything, name)["--data"] for name in ("db", "storage", "master-1", "master-2", "worker-1")}
    assert data == {
        "db": "/large/db",
        "storage": "data/storage",
        "master-1": "/fast/masters/master-1",
        "master-2": "/fast/masters/master-2",
        "worker-1": "data/worker-1",
    }


async def test_a_program_is_killed_only_after_the_time_that_it_may_take_to_stop(everything: Up) -> None:
    children = {kind: Child(kind) for kind in ("db", "master", "worker", "allinone")}
    everything.children = [*children.values()]  # type: ignore[list-item]
    await everything._stop()
    own = {"db": 20, "master": 40, "worker": 60, "allinone": 20 + 20 + 20 + 40}
    assert {kind: child.timeout for kind, child in children.items()} == {kind: 10 + own[kind] for kind in own}


async def test_a_signal_that_is_sent_twice_at_once_is_one(everything: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` and some service managers send each to the program and to its group."""
    child = Child("db")
    everything.children = [child]  # type: ignore[list-item]
    for after, killed in ((0.0, False), (0.001, False), (0.5, True)):
        now = time.monotonic() + after
        with monkeypatch.context() as patched:
            patched.setattr(time, "monotonic", lambda now=now: now)
            everything._signalled()
        assert everything._stopping.is_set()
        assert child.killed == killed
