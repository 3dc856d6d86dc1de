"""Test the owners and modes that a manifest sets: in layers, containers, packages and running machines."""

import json
import re
import subprocess
import tarfile

import pytest

from drumhead.debian.accounts import Accounts
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest.linux.skeleton import skeleton
from drumhead.image.layers.permissions import apply_permissions, check_permissions, closed_notices, replaced_notices
from drumhead.image.layers.scan import Scan
from drumhead.image.store import ImageStore
from drumhead.manifest.project import read_project
from drumhead.tree import Tree, directory, regular, symlink
from support.guests.composing import write_files

PACKAGE = """name: owned
title: Owned
author: a
require: [python, cli]
permissions:
  /srv/app/**: {owner: "70", mode: 0640}
  /srv/app/run.sh: {mode: "750"}
  /srv/app/cache: {mode: "1777"}
  /etc/app/*.key: {owner: nobody, mode: 0600}
  /secret.py: {group: tty, mode: 0440}
  /srv/link: {group: 5}
  /var/spool/app/: {owner: 4294967294, group: nogroup, mode: 0700}
  /run/app/: {owner: "70", mode: 0750}
  /run/app/sockets/: {owner: "70", mode: 0700}
"""
EXPECTED = {
    "srv": "0:0 755",
    "srv/app": "0:0 755",
    "srv/app/data.txt": "70:70 640",
    "srv/app/run.sh": "70:70 750",
    "srv/app/sub": "70:70 750",
    "srv/app/sub/more.txt": "70:70 640",
    "srv/app/cache": "70:70 1777",
    "srv/link": "0:5 777",
    "etc/app/tls.key": "65534:65534 600",
    "etc/app/tls.pem": "0:0 644",
    "secret.py": "0:5 440",
    "__pycache__/secret.cpython-311.pyc": "0:5 440",
    "var/spool": "0:0 755",
    "var/spool/app": "4294967294:65534 700",
    "run": "0:0 755",
    "run/app": "70:70 750",
    "run/app/sockets": "70:70 700",
}


@pytest.fixture
def owned(tmp_path):
    root = write_files(
        tmp_path / "owned",
        {
            "meta/package.yaml": PACKAGE,
            "meta/run.yaml": "runtime: native\nconfig_set:\n  wait: {bootcmd: sleep 1000}\n",
            **dict.fromkeys(
                ["srv/app/data.txt", "srv/app/run.sh", "srv/app/sub/more.txt", "srv/app/cache/x", "etc/app/tls.key"], ""
            ),
            "etc/app/tls.pem": "",
            "secret.py": "KEY = 1\n",
        },
    )
    (root / "srv/link").symlink_to("app")
    return root


def listed(layer):
    """Return the owner and the mode of each path in a squashfs, read with unsquashfs."""
    lines = subprocess.run(
        ["unsquashfs", "-lln", "-dest", "/", layer], check=True, capture_output=True, text=True
    ).stdout
    found = {}
    for line in lines.splitlines():
        kind, owner, _, _, _, path = re.fullmatch(r"(\S+) (\S+) +(\d+) (\S+) (\S+) /+(.*)", line).groups()
        bits = sum(1 << (8 - n) for n, letter in enumerate(kind[1:10]) if letter not in "-T")
        bits |= 0o1000 * (kind[9] in "tT")
        found[path.partition(" -> ")[0]] = f"{owner.replace('/', ':')} {bits:o}"
    return found


def test_a_layer_holds_them_and_so_does_a_container(drumhead, owned, tmp_path):
    drumhead("package", "compose", "t/owned", "-C", owned)
    store = ImageStore(drumhead.home)
    found = listed(store.files(store.find("t/owned")).layers[-1])
    assert {path: found[path] for path in EXPECTED} == EXPECTED
    (owned / "meta/package.yaml").write_text(PACKAGE.replace("group: 5", "group: 6"))
    assert "/srv/link: owner 0:5 → 0:6" in drumhead("package", "compose", "t/owned", "-C", owned, "--update")

    out = tmp_path / "layout"
    drumhead("export", "t/owned", out, "--format", "container")
    owners = {}
    for blob in (out / "blobs/sha256").iterdir():
        if blob.read_bytes()[:2] == b"\x1f\x8b":
            with tarfile.open(blob) as layer:
                owners |= {member.name: f"{member.uid}:{member.gid} {member.mode:o}" for member in layer}
    assert {path: owners[path] for path in EXPECTED} == {**EXPECTED, "srv/link": "0:6 777"}


