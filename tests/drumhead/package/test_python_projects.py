"""Test Python projects as people have them: packages of their own, private indexes, and locks that are out of date."""

import hashlib
import json
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.manifest.project import read_project
from drumhead.python.lock import Lock, read_lock
from drumhead.python.requirements import check_hashes, check_resolvable
from drumhead.python.wheels import SITE, install
from support.guests.composing import write_files, write_wheel

PACKAGE = '[project]\nname = "{}"\nversion = "1"\ndependencies = [{}]\n'


def pinned(lock):
    return {line.split("==")[0] for line in lock.text.splitlines() if "==" in line}


@pytest.fixture
def uv_lock():
    """Return a function that gives the text of a uv.lock with these packages, for a project that asked for `asked`."""

    def text(asked, *packages):
        wheel = 'wheels = [{{url = "https://pypi.org/{0}-1-py3-none-any.whl", hash = "sha256:{1}"}}]\n'
        source = 'source = {registry = "https://pypi.org/simple"}\n'
        locked = "".join(
            f'[[package]]\nname = "{name}"\nversion = "1"\n{source}{wheel.format(name, "a" * 64)}' for name in packages
        )
        depends = ", ".join(f'{{name = "{name}"}}' for name in packages)
        return (
            f'version = 1\nrequires-python = ">=3.11"\n{locked}[[package]]\nname = "x"\nversion = "1"\n'
            f'source = {{virtual = "."}}\ndependencies = [{depends}]\n[package.metadata]\nrequires-dist = [{asked}]\n'
        )

    return text


def test_a_project_that_requires_itself_gets_its_dependencies(project, tmp_path):
    files = {
        "requirements.txt": "-e .[more]\n./lib/shared\n",
        "pyproject.toml": PACKAGE.format("x", '"idna==3.10"') + '[project.optional-dependencies]\nmore = ["sniffio"]\n',
        "lib/shared/pyproject.toml": PACKAGE.format("shared", '"six"'),
    }
    write_files(project, files)
    first = read_lock(read_project(project), tmp_path)
    assert pinned(first) == {"idna", "sniffio", "six"}
    assert "of the project itself and lib/shared, only the dependencies were installed" in first.notice
    check_hashes(first.text, "requirements.lock")
    second = read_lock(read_project(project), tmp_path)
    assert second.notice == ""
    assert first.local == second.local == (".", "lib/shared")
    write_files(project, {"lib/shared/pyproject.toml": PACKAGE.format("shared", '"typing-extensions"')})
    assert pinned(read_lock(read_project(project), tmp_path)) == {"idna", "sniffio", "typing-extensions"}


def test_a_directory_that_uv_takes_a_package_from_is_left_out(project, tmp_path):
    sources = '[tool.uv.sources]\ninner = {path = "inner"}\n'
    write_files(
        project,
        {
            "pyproject.toml": PACKAGE.format("x", '"inner"') + sources,
            "inner/pyproject.toml": PACKAGE.format("inner", '"idna"'),
        },
    )
    lock = read_lock(read_project(project), tmp_path)
    assert pinned(lock) == {"idna"}
    assert "of inner, only the dependencies were installed" in lock.notice
    assert lock.local == ("inner",)


@pytest.mark.parametrize("source", ["pyproject.toml", "requirements.txt"])
def test_settings_of_uv_are_part_of_what_a_lock_was_made_from(project, tmp_path, source):
    files = {"pyproject.toml": PACKAGE.format("x", '"idna"' if source == "pyproject.toml" else "")}
    write_files(project, files | ({source: "idna\n"} if source == "requirements.txt" else {}))
    first = read_lock(read_project(project), tmp_path)
    write_files(project, {"pyproject.toml": files["pyproject.toml"] + "[tool.other]\nx = 1\n"})
    assert read_lock(read_project(project), tmp_path).notice == ""
    constrained = files["pyproject.toml"] + '[tool.uv]\nconstraint-dependencies = ["idna<3"]\n'
    write_files(project, {"pyproject.toml": constrained})
    second = read_lock(read_project(project), tmp_path)
    assert "idna==2." in second.text
    assert "idna==2." not in first.text
    assert read_lock(read_project(project), tmp_path).notice == ""
    write_files(
        project, {"pyproject.toml": files["pyproject.toml"], "uv.toml": 'constraint-dependencies = ["idna<2.9"]\n'}
    )
    assert "idna==2.8" in read_lock(read_project(project), tmp_path).text


