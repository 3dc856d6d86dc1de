"""Test the checks of composing: files for other machines, and features that OSv lacks."""

import errno
import os
import venv
from pathlib import Path

import pytest
from msgspec.structs import replace

from drumhead.blobs import file_digest
from drumhead.closure import index_of
from drumhead.elf import is_elf, read_linkage
from drumhead.errors import DrumheadError
from drumhead.guest import find_guest
from drumhead.guest.contract import Finding
from drumhead.guest.osv.check import check_command, check_tree
from drumhead.image.checks.locales import locale_notices
from drumhead.image.checks.programs import check_findings, visible_findings
from drumhead.image.layers import scan
from drumhead.image.layers.scan import Scan
from drumhead.manifest.project import read_project
from drumhead.python.syntax_scan import MARKER, cached_scans, scan_source
from drumhead.records import Command
from drumhead.tree import Tree, regular
from support.guests.composing import write_files

ROOT = Path(__file__).parents[3]
SHELL = Path("/bin/dash")
STATIC = Path("/usr/sbin/ldconfig")
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libz.so.1")


def tree_of(**files):
    tree = Tree()
    for name, contents in files.items():
        tree.add(name, regular(contents.encode() if isinstance(contents, str) else contents, 0o755))
    return tree


def arm(elf):
    return elf[:18] + (183).to_bytes(2, "little") + elf[20:]


# ELF files


def test_what_an_elf_file_asks_for_is_read_from_what_loaders_read():
    assert {"fork", "execve"} <= read_linkage(SHELL.read_bytes()).imports
    assert not read_linkage(SHELL.read_bytes()).static
    assert read_linkage(STATIC.read_bytes()).static
    library = LIBRARY.read_bytes()
    assert "malloc" in read_linkage(library).imports
    assert "fork" not in read_linkage(library).imports
    assert read_linkage(library).flaw == ""


@pytest.mark.parametrize("kept", [64, 100, 1000, 20_000, 60_000])
def test_a_library_that_is_cut_short_is_found_wherever_it_is_cut(kept):
    cut = LIBRARY.read_bytes()[:kept]
    assert is_elf(cut)
    assert read_linkage(cut).flaw


# Files on OSv


def found(tree):
    return {finding.path: (finding.severity, finding.sentence) for finding in check_tree(tree)}


def test_osv_finds_what_cannot_start_there():
    shell, library = SHELL.read_bytes(), LIBRARY.read_bytes()
    tree = tree_of(
        script="#!/bin/sh\necho\n", sh=shell, ldconfig=STATIC.read_bytes(), foreign=arm(library), good=library
    )
    tree.add("lib/libshell.so.1", regular(shell))
    tree.add("lib/libcut.so.1", regular(library[:5000]))
    tree.add("usr/bin/python3.11", regular(shell, 0o755))
    tree.add("text", regular(b"no program"))
    what = found(tree)
    assert what.keys() == {"script", "sh", "ldconfig", "foreign", "lib/libshell.so.1", "lib/libcut.so.1"}
    assert what["script"][1].startswith("is a script for /bin/sh")
    assert what["sh"] == ("quiet", "may start processes (execve, fork, vfork), which OSv does not have")
    assert what["lib/libshell.so.1"] == ("program", what["sh"][1])
    assert "statically" in what["ldconfig"][1]
    assert "a processor other than x86-64" in what["foreign"][1]
    assert "is truncated" in what["lib/libcut.so.1"][1]


def test_a_config_set_that_starts_a_shell_is_refused_on_osv():
    guest = find_guest("osv")
    tree = tree_of(sh=SHELL.read_bytes(), run="#!/bin/sh\n")
    findings = list(guest.check(tree))
    assert check_findings(guest, findings, tree, {}) == [], "what nobody starts does not matter"
    for program in ("sh", "run"):
        with pytest.raises(DrumheadError, match=f"config set main cannot start on osv: /{program} "):
            check_findings(guest, findings, tree, {"main": (Command(argv=(f"/{program}",)), program)})


