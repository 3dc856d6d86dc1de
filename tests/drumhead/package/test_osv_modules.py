"""Test the flags of OSv's modules that make the kernel load them completely and resolve all symbols at once."""

import subprocess

import pytest

from drumhead.package.osv.module import SECTION, SHT_STRTAB, bind_at_once, fit, load_whole
from support.guests import osv


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


def read(path, *flags):
    return subprocess.run(["readelf", *flags, path], capture_output=True, text=True, check=True)


def section_lines(said):
    return [" ".join(line.partition("]")[2].split()) for line in said.splitlines() if line.lstrip().startswith("[")]


def test_a_module_is_read_when_it_is_loaded(module, tmp_path):
    changed = tmp_path / "changed.so"
    changed.write_bytes(load_whole(module.read_bytes()))
    before, after = read(module, "-SW").stdout, read(changed, "-SW").stdout
    assert ".note.osv-mlock" in after
    assert read(changed, "-aW").stderr == ""
    # All other sections are unchanged, and so is everything that is loaded.
    assert set(section_lines(before)) - set(section_lines(after)) <= {
        line for line in section_lines(before) if "shstrtab" in line
    }
    assert read(module, "-lW").stdout == read(changed, "-lW").stdout
    assert load_whole(changed.read_bytes()) == changed.read_bytes()


def test_a_module_without_sections_stays_as_it_is(module):
    stripped = bytearray(module.read_bytes())
    stripped[40:48] = bytes(8)
    stripped[58:64] = bytes(6)
    assert load_whole(bytes(stripped)) == bytes(stripped)


def test_a_module_is_made_fit_in_both_ways(module, tmp_path):
    changed = tmp_path / "changed.so"
    changed.write_bytes(fit(module.read_bytes()))
    assert any("NOW" in one for one in flags(changed))
    assert ".note.osv-mlock" in read(changed, "-SW").stdout


def test_a_module_with_as_many_sections_as_a_header_counts_stays_as_it_is(module):
    header = bytearray(module.read_bytes())
    start = len(header)
    header[40:48] = start.to_bytes(8, "little")
    header[60:64] = b"\xff\xff\0\0"
    many = bytes(header) + 0xFFFF * SECTION.pack(0, SHT_STRTAB, *[0] * 8)
    assert load_whole(many) == many