@pytest.mark.slow
def test_files_that_a_build_backend_reads_are_part_of_what_a_lock_was_made_from(project, tmp_path):
    dynamic = (
        '[project]\nname = "x"\nversion = "1"\ndynamic = ["dependencies"]\n'
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[tool.setuptools]\npackages = []\n[tool.setuptools.dynamic]\ndependencies = {file = ["needs.txt"]}\n'
    )
    write_files(project, {"pyproject.toml": dynamic, "needs.txt": "idna\n"})
    assert pinned(read_lock(read_project(project), tmp_path)) == {"idna"}
    write_files(project, {"needs.txt": "six\n"})
    assert pinned(read_lock(read_project(project), tmp_path)) == {"six"}


def installed(place, files):
    """Return the files of a wheel with these files that are installed, without the description of the package."""
    wheel, digest = write_wheel(place, files)
    lock = Lock(file="requirements.txt", text=f"inhouse @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    tree = install(lock, place / "cache")
    paths = {path.removeprefix(f"{SITE}/") for path, entry in tree if entry.kind == "file"}
    return {path for path in paths if ".dist-info/" not in path}


def test_of_the_tests_in_a_wheel_only_what_no_program_imports_is_left_out(tmp_path):
    kept = {
        "inhouse/test/__init__.py",
        "inhouse/test/signals.py",
        "inhouse/tests/__init__.py",
        "inhouse/tests/helper.py",
        "inhouse/tests/deep/speedups.cpython-311-x86_64-linux-gnu.so",
        "inhouse/test_client.py",
        "inhouse/core/tests/data.csv",
    }
    left_out = {
        "inhouse/tests/test_all.py",
        "inhouse/tests/deep/all_test.py",
        "inhouse/tests/conftest.py",
        "inhouse/tests/data/photo.jpg",
    }
    assert installed(tmp_path, dict.fromkeys(kept | left_out, "")) == kept


def test_a_stub_that_a_module_reads_is_kept(tmp_path):
    files = {
        "inhouse/__init__.py": "import lazy_loader\nname = lazy_loader.attach_stub(__name__, __file__)\n",
        "inhouse/__init__.pyi": "from .core import answer\n",
        "inhouse/core.py": "answer = 42\n",
        "inhouse/core.pyi": "answer: int\n",
        "inhouse/third_party/typeshed/stdlib/os.pyi": "def getcwd() -> str: ...\n",
    }
    assert installed(tmp_path, files) == files.keys() - {"inhouse/core.pyi"}


@pytest.fixture
def private_index(tmp_path):
    """Serve an index with one package, `inhouse`; return its URL."""
    place = tmp_path / "index/simple/inhouse"
    place.mkdir(parents=True)
    wheel, digest = write_wheel(place, {"inhouse.py": "answer = 42\n"})
    (place / "index.html").write_text(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>')
    (place / "page.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    handler = partial(SimpleHTTPRequestHandler, directory=place.parents[1])
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["requirements.txt", "pyproject.toml"])
def test_a_lock_from_a_private_index_installs_from_it(project, tmp_path, private_index, monkeypatch, kind):
    files = {
        "requirements.txt": f"--extra-index-url {private_index.replace('//', '//user:${INDEX_TOKEN}@')}\ninhouse\n",
        "pyproject.toml": PACKAGE.format("x", '"inhouse"')
        + f'[[tool.uv.index]]\nname = "own"\nurl = "{private_index}"\n',
    }
    monkeypatch.setenv("INDEX_TOKEN", "not-in-the-lock")
    write_files(project, {kind: files[kind]})
    read_lock(read_project(project), tmp_path)
    lock = read_lock(read_project(project), tmp_path)
    assert lock.notice == ""
    assert "not-in-the-lock" not in lock.text
    tree = install(lock, tmp_path / "another cache")
    assert tree[f"{SITE}/inhouse.py"].read() == b"answer = 42\n"


@pytest.mark.parametrize("settings", ["pyproject.toml", "uv.toml"])
def test_the_index_of_settings_beside_requirements_is_asked_when_installing(project, tmp_path, private_index, settings):
    index = {
        "pyproject.toml": f'[[tool.uv.index]]\nname = "own"\nurl = "{private_index}"\n',
        "uv.toml": f'[pip]\nextra-index-url = ["{private_index}"]\n',
    }
    write_files(project, {"requirements.txt": "inhouse\n", settings: index[settings]})
    lock = read_lock(read_project(project), tmp_path)
    assert install(lock, tmp_path / "another cache")[f"{SITE}/inhouse.py"].read() == b"answer = 42\n"
    (project / "requirements.lock").rename(project / "requirements.txt")
    lock = read_lock(read_project(project), tmp_path)
    assert f"{SITE}/inhouse.py" in install(lock, tmp_path / "a third cache")


@pytest.mark.parametrize("line", ["--find-links ./wheels", "-f wheels", "--find-links=URL"])
def test_a_lock_from_a_directory_with_wheels_installs_from_it(project, tmp_path, private_index, line):
    (project / "needs/wheels").mkdir(parents=True)
    write_wheel(project / "needs/wheels", {"inhouse.py": "answer = 42\n"})
    line = line.replace("URL", f"{private_index}/inhouse/page.html")
    more = f"--no-index\n{line}\ninhouse\n"
    write_files(project, {"requirements.txt": "-r needs/more.txt\n", "needs/more.txt": more})
    read_lock(read_project(project), tmp_path)
    lock = read_lock(read_project(project), tmp_path)
    assert lock.notice == ""
    assert str(tmp_path) not in lock.text
    assert "\n--no-index\n" in lock.text
    assert install(lock, tmp_path / "another cache")[f"{SITE}/inhouse.py"].read() == b"answer = 42\n"
    (project / "requirements.txt").unlink()
    moved = project.rename(tmp_path / "moved to")
    assert f"{SITE}/inhouse.py" in install(read_lock(read_project(moved), tmp_path), tmp_path / "a third cache")


def test_a_pylock_with_a_url_a_source_distribution_and_the_project_itself_is_used(project, tmp_path, private_index):
    wheel = next((tmp_path / "index/simple/inhouse").glob("*.whl"))
    source = tmp_path / "index/simple/pure-1.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        write_files(tmp_path / "pure-1", {"pyproject.toml": PACKAGE.format("pure", ""), "pure.py": ""})
        archive.add(tmp_path / "pure-1", "pure-1")
    hashes = [f'hashes = {{sha256 = "{hashlib.sha256(file.read_bytes()).hexdigest()}"}}' for file in (wheel, source)]
    tables = [
        f'name = "inhouse"\narchive = {{url = "{private_index}/inhouse/{wheel.name}", {hashes[0]}}}\n',
        'name = "itself"\ndirectory = {path = ".", editable = true}\n',
        f'name = "pure"\nversion = "1"\nsdist = {{url = "{private_index}/{source.name}", {hashes[1]}}}\n',
    ]
    pylock = "".join(f"[[packages]]\n{table}" for table in tables)
    files = {
        "pylock.toml": f'lock-version = "1.0"\ncreated-by = "t"\n{pylock}',
        "pyproject.toml": PACKAGE.format("itself", ""),
    }
    write_files(project, files)
    lock = read_lock(read_project(project), tmp_path)
    assert (
        lock.notice == "of the project itself, only the dependencies were installed; the files are in the image anyway"
    )
    assert lock.local == (".",)
    tree = install(lock, tmp_path / "another cache")
    assert {f"{SITE}/inhouse.py", f"{SITE}/pure.py"} <= {path for path, _ in tree}
    assert not any("itself" in path for path, _ in tree)


def test_the_wheels_that_uvs_settings_name_are_found_when_installing(project, tmp_path):
    (project / "wheels").mkdir()
    write_wheel(project / "wheels", {"inhouse.py": ""})
    flat = '[[tool.uv.index]]\nname = "own"\nurl = "wheels"\nformat = "flat"\n'
    for settings in (flat, '[tool.uv]\nfind-links = ["wheels"]\n'):
        write_files(project, {"pyproject.toml": PACKAGE.format("x", '"inhouse"') + settings})
        (project / "requirements.lock").unlink(missing_ok=True)
        lock = read_lock(read_project(project), tmp_path)
        assert f"{SITE}/inhouse.py" in install(lock, tmp_path / "another cache")


@pytest.mark.parametrize("place", ["/opt/wheels", "../wheels", "missing", "file:///opt/wheels"])
def test_wheels_outside_the_project_are_refused_by_line(project, tmp_path, place):
    (tmp_path / "wheels").mkdir()
    for text in (f"six\n-f {place}\n", f"six==1 --hash=sha256:{'a' * 64}\n--find-links={place}\n"):
        write_files(project, {"requirements.txt": text})
        with pytest.raises(DrumheadError, match=r"requirements.txt:2: it names no directory of the project; put the"):
            read_lock(read_project(project), tmp_path)


def test_options_on_one_line_are_refused_by_line():
    with pytest.raises(DrumheadError, match=r"^r.txt:2: it has several options; give each one a line of its own"):
        check_resolvable("idna\n-i https://example.org/simple --trusted-host example.org\n", "r.txt")


@pytest.mark.parametrize("words", ["-rbase.txt", "-e.", "-ihttps://example.org/simple"])
def test_a_short_option_without_a_blank_is_refused_by_line(words):
    with pytest.raises(DrumheadError, match=rf"^r.txt:2: write a blank after {words[:2]}; uv"):
        check_resolvable(f"idna\n{words}\n", "r.txt")


def test_a_uv_lock_without_a_dependency_is_refused(project, tmp_path, uv_lock):
    write_files(project, {"pyproject.toml": PACKAGE.format("x", '"idna", "Six"'), "uv.lock": uv_lock("", "idna")})
    with pytest.raises(
        DrumheadError, match="^uv.lock:1: it does not have Six, which pyproject.toml names; `uv lock`"
    ) as no:
        read_lock(read_project(project), tmp_path)
    assert no.value.code is ErrorCode.MANIFEST


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("idna >=1,<4", ""),
        ("idna<4,>=1", ""),
        ("idna; sys_platform == 'win32'", ""),
        ("idna>=2", "uv.lock was made before pyproject.toml asked for idna>=2; `uv lock` writes it again"),
    ],
)
def test_a_notice_says_that_a_uv_lock_is_older(project, tmp_path, uv_lock, asked, said):
    lock = uv_lock('{name = "idna", specifier = ">=1,<4"}', "idna")
    write_files(project, {"pyproject.toml": PACKAGE.format("x", f'"{asked}"'), "uv.lock": lock})
    assert read_lock(read_project(project), tmp_path).notice == said


