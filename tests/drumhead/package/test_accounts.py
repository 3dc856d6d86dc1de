"""Test the accounts of images: those of Debian, and those that packages and projects declare."""

import re
from pathlib import Path

import pytest

from drumhead.debian.accounts import Accounts
from drumhead.debian.scripts import created_accounts
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.package.build import select_files
from drumhead.package.recipe import read_recipe
from drumhead.tree import Tree

BASE_PASSWD = Path("/usr/share/base-passwd")
"""The accounts of the Debian on which the tests run, in its package base-passwd."""


def accounts(text):
    files = Accounts([("app.conf", text)]).files()
    return [{line.split(":")[0]: line for line in files[path].splitlines()} for path in ("etc/passwd", "etc/group")]


def test_debians_accounts_have_debians_numbers():
    ours_users, ours_groups = accounts("")
    for ours, file, fields in ((ours_users, "passwd.master", 4), (ours_groups, "group.master", 3)):
        theirs = {line.split(":")[0]: line.split(":") for line in (BASE_PASSWD / file).read_text().splitlines()}
        assert {"root", "www-data", "mail"} <= ours.keys() <= theirs.keys()
        for name, line in ours.items():
            assert line.split(":")[2:fields] == theirs[name][2:fields]


def test_declared_accounts_are_added():
    users, groups = accounts(
        """
        # A comment, then a user as Debian's packages declare it.
        u! stunnel4 - "stunnel service system account" /var/run/stunnel4
        u web 700 "Web server" /srv /bin/sh
        u fixed 701:300
        g icecast 300
        u icecast2 -:icecast
        u squid 702:proxy
        m web icecast
        r - 500-900
        """
    )
    number = users["stunnel4"].split(":")[2]
    assert users["stunnel4"] == (
        f"stunnel4:x:{number}:{number}:stunnel service system account:/var/run/stunnel4:/usr/sbin/nologin"
    )
    assert 100 < int(number) < 900
    assert groups["stunnel4"] == f"stunnel4:x:{number}:"
    assert users["web"] == "web:x:700:700:Web server:/srv:/bin/sh"
    assert users["fixed"] == "fixed:x:701:300::/:/usr/sbin/nologin"
    assert users["icecast2"].split(":")[3] == "300"
    assert users["squid"].split(":")[2:4] == ["702", "13"]
    assert groups["icecast"] == "icecast:x:300:web"
    assert accounts("u stunnel4 -")[0]["stunnel4"].split(":")[2] == number, "a number must depend on the name alone"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("u", "'' is not the name of a user or group"),
        ("u 9lives", "'9lives' is not the name of a user or group"),
        ("x app", "a line begins with u, g or m, not x"),
        ("u app '", "not a line of sysusers.d(5): No closing quotation"),
        ("u app - a:b", "hold no colon"),
        ("u app 70000", "the number of app is 0 to 65533, not 70000"),
        ("u app -:crew", "there is no group crew; declare it"),
        ("m app mail", "there is no user app"),
        ("m root crew", "there is no group crew"),
        ("u app 33", "the user app would have the number 33 of www-data"),
        ("u app 500\nu other 500", "the user other would have the number 500 of app"),
        ("u app 500\nu app 501", "the user app has the number 500 already, not 501"),
        ("# first\n" + "g daemon -\n" * 1001, "an image may declare at most 1000 accounts"),
        ("g www-data 34", "the group www-data has the number 33 already, not 34"),
    ],
)
def test_what_is_no_declaration_is_refused_by_line(text, reason):
    with pytest.raises(DrumheadError, match=re.escape(reason)) as refused:
        accounts(text)
    assert refused.value.code is ErrorCode.MANIFEST
    line = 1 if len(text) > 1000 else text.count("\n") + 1  # that of the file, or of its last line
    assert str(refused.value).startswith(f"app.conf:{line}: ")


MEMCACHED = """
USER="memcache"
GROUP=${GROUP:-memcache}
if ! getent passwd $USER >/dev/null; then
    adduser \\
      --system --disabled-login --ingroup $GROUP --home /nonexistent \\
      --gecos "Memcached" --shell /bin/false \\
      $USER  >/dev/null || true
fi
"""


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        (MEMCACHED, ["u memcache - - /nonexistent"]),
        ("adduser --system --group --home=/var/lib/haproxy haproxy && true", ["u haproxy - - /var/lib/haproxy"]),
        ("test -d /x || useradd -r -d /srv -g icecast radio", ["g icecast -", "u radio -:icecast - /srv"]),
        ("  adduser --system --ingroup nogroup --quiet dnsmasq", ["u dnsmasq -:nogroup - -"]),
        ("adduser --system proxy", []),
        ("adduser somebody", []),
        ("adduser influxdb influxdb", []),
        ("adduser --system $UNKNOWN", []),
        (
            "one=cache\nfor user in $one log; do\n  adduser --system --ingroup nogroup $user\ndone",
            ["u cache -:nogroup - -", "u log -:nogroup - -"],
        ),
        ("adduser --system 'unclosed", []),
        ("# readduser --system app", []),
    ],
)
def test_accounts_of_installation_scripts_are_found(script, lines):
    assert created_accounts([script, script]) == lines


def test_a_package_gives_files_to_its_accounts(tmp_path):
    file = tmp_path / "app.yaml"
    text = (
        "name: app\nkind: tool\ndescription: x\nversion: '1'\ndebian: [app]\ninclude: []\n"
        "files: {usr/lib/sysusers.d/app.conf: u app 300, data/a: '', other: ''}\n"
    )
    file.write_text(text + "directories: [var/app]\nowners: {var/app: 'app:mail', data: app, other: '7'}\n")
    tree = select_files(Tree(), read_recipe(file))
    owners = {path: (entry.uid, entry.gid) for path, entry in tree if entry.uid}
    assert owners == {"var/app": (300, 8), "data": (300, 300), "data/a": (300, 300), "other": (7, 7)}
    for owners, reason in (
        ("{data: nobody-else}", "there is no account nobody-else to give data to; declare it"),
        ("{missing: app}", "there is no missing to give to app"),
    ):
        file.write_text(f"{text}owners: {owners}\n")
        with pytest.raises(DrumheadError, match=reason) as refused:
            select_files(Tree(), read_recipe(file))
        assert refused.value.code is ErrorCode.INCOMPLETE
    file.write_text(text + "owners: {data: 'a b'}\n")
    with pytest.raises(DrumheadError, match="an owner is written USER, USER:GROUP or as numbers"):
        read_recipe(file)