# Python on OSv


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import subprocess\nsubprocess.run(['x'])", ["subprocess.run"]),
        ("import subprocess as sp\ndef f():\n    sp.Popen('x')", ["subprocess.Popen"]),
        ("from subprocess import check_output as out\nx = lambda: out('x')", ["subprocess.check_output"]),
        ("import asyncio, os\nasync def f():\n    await asyncio.to_thread(os.system, 'x')", ["os.system"]),
        ("import asyncio\nasync def f():\n    await asyncio.create_subprocess_exec('x')",
         ["asyncio.create_subprocess_exec"]),
        ("from multiprocessing import Process\nProcess(target=f).start()", ["multiprocessing.Process"]),
        ("from concurrent.futures import ProcessPoolExecutor\nwith ProcessPoolExecutor() as p: pass",
         ["concurrent.futures.ProcessPoolExecutor"]),
        ("import os\nif os.fork(): os.execv('a', ['a'])", ["os.fork", "os.execv"]),
        ("import os\nos.posix_spawn('a', ['a'], {})\nos.popen('x')\nos.forkpty()",
         ["os.posix_spawn", "os.popen", "os.forkpty"]),
        ("import pty\npty.spawn('x')", ["pty.spawn"]),
        ("async def f(loop):\n    await loop.create_unix_server(P, '/x')", ["create_unix_server"]),
        ("import socket\ns = socket.socket(socket.AF_UNIX)", ["socket.AF_UNIX"]),
        ("import socket\ns = socket.socket(socket.AF_INET6)", ["socket.AF_INET6"]),
        ("import socket as s\na = s.socket(s.AF_INET6 if v else s.AF_INET)\ns.socket(s.AF_INET6)", []),
        ("import socket\n@dec(subprocess.run)\ndef f(): pass", []),
        ("import subprocess\nx: subprocess.Popen = None\nisinstance(x, subprocess.Popen)", []),
        ("import subprocess\ntry: f()\nexcept subprocess.TimeoutExpired: pass", []),
        ("import os, sys\nif sys.platform == 'linux':\n    os.fork()", []),
        ("import os\nif hasattr(os, 'fork'):\n    os.fork()", []),
        ("import os\ntry:\n    os.fork()\nexcept OSError:\n    pass", []),
        ("import os\ntry:\n    os.fork()\nexcept ValueError:\n    os.system('x')", ["os.fork", "os.system"]),
        ("import os\nif __name__ == '__main__':\n    os.system('x')", []),
        ("import multiprocessing\nn = multiprocessing.cpu_count()", []),
        ("class P:\n    def run(self): self.fork()\n    def fork(self): pass", []),
        (f"import os\nos.fork()  {MARKER}", []),
        (f"import os\n{MARKER}: the tool only\nos.fork()", []),
        ("this is not a Python", []),
    ],
)  # fmt: skip
def test_uses_are_found_in_sources(text, names):
    assert [use.name for use in scan_source(text.encode(), "m", package=False).uses] == names


def test_a_statement_that_is_nested_too_deeply_hides_no_other():
    text = f"import os\ndef total():\n    return {' + '.join(['1'] * 2000)}\nimport late\nos.fork()\n"
    found = scan_source(text.encode(), "m", package=False)
    assert [use.line for use in found.uses] == [5]
    assert found.early == ("os", "late")
    assert scan_source(f"x = {'-' * 20_000}1".encode(), "m", package=False).uses == ()


def test_imports_are_told_apart_by_when_they_happen():
    text = (
        "from __future__ import annotations\nimport a.b\nfrom . import c\nfrom .d import e\nfrom ..f import g\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import never\n"
        "try:\n    import h\nexcept ImportError:\n    h = None\nclass K:\n    import i\n"
        "def f():\n    import late\n    from .d import later\n"
    )
    uses = scan_source(text.encode(), "one.two.three", package=False)
    assert {"a.b", "one.two.c", "one.two.d", "one.two.d.e", "one.f.g", "h", "i"} <= set(uses.early)
    assert "never" not in {*uses.early, *uses.late}
    assert uses.late == ("late", "one.two.d", "one.two.d.later")
    assert "one.two.three.c" in scan_source(b"from . import c", "one.two.three", package=True).early


