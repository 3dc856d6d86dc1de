"""Test which files with dependencies are read, and the groups of them that package.yaml chooses."""

import json
import subprocess

import pytest
from packaging.markers import Marker

from drumhead.errors import DrumheadError
from drumhead.image.inputs import resolve_packages
from drumhead.manifest.project import read_project
from drumhead.python.lock import find_uv, read_lock, why_uv_failed
from support.guests.composing import write_files, write_wheel

GROUPS = """
[project]
name = "x"
version = "1"
requires-python = ">=3.11"
[dependency-groups]
dev = ["sniffio"]
My_Group = ["idna", {include-group = "base"}]
base = ["six"]
"""
POETRY = """
[tool.poetry.dependencies]
python = "^3.11"
[tool.poetry.group.my-group]
optional = true
include-groups = ["base"]
[tool.poetry.group.my-group.dependencies]
idna = "*"
[tool.poetry.group.base.dependencies]
six = {version = "*", markers = "os_name == 'posix'"}
[tool.poetry.group.dev.dependencies]
sniffio = "*"
"""
SHA = "sha256:" + "a" * 64
POETRY_LOCK = "".join(
    f'[[package]]\nname = "{name}"\nversion = "1.0"\nfiles = [{{file = "x", hash = "{SHA}"}}]\n'
    for name in ("idna", "six", "sniffio")
)
PACKAGE = {"version": "==1.0", "hashes": [SHA]}
PIPFILE_LOCK = {"default": {}, "develop": {"sniffio": PACKAGE}, "my-group": {"idna": PACKAGE, "six": PACKAGE}}
PROJECTS = {
    "pyproject.toml": {"pyproject.toml": GROUPS},
    "uv.lock": {"pyproject.toml": GROUPS},
    "poetry.lock": {"pyproject.toml": POETRY, "poetry.lock": POETRY_LOCK},
    "poetry.lock, standard table": {"pyproject.toml": GROUPS, "poetry.lock": POETRY_LOCK},
    "Pipfile.lock": {"Pipfile": "", "Pipfile.lock": json.dumps(PIPFILE_LOCK)},
}


def choose(project, what):
    """Choose groups or extras in the manifest of a project."""
    manifest = project / "meta/package.yaml"
    manifest.write_text(manifest.read_text().partition("python:")[0] + f"python: {{{what}}}\n")


def locked(project, cache):
    """Return the names of the packages that a project gets."""
    lock = read_lock(read_project(project), cache)
    return {line.partition("==")[0] for line in lock.text.splitlines() if "==" in line} if lock else set()


@pytest.mark.parametrize("kind", PROJECTS)
def test_a_manifest_chooses_groups_of_dependencies(project, tmp_path, kind):
    write_files(project, PROJECTS[kind])
    if kind == "uv.lock":
        subprocess.run([find_uv(), "lock", "--quiet", "--project", project], check=True, capture_output=True)
    assert locked(project, tmp_path) == set()
    choose(project, "groups: [my-group]")
    assert locked(project, tmp_path) == {"idna", "six"}
    choose(project, "groups: [dev]")
    assert locked(project, tmp_path) == {"sniffio"}
    choose(project, "groups: [nope]")
    with pytest.raises(DrumheadError, match=r":1: it has no group nope, which package.yaml names"):
        locked(project, tmp_path)


def test_groups_that_only_poetry_can_resolve_are_refused(project, tmp_path):
    write_files(project, {"pyproject.toml": POETRY})
    choose(project, "groups: [base]")
    with pytest.raises(DrumheadError, match=r"pyproject.toml:1: only Poetry can resolve its groups; .*`poetry lock`"):
        locked(project, tmp_path)


