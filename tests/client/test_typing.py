"""Test that type checkers believe the types of the client where it is installed (PEP 561)."""

from importlib.resources import files


def test_the_client_is_marked_as_typed():
    assert (files("safelight") / "py.typed").is_file()