def test_locks_of_poetry_1_say_by_python_and_platform_what_is_needed(project, tmp_path):
    """Read a lock without markers, as Poetry 1.8 writes it, and without tomli, which no Python of the project needs."""

    def package(name, version):
        file = f'{{file = "{name}.whl", hash = "sha256:{"a" * 64}"}}'
        return f'[[package]]\nname = "{name}"\nversion = "{version}"\nfiles = [{file}]\n'

    edge = "[package.dependencies]\nleft = {version = '*', python = '<3.10'}\nidna = '>=2'\n"
    edge += "gone = {version = '*', markers = 'python_version < \"3.8\"'}\n"
    versions = [("idna", "2.10"), ("idna", "3.10"), ("six", "1.16.0"), ("six", "1.17.0"), ("uv", "1"), ("win", "1")]
    lock = package("click", "8.1") + edge + "".join(package(*version) for version in versions)
    toml = (
        "[tool.poetry.dependencies]\npython = '>=3.11'\nclick = '^8'\n"
        "tomli = [{version = '*', python = '<3.11'}, {version = '*', markers = 'python_version < \"3.10\"'}]\n"
        "uv = {version = '*', platform = 'linux', python = '^3.8 || ~2.7'}\n"
        "win = {version = '*', platform = '!=linux'}\n"
        "idna = [{version = '<3', python = '>=3.8 <3.11'}, {version = '^3.4', python = '>=3.11'}]\n"
        "six = [{version = '1.16', markers = 'one'}, {version = '>=1.17', markers = 'other'}]\n"
    )
    write_files(project, {"poetry.lock": lock, "pyproject.toml": toml})
    lines = read_lock(read_project(project), tmp_path).text.splitlines()
    assert [line.removesuffix(" \\") for line in lines if "==" in line] == [
        "click==8.1",
        "idna==3.10",
        "six==1.16.0 ; one",
        "six==1.17.0 ; other",
        "uv==1",
    ]
    write_files(project, {"pyproject.toml": "[tool.poetry.dependencies]\nidna = '*'\n"})
    with pytest.raises(
        DrumheadError, match=r"poetry\.lock:1: it has idna 2\.10 and 3\.10 .* `poetry lock` of Poetry 2 does"
    ):
        read_lock(read_project(project), tmp_path)
    write_files(project, {"pyproject.toml": "[tool.poetry.dependencies]\ntomli = {version = '*', python = '>=3.8'}\n"})
    with pytest.raises(DrumheadError, match=r"poetry\.lock:1: it does not have tomli"):
        read_lock(read_project(project), tmp_path)


