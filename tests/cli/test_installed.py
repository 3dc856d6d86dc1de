"""Test the built wheel in an environment without other packages: all modules import, and all commands run."""

import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import drumhead
import safelight
from drumhead.python.lock import find_uv
from support.photos import is_inverse, photo
from support.programs.command import everything

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICES = ("keyvaluestore", "db", "storage", "master", "worker")
IMPORT_ALL = """
import importlib, pkgutil, drumhead, safelight
for package in (safelight, drumhead):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if error.name not in ("joserfc", "obstore", "asyncpg", "greenlet"):  # brought by extras
                    raise
print(safelight.__file__)
"""


def run(*argv: object, cwd: Path, status: int = 0) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SAFELIGHT_", "PYTHON"))}
    clean["DRUMHEAD_HOME"] = str(cwd / "drumhead")
    done = subprocess.run(list(map(str, argv)), cwd=cwd, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, (argv, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def bin_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin directory of a new environment with the wheel and its dependencies."""
    wheels, place = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels, cwd=ROOT)
    (wheel,) = wheels.glob("*.whl")
    venv.create(place)
    install = [find_uv(), "pip", "install", "--quiet"]
    run(*install, "--python", place / "bin/python", wheel, cwd=place)
    return place / "bin"


def test_every_module_can_be_imported(bin_: Path, tmp_path: Path) -> None:
    assert str(bin_.parent) in run(bin_ / "python", "-c", IMPORT_ALL, cwd=tmp_path)


def test_versions_are_those_of_the_wheel(bin_: Path, tmp_path: Path) -> None:
    version = PROJECT["project"]["version"]
    assert safelight.__version__ == drumhead.__version__ == version
    for name in ("safelight", "drumhead"):
        assert run(bin_ / name, "--version", cwd=tmp_path) == f"{name} {version}\n"
    for name in (*SERVICES, "up"):
        assert run(bin_ / "safelight", name, "--version", cwd=tmp_path) == f"safelight {name} {version}\n"


def test_every_command_shows_its_help(bin_: Path, tmp_path: Path) -> None:
    (tmp_path / "walk.py").write_text((ROOT / "tests/support/walk.py").read_text())
    names = run(bin_ / "python", "walk.py", cwd=tmp_path).splitlines()
    assert {"safelight upload", "safelight store get", "drumhead package compose", "drumhead run"} <= set(names)
    for name in SERVICES:
        assert "--host" in run(bin_ / "python", "-m", f"safelight.{name}", "--help", cwd=tmp_path)
        assert "--host" in run(bin_ / "safelight", name, "--help", cwd=tmp_path)


def test_the_whole_system_runs(bin_: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(photo(1))
    command = bin_ / "safelight"
    with everything(tmp_path / "data", "--slots", 1, command=command) as addresses:
        where = ("--keyvaluestore", addresses["keyvaluestore"])

        def asked(*argv: str, status: int = 0) -> str:
            return run(command, *argv, *where, cwd=tmp_path, status=status)

        report = json.loads(asked("upload", "one.png", "--recipe", "invert", "--output", "results", "--json"))
        (saved,) = report["photos"][0]["saved"]
        assert is_inverse(photo(1), (tmp_path / saved).read_bytes())
        task = report["photos"][0]["task"]["id"]
        assert task in asked("tasks")
        assert task in asked("task", task)
        assert "finished" in asked("status")
        assert task in asked("top", "--once")
        assert "web" in asked("recipes", "list")
        assert addresses["master"] in asked("store", "list")
        asked("download", task, "--output", "again")
        asked("cancel", task, status=5)
        asked("retry", task, status=5)
        asked("release", task, status=5)
        asked("delete", task)


def test_drumhead_works(bin_: Path, tmp_path: Path) -> None:
    command = bin_ / "drumhead"
    run(command, "package", "init", "project", "--name", "one", "--runtime", "native", cwd=tmp_path)
    assert (tmp_path / "project/meta/package.yaml").is_file()
    run(command, "remote", "add", "mine", "https://packages.example/drumhead", cwd=tmp_path)
    assert "packages.example" in run(command, "remote", "list", cwd=tmp_path)
    run(command, "remote", "remove", "mine", cwd=tmp_path)
    assert "python" in run(command, "runtime", "list", cwd=tmp_path)
    for words in (("package", "list"), ("kernel", "list"), ("images",), ("instances",)):
        assert run(command, *words, "--json", cwd=tmp_path).strip() == "[]"
    assert "linux" in run(command, "package", "search", cwd=tmp_path)
    run(command, "run", "nothing", cwd=tmp_path, status=3)


def test_small_images_carry_less_than_the_wheel_brings() -> None:
    groups = PROJECT["dependency-groups"]
    service = set(groups["service"])
    worker = service | {each for each in groups["worker"] if isinstance(each, str)}
    image = worker | {each for each in groups["image"] if isinstance(each, str)}
    assert service < worker < image < set(PROJECT["project"]["dependencies"])
    for lock, unwanted in (
        ("service", ("pyvips", "rich", "uv", "cyclopts", "joserfc")),
        ("worker", ("rich", "uv", "cyclopts", "joserfc")),
        ("image", ("uv", "joserfc")),
    ):
        pinned = {line.partition("==")[0] for line in (ROOT / f"locks/{lock}.txt").read_text().splitlines()}
        assert not pinned & set(unwanted)


BEREFT = """
import importlib, re, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

present = {"safelight", *sys.argv.pop(1).split(",")}
owners = {
    name: {re.sub("[-_.]+", "-", each).lower() for each in found} for name, found in packages_distributions().items()
}

class Present(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        known = owners.get(name.partition(".")[0])
        return None if known and not known & present else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Present
from safelight import cli
"""
"""Hides all packages except those of a lock file, as if they were not installed."""

EVERY_COMMAND = """
for target, _ in (*cli.PROGRAMS.values(), *cli.COMMANDS.values()):
    importlib.import_module(target.partition(":")[0])
"""


def bereft(lock: str, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code with only the packages of a lock file."""
    lines = (ROOT / f"locks/{lock}.txt").read_text().splitlines()
    pinned = ",".join(line.partition("==")[0] for line in lines if "==" in line)
    argv = (sys.executable, "-c", BEREFT + code, pinned, *words)
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_the_image_of_all_services_can_run_every_command() -> None:
    done = bereft("image", EVERY_COMMAND)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Back up" in bereft("image", "sys.exit(cli.main())", "--help").stdout


@pytest.mark.parametrize("words", [["--help"], ["status"], ["up"]])
def test_a_command_says_which_package_it_lacks(words: list[str]) -> None:
    done = bereft("worker", "sys.exit(cli.main())", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("safelight: This needs the Python package ")
    assert done.stderr.count("\n") == 1
