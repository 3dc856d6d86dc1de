"""Test that untrusted text is made safe to show."""

from __future__ import annotations

import time

import pytest

from safelight.untrusted.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("abcde", "abcde"),
        ("abcdef", "abcd…"),
        ("é" * 6, "éééé…"),
        ("a\x1b", r"a\x1b"),
        ("ab\x1b", r"ab\x…"),
        ("abcd\x1b", "abcd…"),
        ("abcde\x1b", "abcd…"),
    ],
)
def test_a_text_is_cut_once_it_is_printable(text, shown):
    assert printable(text, 5) == shown


def test_what_is_cut_off_costs_nothing():
    text = "\x85" * 20_000_000
    start = time.process_time()
    assert len(printable(text, 300)) == 300
    assert time.process_time() - start < 1.0, "escaping all of it takes many seconds"
