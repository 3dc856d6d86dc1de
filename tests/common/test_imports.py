"""Test that the garbage collector rests while programs are imported, and only then."""

import gc
import subprocess
import sys

import pytest

_REPORT = "import atexit, gc; atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 10_000));"
PROGRAMS = {
    "a service": "from safelight import serve; serve.prepare()",
    "a command": "from safelight.cli import main; main(['recipes', 'list', '--master', '127.0.0.1:1'])",
    "a command of drumhead": "from drumhead.cli import main; main(['runtime', 'list'])",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_runs_collects_garbage_but_not_its_modules(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{_REPORT} gc.disable(); {PROGRAMS[program]}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["True True"], done.stdout + done.stderr


def test_importing_the_library_leaves_the_collector_alone() -> None:
    code = "import gc, safelight, safelight.client.master, drumhead; print(gc.isenabled())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"
    assert gc.isenabled()