def test_what_was_read_of_a_source_is_remembered(tmp_path, monkeypatch):
    file = tmp_path / "uses.json"

    def read(*texts):
        with cached_scans(file):
            return [scan_source(text, "m", package=False) for text in texts]

    one, two = b"import os\nos.fork()\n", b"import subprocess\nsubprocess.run(['x'])\n"
    first = read(one, two)
    assert [use.name for uses in first for use in uses.uses] == ["os.fork", "subprocess.run"]
    monkeypatch.setattr("drumhead.python.syntax_scan._read", None)
    assert read() == []  # a guest that needs no reading keeps what was remembered
    assert read(one, two) == first
    assert read(one) == first[:1]
    with pytest.raises(TypeError):
        read(two)  # files that the last check did not use are forgotten
    file.write_bytes(file.read_bytes().replace(b'["', b'["other rules', 1))
    with pytest.raises(TypeError):
        read(one)
    monkeypatch.undo()
    assert read(one) == first[:1]
    monkeypatch.setattr("drumhead.python.syntax_scan._read", None)
    assert read(one) == first[:1]


PROJECT = {
    "srv/app/__init__.py": "",
    "srv/app/__main__.py": "from app import web\nweb.main()\n",
    "srv/app/web.py": "import json\nfrom .parts import helper\ndef main():\n    from app import tools\n",
    "srv/app/parts/__init__.py": "",
    "srv/app/parts/helper.py": "import socket\n",
    "srv/app/tools.py": "import app.deep\n",
    "srv/app/deep.py": "import os\ndef f():\n    os.fork()\n",
    "srv/app/up.py": "import subprocess\nsubprocess.run(['x'])\n",
    "main.py": "import sys\nimport app.up\n",
}


def check(files, *words, cwd="/srv", env=None):
    tree = Tree()
    for name, text in (PROJECT | files).items():
        tree.add(name, regular(text.encode()))
    command = Command(argv=("/usr/bin/python3", *words), cwd=cwd, env=env or {})
    return [(one.severity, one.path, one.sentence) for one in check_command(tree, command, "usr/bin/python3.11")]


def test_what_is_imported_late_is_told_and_what_nobody_imports_is_not():
    ((severity, path, sentence),) = check({}, "-m", "app", "--port", "80")
    assert (severity, path) == ("notice", "srv/app/deep.py")
    assert "line 3 (os.fork)" in sentence


@pytest.mark.parametrize(
    ("files", "path", "where"),
    [
        ({"srv/app/web.py": "import os\n\ndef f():\n    os.system('x')\n"}, "srv/app/web.py", "line 4"),
        ({"srv/app/__init__.py": "import app.up\n"}, "srv/app/up.py", "line 2 (subprocess.run)"),
        ({"srv/app/parts/__init__.py": "from ..up import *\n"}, "srv/app/up.py", "line 2"),
        ({"srv/app/__main__.py": "if __name__ == '__main__':\n    import os\n    os.fork()\n"},
         "srv/app/__main__.py", "line 3"),
    ],
)  # fmt: skip
def test_what_is_imported_at_the_start_is_refused_with_its_place(files, path, where):
    refused = [finding for finding in check(files, "-I", "-m", "app") if finding[0] == "refused"]
    assert [one[1] for one in refused] == [path]
    assert where in refused[0][2]
    assert MARKER in refused[0][2]


def test_files_paths_and_other_programs():
    assert check({}, "/main.py", cwd="/") == [], "app is not beside main.py"
    assert [one[1] for one in check({}, "/main.py", env={"PYTHONPATH": "/srv"})] == ["srv/app/up.py"]
    assert [one[1] for one in check({}, "main.py", "x", cwd="/", env={"PYTHONPATH": "/a:/srv"})] == ["srv/app/up.py"]
    for words in ((), ("-c", "import os; os.fork()"), ("-m", "http.server"), ("-m",), ("--version",)):
        assert check({}, *words) == []
    assert list(check_command(Tree(), Command(argv=("/usr/bin/other",)), "usr/bin/other")) == []


