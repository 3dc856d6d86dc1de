"""Test that the generated parts of docs/reference are up to date, and that their flags exist."""

import contextlib
import re
from pathlib import Path

import cyclopts
import pytest

from documentation.reference import WITHOUT_A_SYSTEM, of_a_running_system, written
from support.programs.command import everything
from support.walk import applications

PAGES = written()
ADVICE = "run: PYTHONPATH=tests python tests/documentation/reference.py"


@pytest.mark.parametrize("name", WITHOUT_A_SYSTEM)
def test_parts_generated_from_the_code_are_up_to_date(name: str) -> None:
    assert PAGES[name] == WITHOUT_A_SYSTEM[name](), ADVICE


@pytest.mark.slow
async def test_parts_read_from_a_running_system_are_up_to_date(tmp_path: Path) -> None:
    with everything(tmp_path / "data") as addresses:
        for name, text in (await of_a_running_system(addresses)).items():
            assert PAGES[name] == text, f"{name}: {ADVICE}"


def test_every_part_in_the_pages_is_generated() -> None:
    assert all(name in WITHOUT_A_SYSTEM or name == "api" or name.startswith("metrics ") for name in PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["safelight", "drumhead"])
def test_the_commands_accept_the_flags_that_the_page_lists(program: str) -> None:
    app = applications()[program]
    for section in PAGES[f"commands of {program}"].split("### ")[1:]:
        title, _, text = section.partition("\n")
        for row in re.findall(r"^\| (`-.+?`) \|", text, re.MULTILINE):
            for flag in re.findall(r"`(-.+?)`", row):
                with contextlib.suppress(cyclopts.MissingArgumentError):
                    app.parse_args([*title.split()[1:], flag], print_error=False, exit_on_error=False)