def test_a_pipfile_lock_without_a_package_is_refused(project, tmp_path):
    packages = 'idna = "*"\nPy_Thing = "==1"\nwin = {version = "*", markers = "os_name == \'nt\'"}\n'
    locked = {"idna": {"version": "==3.10", "hashes": ["sha256:" + "a" * 64]}}
    write_files(project, {"Pipfile": f"[packages]\n{packages}", "Pipfile.lock": json.dumps({"default": locked})})
    with pytest.raises(DrumheadError, match="^Pipfile.lock:1: it does not have Py_Thing, which Pipfile names; `pipenv"):
        read_lock(read_project(project), tmp_path)


OWN = "[[package]]\nname = 'own'\nversion = '1'\n[package.dependencies]\nidna = '*'\n"
LOCAL = {
    "Pipfile.lock": {"default": {"x": {"editable": True, "path": "."}, "own": {"file": "lib/own"}}},
    "poetry.lock": f"{OWN}[package.source]\ntype = 'directory'\nurl = 'lib/own'\n",
}


@pytest.mark.parametrize(
    ("lock", "local"), [("Pipfile.lock", "the project itself and lib/own"), ("poetry.lock", "lib/own")]
)
def test_packages_of_the_project_are_left_out_of_the_locks_of_others(project, tmp_path, lock, local):
    digest = "a" * 64
    released = f"[[package]]\nname = 'idna'\nversion = '1'\nfiles = [{{file = 'x', hash = 'sha256:{digest}'}}]\n"
    pipfile = {
        "default": {"idna": {"version": "==1", "hashes": [f"sha256:{digest}"]}, **LOCAL["Pipfile.lock"]["default"]}
    }
    files = {
        "pyproject.toml": "[project]\nname = 'x'\ndependencies = ['own']\n",
        "lib/own/pyproject.toml": PACKAGE.format("own", '"idna"'),
        lock: json.dumps(pipfile) if lock == "Pipfile.lock" else released + LOCAL[lock],
    }
    write_files(project, files)
    read = read_lock(read_project(project), tmp_path)
    assert pinned(read) == {"idna"}
    assert read.notice == f"of {local}, only the dependencies were installed; the files are in the image anyway"
    assert read.local[-1] == "lib/own"
    write_files(project, {lock: files[lock].replace("lib/own", "../own")})
    with pytest.raises(DrumheadError, match=rf"^{lock}:1: \.\./own is no Python package in the project"):
        read_lock(read_project(project), tmp_path)