@pytest.mark.slow
def test_safelight_runs_on_osv(tmp_path):
    """Check safelight: its worker chooses late between processes and threads, which gives a notice, not an error."""
    project = read_project(ROOT)
    tree = Scan(project, tmp_path, trust=False).tree()
    told = {}
    for name, command in project.run.config_sets.items():
        told[name] = [(one.severity, one.path) for one in check_command(tree, command, "usr/bin/python3.11")]
    decoder = "srv/safelight/worker/decoder"
    late = [("notice", f"{decoder}/{name}") for name in ("sandbox/escapes.py", "child.py")]
    assert told == {"keyvaluestore": [], "db": [], "storage": [], "master": [], "worker": late}


def test_links_that_lead_out_of_the_project_give_a_notice(tmp_path):
    files = {"meta/package.yaml": "name: a\ntitle: A\nauthor: b\n", "lib/x.py": "", "../shared/y.py": ""}
    root = write_files(tmp_path / "project", files)
    (root / "node_modules").mkdir()
    for name, target in (
        ("inside", "lib/x.py"),
        ("lib/up", "../lib/x.py"),
        ("absolute", "/usr/bin/python3"),
        ("shared", "../shared"),
        ("node_modules/shared", "../../shared"),
    ):
        (root / name).symlink_to(target)
    scanning = Scan(read_project(root), tmp_path / "cache", trust=False)
    scanning.tree()
    missing = "outside the project, which the image lacks; copy it"
    assert scanning.notices == [
        f"node_modules/shared is a link to ../../shared, {missing} (`npm install --install-links`)",
        f"shared is a link to ../shared, {missing} (`cp -rL`)",
    ]


def test_a_virtual_environment_of_the_host_gives_a_notice(tmp_path):
    files = {"meta/package.yaml": "name: a\ntitle: A\nauthor: b\n", ".drumheadignore": "/old\n"}
    root = write_files(tmp_path / "project", files)
    for place in ("api/env", ".venv", "old"):
        venv.create(root / place, symlinks=True)
    scanning = Scan(read_project(root), tmp_path / "cache", trust=False)
    scanning.tree()
    (notice,) = scanning.notices
    assert notice.startswith("api/env is a virtual environment of this host")
    assert "add /api/env to .drumheadignore" in notice


