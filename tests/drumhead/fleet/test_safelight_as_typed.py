"""A service of safelight in a machine, with the command that people type after the original's `-e "/node …"`."""

from pathlib import Path

import pytest

from support.guests.machines import find

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
TYPED = "python -m safelight.keyvaluestore"


def test_it_says_what_to_add_and_then_answers_at_its_own_address(drumhead):
    """It listens beyond its machine, so nobody gets in without a key unless somebody says so."""
    drumhead("package", "compose", "-C", ROOT, "--guest", "linux", "safelight")
    done = drumhead.run("run", "-e", TYPED, "-i", "safelight", "typed")
    assert done.returncode == 2
    assert "Add --open to let everybody in" in done.stdout, done.stderr
    try:
        drumhead("run", "-d", "-e", f"{TYPED} --open", "-i", "safelight", "typed")
        address = find(drumhead, "typed")["launch"]["address"]
        ask = ("curl", "-sSf", "--retry", "300", "--retry-delay", "1", "--retry-all-errors")
        assert drumhead("shell", "--", *ask, f"http://{address}:8000/healthz") == "ok\n"
    finally:
        drumhead.run("delete", "--force", "typed")
