"""Test that the wheel contains drumhead's data files: recipes, the sources of init, and OSv's start program."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from drumhead.guest import find_guest
from drumhead.image.guest_program import compile_program
from drumhead.package.recipe import known_recipes
from drumhead.python.lock import find_uv
from support.guests.composing import Drumhead, write_files

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(*words, cwd=None):
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory, cwd=ROOT)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Return the bin directory of a new environment with the wheel; it shares this one's libraries, not our sources."""
    place = tmp_path_factory.mktemp("installed")
    run(find_uv(), "venv", "--quiet", "--python", sys.executable, place)
    run(find_uv(), "pip", "install", "--quiet", "--no-deps", "--no-index", "--python", place / "bin/python", wheel)
    (site,) = place.glob("lib/python*/site-packages")
    # Python does not read .pth files in a directory that another .pth file adds, such as the one that adds our sources.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(place / "bin/python", "-I", "-c", "import drumhead; print(drumhead.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    return place / "bin"


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    source = ROOT / "src"
    files = [path for path in (source / "drumhead").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {path.relative_to(source).as_posix() for path in files if not path.name.startswith(".")}
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())
    assert {Path(name).suffix for name in wanted} >= {".py", ".yaml", ".c", ".h"}


def test_the_installed_command_composes(drumhead, installed, project, tmp_path):
    class Installed(Drumhead):
        words = (str(installed / "drumhead"),)

    command = Installed(drumhead.home)
    assert {package["name"] for package in command.json("package", "search")} >= set(known_recipes())
    write_files(project, {"main.py": "print('from a wheel')\n"})
    composed = command.json("package", "compose", "t/wheel", "-C", project)
    ours = drumhead.json("package", "compose", "t/wheel", "-C", project)
    assert (composed["digest"], composed["image"]) == (ours["digest"], ours["image"])


@pytest.mark.parametrize("guest", ["linux", "osv"])
def test_what_a_guest_brings_is_installed(installed, guest, tmp_path):
    show = (
        "import pathlib; from drumhead.guest import find_guest;"
        "from drumhead.image.guest_program import compile_program;"
        f"guest = find_guest({guest!r}); program = compile_program(guest.program, pathlib.Path({str(tmp_path)!r}));"
        "print(guest.skeleton(program).digest(), len(program))"
    )
    digest, size = run(installed / "python", "-I", "-c", show).split()
    ours = find_guest(guest)
    program = compile_program(ours.program, tmp_path / "ours")
    assert (digest, int(size)) == (ours.skeleton(program).digest(), len(program))
