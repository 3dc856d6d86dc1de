"""Run the soak with a small load for three minutes, so that other tests have the processors; it can run for hours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MINUTES, PAUSE, REST = 3, 2.0, 5.0
"""Seconds between two uploads of a client, and between two faults: three minutes take about 30 s of processor time."""
TIME_LIMIT = 1500.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


def test_kills_freezes_and_cuts() -> None:
    words = ("--minutes", MINUTES, "--pause", PAUSE, "--rest", REST, "--calm", 5)
    command = [sys.executable, "-m", "benchmarks.soak", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=TIME_LIMIT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every reader has seen all" in done.stdout