def test_a_file_of_a_release_in_a_pipfile_lock_is_one_of_that_release(project, tmp_path):
    """Read a lock in which Pipenv has written the hashes of all files of the release beside the URL of one."""
    hashes = ["sha256:" + digit * 64 for digit in "ab"]
    url = "https://example.org/a/in_house-1.2rc1-py3-none-any.whl"
    for written, expected in ((hashes, "in-house==1.2rc1"), (hashes[:1], f"in-house @ {url}")):
        lock = {"default": {"in-house": {"file": url, "hashes": written}}}
        write_files(project, {"Pipfile.lock": json.dumps(lock)})
        assert read_lock(read_project(project), tmp_path).text.startswith(f"{expected} \\\n")


@pytest.mark.parametrize("lock", ["requirements.lock", "pylock.toml"])
def test_a_notice_names_what_a_lock_of_ones_own_lacks(project, tmp_path, lock):
    digest = "a" * 64
    texts = {
        "requirements.lock": f"idna==3.10 --hash=sha256:{digest}\n",
        "pylock.toml": (
            f'lock-version = "1.0"\n[[packages]]\nname = "idna"\nversion = "3.10"\n'
            f'wheels = [{{name = "idna.whl", hashes = {{sha256 = "{digest}"}}}}]\n'
        ),
    }
    write_files(project, {lock: texts[lock], "requirements.txt": "idna\nsix\ncolorama; os_name == 'nt'\n"})
    assert read_lock(read_project(project), tmp_path).notice == (
        f"{lock} does not have six, which requirements.txt names; write {lock} again"
    )
    write_files(project, {"requirements.txt": "idna\n"})
    assert read_lock(read_project(project), tmp_path).notice == ""
