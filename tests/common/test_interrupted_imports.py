"""Test that Ctrl-C ends both commands while they import their modules."""

import gc
import importlib.abc
import importlib.metadata
import sys

import pytest


class Interrupting(importlib.abc.MetaPathFinder):
    """Raise KeyboardInterrupt instead of importing a module."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, name: str, *_: object) -> None:
        if name == self._module:
            raise KeyboardInterrupt


@pytest.mark.parametrize("module", ["cli", "cli.tasks.listing", "db.__main__"])
def test_safelight(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    words = ["db"] if module == "db.__main__" else ["status"]
    assert interrupted(monkeypatch, "safelight", module, words) == 130


@pytest.mark.parametrize("module", ["cli", "cli.image.store"])
def test_drumhead(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    assert interrupted(monkeypatch, "drumhead", module, ["images"]) == 130


def interrupted(monkeypatch: pytest.MonkeyPatch, package: str, module: str, words: list[str]) -> int:
    """Return the status of a command that is interrupted when it imports a module of its package."""
    for name in [name for name in sys.modules if name.startswith((f"{package}.cli", f"{package}.{module}"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(f"{package}.{module}"), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", [package, *words])
    (program,) = importlib.metadata.entry_points(group="console_scripts", name=package)
    try:
        status = program.load()()
    finally:
        gc.enable()  # which a program that ends early leaves to the end of its process
    assert isinstance(status, int)
    return status