def test_a_file_that_cannot_be_read_or_is_gone_is_named_as_one_of_the_project(tmp_path, monkeypatch):
    root = write_files(tmp_path / "p", {"meta/package.yaml": "name: a\ntitle: A\nauthor: b\n", "x/gone": "", "x/y": ""})

    def compose():
        return Scan(read_project(root), tmp_path / "cache", trust=False).tree()

    def lose(path):
        path.unlink()
        return file_digest(path)

    def deny(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    listed = compose()
    monkeypatch.setattr(scan, "file_digest", lose)
    with pytest.raises(DrumheadError, match=r"p/x/gone changed while it was read; try again, or ignore it$"):
        compose()
    with pytest.raises(DrumheadError, match=r"p/x/gone changed while it was read; try again, or ignore it$"):
        listed["x/gone"].read()
    monkeypatch.setattr(scan, "file_digest", deny)
    with pytest.raises(DrumheadError, match=r"p/x/y cannot be read: Permission denied; make it readable, or ignore it"):
        compose()


def test_drumheads_home_is_not_in_the_image_of_the_project_that_it_is_in(tmp_path):
    files = {"meta/package.yaml": "name: a\ntitle: A\nauthor: b\n", "x": "", "build/home/blobs/1": "", "build/y": ""}
    root = write_files(tmp_path / "7", files)
    (tmp_path / "current").symlink_to(root)
    tree = Scan(read_project(root), tmp_path / "current/build/home/cache", trust=False).tree()
    assert {path for path, _ in tree} == {"x", "build", "build/y"}


def test_a_link_to_a_project_is_the_project(tmp_path):
    """Compose ``current``, as deployments call a link to the newest of several directories."""
    root = write_files(
        tmp_path / "7", {"meta/package.yaml": "name: a\ntitle: A\nauthor: b\n", "x.py": "", "y/z.py": ""}
    )
    (tmp_path / "current").symlink_to(root)
    (root / "link").symlink_to("y")
    for place in (root, tmp_path / "current"):
        tree = Scan(read_project(place), tmp_path / "cache", trust=False).tree()
        assert {path for path, _ in tree} == {"link", "x.py", "y", "y/z.py"}
    manifest = root / "meta/package.yaml"
    manifest.write_text(manifest.read_text() + "files:\n  /: link\n")
    with pytest.raises(DrumheadError, match=r"^meta/package.yaml:5: link is a file or a link"):
        read_project(root)


# Composing


def test_a_finding_goes_with_the_file_that_it_is_about():
    one = Finding(path="a", severity="notice", sentence="is one")
    two = Finding(path="a", severity="notice", sentence="is two")
    assert visible_findings([({"a": 0}, (one,)), ({"a": 0}, ())]) == []
    assert visible_findings([({"a": 0}, (one,)), ({"a": 0}, (two,)), ({"b": 0}, ())]) == [two]


def test_files_of_which_the_same_is_to_be_said_share_a_notice():
    alike = [Finding(path=f"m/x/{name}", severity="program", sentence="is foreign") for name in "abc"]
    assert check_findings(find_guest("linux"), alike, Tree(), {}) == [
        "/m/x/a, /m/x/b and 1 more (below /m/x): is foreign"
    ]
    with pytest.raises(DrumheadError, match=r"/m/x/a is foreign \(2 more files are like it\)"):
        check_findings(find_guest("linux"), [replace(finding, severity="refused") for finding in alike], Tree(), {})


def test_prebuilt_files_for_other_machines_are_told_and_starting_one_is_refused(drumhead, tmp_path):
    foreign = arm(LIBRARY.read_bytes())
    project = write_files(
        tmp_path / "project",
        {
            "meta/package.yaml": "name: native\ntitle: x\nauthor: x\nrequire: [cli]\n",
            "meta/run.yaml": "runtime: native\nconfig_set:\n  main:\n    bootcmd: /usr/bin/sh -c true\n",
            "node_modules/x/prebuilds/linux-arm64/x.node": foreign,
            "tool": foreign,
        },
    )
    (project / "tool").chmod(0o755)
    for _ in range(2):  # the notice appears when the layer is made, and again when it exists
        done = drumhead.run("package", "compose", "t/foreign", "-C", project)
        assert done.returncode == 0, done.stderr
        assert (
            "/node_modules/x/prebuilds/linux-arm64/x.node, /tool is made for a processor other than x86-64"
            in done.stderr
        )
    run = project / "meta/run.yaml"
    run.write_text(run.read_text().replace("/usr/bin/sh -c true", "/tool"))
    said = drumhead.refused("package", "compose", "t/foreign", "-C", project, status=5)
    assert "config set main cannot start on linux: /tool is made for a processor other than x86-64" in said


@pytest.mark.parametrize(
    ("files", "env", "lacking"),
    [
        ((), {"LANG": "C.UTF-8", "LC_ALL": "", "LC_TIME": "POSIX", "LANGUAGE": "de"}, []),
        ((), {"LC_ALL": "de_DE.UTF-8"}, ["de_DE.UTF-8"]),
        ((), {"LANG": "de_DE.UTF-8", "LC_TIME": "sl_SI"}, ["de_DE.UTF-8", "sl_SI"]),
        (("usr/lib/locale/de_DE.utf8/LC_CTYPE",), {"LANG": "de_DE.UTF-8"}, []),
        (("usr/lib/locale/de_DE.utf8/LC_CTYPE",), {"LANG": "de_DE.UTF-8@euro"}, ["de_DE.UTF-8@euro"]),
        (("usr/lib/locale/locale-archive",), {"LANG": "de_DE.UTF-8"}, []),
    ],
)
def test_a_locale_that_an_image_lacks_is_told(files, env, lacking):
    tree = Tree()
    for path in files:
        tree.add(path, regular(b""))
    notices = locale_notices(index_of(tree), {"web": Command(argv=("x",), env=env)})
    assert [notice.partition(" is ")[2].partition(",")[0] for notice in notices] == lacking
    assert all("of config set web" in notice for notice in notices)
