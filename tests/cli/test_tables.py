"""Test that a table shows every column, whatever names photos have, and how sizes are written."""

import io

import pytest
from rich.console import Console

from safelight.cli import printing


@pytest.mark.parametrize(
    ("count", "written"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (5e15, "5000.0 TB")],
)
def test_sizes_are_rounded_into_the_next_unit(count, written):
    assert printing.size(count) == written


@pytest.mark.parametrize("width", [80, 120, 250])
def test_a_very_long_name_leaves_the_other_columns_visible(monkeypatch, width):
    console = Console(file=io.StringIO(), width=width)
    monkeypatch.setattr(printing, "out", console)
    rows = [("1-abcdefghij", "x" * 244 + ".jpg", "finished", "same photo"), ("2-abcdefghij", "b.jpg", "failed", "")]
    console.print(printing.table("TASK", "PHOTO", "STATE", "WHY", rows=rows))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 3
    assert all(len(line) <= width for line in lines)
    assert "WHY" in lines[0]
    for line, (id_, _, state, _) in zip(lines[1:], rows, strict=True):
        assert line.startswith(id_)
        assert state in line
    assert "b.jpg " in lines[2]