@pytest.mark.parametrize(
    ("markers", "needed"),
    [
        ("{main = \"os_name == 'nt'\", base = \"os_name == 'posix'\"}", True),
        ("{main = \"os_name == 'nt'\", base = \"os_name == 'nt'\", dev = \"os_name == 'posix'\"}", False),
        ("{main = \"os_name == 'nt'\"}", True),
    ],
)
def test_markers_of_poetry_2_are_those_of_the_chosen_groups(project, tmp_path, markers, needed):
    lock = POETRY_LOCK + f'groups = ["main", "base", "dev"]\nmarkers = {markers}\n'
    toml = '[tool.poetry.dependencies]\nsniffio = "*"\n[tool.poetry.group.base.dependencies]\nsniffio = "*"\n'
    write_files(project, {"pyproject.toml": toml, "poetry.lock": lock})
    choose(project, "groups: [base]")
    (line,) = [one for one in read_lock(read_project(project), tmp_path).text.splitlines() if "==1.0" in one]
    marker = line.partition(" ; ")[2].removesuffix(" \\")
    assert (Marker(marker).evaluate({"os_name": "posix"}) if marker else True) is needed


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"requirements.txt": f"idna==3.10 --hash={SHA}\n"}, "requirements.txt has no extras and groups, so those"),
        ({"Pipfile": "", "Pipfile.lock": json.dumps(PIPFILE_LOCK)}, "Pipfile.lock has no extras, so those"),
    ],
)
def test_a_notice_says_that_extras_and_groups_were_ignored(project, tmp_path, files, said):
    write_files(project, files)
    choose(project, "groups: [my-group], extras: [more]")
    assert f"{said} in meta/package.yaml were ignored" in read_lock(read_project(project), tmp_path).notice


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"setup.py": ""}, ["setup.py is not read for dependencies; `uv pip compile setup.py"]),
        ({"pdm.lock": "", "pyproject.toml": ""}, ["pdm.lock is not read for dependencies; `pdm export"]),
        ({"setup.py": "", "requirements.txt": ""}, []),
        ({"setup.py": "", "pyproject.toml": "[tool.black]\n"}, ["setup.py is not read for dependencies"]),
        ({"requirements.txt": "-i https://me:${TOKEN}@host/simple\nx @ git+ssh://git@host/x\n"}, []),
        ({"requirements.txt": "-i https://me:secret@host/simple\n"}, ["requirements.txt goes into the image with"]),
        ({"uv.toml": 'index-url = "https://:t0ken@host/simple"\n', ".drumheadignore": "/uv.toml\n"}, []),
        (
            {"uv.toml": 'index-url = "https://:t0ken@host/simple"\n'},
            ["uv.toml goes into the image with a URL's password"],
        ),
        ({"pylock.prod.toml": ""}, ["package.yaml, as python: {lock: …} (pylock.prod.toml)"]),
        ({"requirements/prod.txt": "idna"}, ["package.yaml, as python: {lock: …} (requirements/prod.txt)"]),
        ({"setup.py": "", "pyproject.toml": '[project]\nrequires-python = ">=3.11,<4"\n'}, []),
        (
            {"pyproject.toml": '[project]\nrequires-python = ">= 3.12"\n'},
            ["asks for Python >= 3.12"],
        ),
        ({"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.11"\n'}, []),
    ],
)
def test_a_notice_names_what_is_not_read_another_python_and_passwords(project, files, said):
    _, notices = resolve_packages(read_project(write_files(project, files)))
    assert len(notices) == len(said)
    assert all(expected in notice for expected, notice in zip(said, notices, strict=True))


RYE_LOCK = "# generated by rye\n\n-e file:.\nidna==3.10\n    # via x\n"


def test_a_lock_that_drumhead_did_not_write_is_not_replaced(project, tmp_path):
    described = GROUPS.replace("[dependency-groups]", 'dependencies = ["idna"]\n[dependency-groups]')
    write_files(project, {"pyproject.toml": described, "requirements.lock": RYE_LOCK})
    with pytest.raises(DrumheadError, match=r"requirements.lock:1: no requirement has a hash; .* pyproject.toml into"):
        read_lock(read_project(project), tmp_path)
    manifest = project / "meta/package.yaml"
    manifest.write_text(manifest.read_text() + "python: {lock: pyproject.toml}\n")
    with pytest.raises(DrumheadError, match=r"requirements.lock:1: drumhead did not write it, .*; rename it"):
        read_lock(read_project(project), tmp_path)
    assert (project / "requirements.lock").read_text() == RYE_LOCK


@pytest.mark.slow
@pytest.mark.parametrize(
    "requirements", [{}, {"requirements.txt": "-e .\n"}], ids=["pyproject.toml", "requirements.txt"]
)
def test_a_build_backend_does_not_take_the_manifests_for_a_package_and_leaves_nothing_behind(tmp_path, requirements):
    found_by_itself = (
        '[project]\nname = "shop"\nversion = "1"\ndynamic = ["dependencies"]\n'
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[tool.setuptools.dynamic]\ndependencies = {file = ["needs.txt"]}\n'
    )
    manifest = "name: shop\ntitle: t\nauthor: a\nrequire: [python]\n"
    files = {"pyproject.toml": found_by_itself, "needs.txt": "idna\n", "shop/__init__.py": "", **requirements}
    project = write_files(tmp_path / "shop", {"meta/package.yaml": manifest, **files})
    assert locked(project, tmp_path) == {"idna"}
    assert {path.name for path in project.iterdir()} - {"meta", "requirements.lock"} == {
        name.split("/")[0] for name in files
    }


BUILD_FAILED = """error: Failed to build `mysqlclient==2.3.2`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta.build_wheel` failed (exit status: 1)

         [stdout]
         Trying pkg-config

         [stderr]
         Traceback (most recent call last):
           File "<string>", line 27, in find_package_name
         Exception: no valid name
         Specify FLAGS

         hint: Build failures usually indicate a problem
"""


def test_the_error_of_a_build_backend_is_shown_without_what_it_printed_before():
    assert why_uv_failed(BUILD_FAILED) == (
        "error: Failed to build `mysqlclient==2.3.2`: The build backend returned an error: Call to "
        "`setuptools.build_meta.build_wheel` failed (exit status: 1): Exception: no valid name Specify FLAGS; "
        "mysqlclient==2.3.2 has no wheel for the guest, so choose a version with a wheel"
    )
    assert why_uv_failed("error: a\n  cause: b\n\n         [stdout]\n         c\n           d\n") == "error: a: b: d"
    assert why_uv_failed("error: a\n  cause: b\n") == "error: a: b"


def test_versions_for_a_newer_python_are_refused_with_that_of_the_image(project, tmp_path):
    described = "Metadata-Version: 2.1\nName: inhouse\nVersion: 1.0\nRequires-Python: >=3.12\n"
    wheel, _ = write_wheel(project, {"inhouse-1.0.dist-info/METADATA": described})
    write_files(project, {"requirements.txt": f"./{wheel.name}\n"})
    with pytest.raises(DrumheadError, match=r"The image has Python 3.11; choose versions that run on it$"):
        read_lock(read_project(project), tmp_path)
