"""Marking OSv's modules so that their symbols are looked up when they are loaded."""

import subprocess

import pytest

from drumhead.package.osv_module import bind_at_once
from support import osv


def flags(path):
    said = subprocess.run(["readelf", "-dW", path], capture_output=True, text=True, check=True).stdout
    return [line.split("Flags:")[1].split() for line in said.splitlines() if "Flags:" in line]


@pytest.fixture(params=["lazy", "now"])
def module(request, tmp_path):
    return osv.modules(tmp_path, binding=request.param)[0]


def test_a_module_is_bound_when_it_is_loaded(module, tmp_path):
    changed = tmp_path / "changed.so"
    changed.write_bytes(bind_at_once(module.read_bytes()))
    assert any("NOW" in one for one in flags(changed))
    assert len(changed.read_bytes()) == len(module.read_bytes())
    assert bind_at_once(changed.read_bytes()) == changed.read_bytes()


def test_nothing_else_of_a_module_is_changed(module):
    before, after = module.read_bytes(), bind_at_once(module.read_bytes())
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 16