def test_a_machine_a_new_volume_and_a_package_of_the_project_have_them(drumhead, owned, tmp_path):
    drumhead("package", "build", "-C", owned)
    user = write_files(
        tmp_path / "user",
        {
            "meta/package.yaml": "name: user\ntitle: U\nauthor: a\nrequire: [owned]\n",
            "meta/run.yaml": "runtime: native\nconfig_set:\n  wait: {base: 'owned:wait'}\n",
        },
    )
    drumhead("package", "compose", "t/user", "-C", user)
    drumhead("run", "-d", "-m", "128M", "--volume", "owned:/var/spool/app:32M", "-i", "t/user", "owned")
    ask = (
        "import json, os; names = json.loads(os.environ['NAMES']); "
        "facts = {name: os.lstat('/' + name) for name in names}; "
        "shown = {name: f'{one.st_uid}:{one.st_gid} {one.st_mode & 0o7777:o}' for name, one in facts.items()}; "
        "print(json.dumps(shown))"
    )
    try:
        shown = drumhead(
            "exec", "--env", f"NAMES={json.dumps(list(EXPECTED))}", "owned", "--", "/usr/bin/python3", "-c", ask
        )
    finally:
        drumhead("delete", "--force", "owned")
        drumhead("volume", "delete", "owned")
    assert json.loads(shown) == EXPECTED


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("  srv: {mode: 0600}", 5, "must be a path below the image's root"),
        ("  /: {mode: 0600}", 5, "must be a path below the image's root"),
        ("  /../x: {mode: 0600}", 5, "must be a path below the image's root"),
        ("  /a*/: {mode: 0600}", 5, "must name one directory"),
        ("  /a: {}", 5, "must give owner, group or mode"),
        ("  /a: 0600", 5, "must be a mapping"),
        ("  /a:\n    mode: 0888", 6, "mode must be three or four octal digits"),
        ("  /a:\n    mode: 12345", 6, "mode must be three or four octal digits"),
        ("  /a:\n    owner: ''", 6, "owner must be a name or a number"),
        ("  /a:\n    group: 4294967295", 6, "group must be a name or a number"),
        ("  /a:\n    owner: a b", 6, "owner must be a name or a number"),
        ("  /a:\n    onwer: 1", 6, "did you mean owner?"),
        ("  /a:\n    times: 1", 6, "keys owner, group and mode"),
    ],
)
def test_what_is_wrong_is_refused_by_line(tmp_path, text, line, reason):
    root = write_files(tmp_path, {"meta/package.yaml": f"name: a\ntitle: a\nauthor: a\npermissions:\n{text}\n"})
    with pytest.raises(DrumheadError, match=re.escape(reason)) as refused:
        read_project(root)
    assert refused.value.code is ErrorCode.MANIFEST
    assert f"meta/package.yaml:{line}:" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/nothing: {mode: 0600}", "/nothing matches no file of the project"),
        ("/app/*.txt: {mode: 0600}", "/app/*.txt matches no file of the project"),
        ("/app/run/: {mode: 0600}", "/app/run/ is not a directory"),
        ("/app: {owner: app}", "/etc/passwd of the image has no app"),
        ("/app: {group: app}", "/etc/group of the image has no app"),
    ],
)
def test_what_fits_no_file_is_refused(tmp_path, text, reason):
    with pytest.raises(DrumheadError, match=re.escape(reason)) as refused:
        applied(tmp_path, text, {})
    assert "meta/package.yaml:5: " in str(refused.value)


def applied(tmp_path, text, accounts):
    """Return the tree of a small project with these permissions and the project's own `accounts`."""
    package = f"name: a\ntitle: a\nauthor: a\npermissions:\n  {text}\n"
    permissions = read_project(write_files(tmp_path, {"meta/package.yaml": package})).package.permissions
    files, base = Tree(), Tree()
    files.add("app", directory())
    files.add("app/run", regular(b"run", 0o755))
    files.add("app/link", symlink("run"))
    for name, line in accounts.items():
        files.add(name, regular(line.encode()))
    base.add("etc/passwd", regular(b"web:x:1:2::/:/bin/sh\n"))
    return apply_permissions(files, permissions, base)


def test_names_are_the_projects_own_or_the_guests(tmp_path):
    tree = applied(tmp_path, "/app: {owner: web}", {})
    assert (tree["app"].uid, tree["app"].gid) == (1, 2)
    tree = applied(
        tmp_path, "/app: {owner: web, group: all}", {"etc/passwd": "web:x:7:8::/:\n", "etc/group": "all:x:9:\n"}
    )
    assert (tree["app"].uid, tree["app"].gid) == (7, 9)
    tree = applied(tmp_path, "/**: {mode: 0604}", {})
    assert [entry.mode for _, entry in tree] == [0o705, 0o777, 0o604]


def test_directories_are_open_whatever_the_umask_is_and_the_guests_keep_their_mode(tmp_path):
    package = "name: a\ntitle: a\nauthor: a\npermissions: {/closed: {mode: 0700}, /var/tmp: {owner: 1}}\n"
    root = tmp_path / "project"
    names = ("lib/part", "tmp", "var/tmp", "root", "closed", "private")
    write_files(root, {"meta/package.yaml": package, **dict.fromkeys((f"{name}/file" for name in names), "")})
    for path in root.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    project = read_project(root)
    scanned = Scan(project, tmp_path / "cache", trust=False).tree()
    tree = apply_permissions(scanned, project.package.permissions, skeleton())
    found = {name: f"{tree[name].mode:o}" for name in ("lib", *names)}
    opened = dict.fromkeys(("lib", "lib/part", "private"), "755")
    assert found == opened | {"tmp": "1777", "var/tmp": "1777", "root": "700", "closed": "700"}
    assert tree["var/tmp"].uid == 1
    assert tree["private/file"].mode == 0o600


@pytest.mark.parametrize(
    ("filesystem", "text", "reason"),
    [
        ("rofs", "{mode: 0600}", "OSv's file system stores no modes"),
        ("rofs", "{owner: 1}", "OSv's file system stores no owners"),
        ("erofs", "{group: 1}", "leave out --fs erofs"),
    ],
)
def test_what_a_file_system_cannot_hold_is_refused(tmp_path, filesystem, text, reason):
    root = write_files(tmp_path, {"meta/package.yaml": f"name: a\ntitle: a\nauthor: a\npermissions:\n  /a: {text}\n"})
    with pytest.raises(DrumheadError, match=re.escape(reason)) as refused:
        check_permissions(read_project(root).package.permissions, filesystem)
    assert refused.value.code is ErrorCode.UNSUPPORTED
    assert "meta/package.yaml:5: " in str(refused.value)


def test_files_that_only_root_can_read_are_named(owned):
    """After a checkout with the umask 077, all files are like this; what the manifest sets is meant."""
    permissions = read_project(owned).package.permissions
    tree = Tree()
    for path, mode in {"meta/run.yaml": 0o600, "open.py": 0o644, "etc/app/tls.key": 0o600, "srv/app/x": 0o640}.items():
        tree.add(path, regular(b"", mode))
    assert closed_notices(tree, permissions) == []
    tree.add("a.py", regular(b"", 0o640))
    tree.add("bin/b.sh", regular(b"", 0o700))
    (notice,) = closed_notices(tree, permissions)
    assert notice.startswith("/a.py (mode 0640) and 1 more: a program that does not run as root cannot read")
    assert "chmod" in notice


def test_accounts_that_a_file_of_the_project_replaces_are_named():
    collected, project = Tree(), Tree()
    for path, text in Accounts([("a package", "u mosquitto 120\n")]).files().items():
        collected.add(path, regular(text.encode()))
    assert replaced_notices(project, collected) == []
    project.add("etc/passwd", regular(b"root:x:0:0:root:/:/bin/sh\n"))
    (notice,) = replaced_notices(project, collected)
    assert notice.startswith("/etc/passwd of the project replaces")
    assert "lacks mosquitto;" in notice
    project.add("etc/passwd", regular(b"root:x:0:0::/:/bin/sh\nmosquitto:x:7:7::/:/bin/sh\n"))
    assert replaced_notices(project, collected) == []
