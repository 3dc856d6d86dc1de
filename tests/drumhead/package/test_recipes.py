"""Test the user's recipes: their keys, their errors, and the template for new ones."""

import asyncio
import re

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.package.build import check_programs
from drumhead.package.new import Source, is_related, recipe_text, write_recipe
from drumhead.package.recipe import MAX_BYTES, read_recipe
from drumhead.package.store import PackageStore, parse_ref
from drumhead.tree import Tree, directory, regular
from support.guests.composing import write_files

MINIMAL = "name: mine\nkind: tool\ndescription: Mine\nversion_of: jq\ndebian: [jq]\n"


def refusal(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DrumheadError) as refused:
        read_recipe(file)
    assert refused.value.code is ErrorCode.MANIFEST
    return refused.value.message.removeprefix(str(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "inclde: []\n", "a recipe has no key inclde; did you mean include?"),
        (MINIMAL + "config_sets: {a: {argv: [jq], dir: /}}\n", ":6: config_sets has no key dir"),
        (MINIMAL + "config_sets: {a: {}}\n", ":6: config_sets must give argv"),
        (MINIMAL + "config_sets: {a: {argv: jq}}\n", ":6: config_sets.argv: expected a list, not text"),
        (MINIMAL + "include: usr/bin/jq\n", ":6: include: expected a list, not text"),
        (MINIMAL.replace("kind: tool\n", ""), "the recipe must give kind"),
        (MINIMAL.replace("tool", "program"), ":2: kind: 'program' is not a valid value; write one of runtime, tool"),
        (MINIMAL.replace("tool", "'a - at `$.name` b'"), ":2: kind: 'a - at `$.name` b' is not a valid value"),
        (MINIMAL + "x - at `y`: 1\n", "a recipe has no key x - at `y`"),
        (MINIMAL.replace("name: mine", "name: ../mine"), ":1: name: a name has letters and digits"),
        (MINIMAL.replace("[jq]", "['jq; reboot']"), ":5: debian: the name of a Debian package has"),
        (MINIMAL.replace("debian: [jq]\n", ""), "must give debian (or wheels, or npm)"),
        (MINIMAL.replace("version_of: jq\n", ""), "either version_of, a Debian package, or version"),
        (MINIMAL.replace("version_of: jq", "version: 'main:1'"), ":4: a version has at most 128 bytes, printable"),
        (MINIMAL.replace("version_of: jq", 'version: "1\\e[2J"'), ":4: version: a version has at most 128 bytes"),
        (MINIMAL + "files: {../../etc/cron.d/x: text}\n", ":6: files: a path of the image has no leading slash"),
        (MINIMAL + "links: {/usr/bin/x: jq}\n", ":6: links: a path of the image has no leading slash"),
        (MINIMAL + "demo: {command: [jq], output: '', files: {/etc/motd: x}}\n", ":6: demo.files: a path of the image"),
        (MINIMAL + "demo: {command: [], output: ''}\n", ":6: demo"),
        (MINIMAL + "config_sets:\n  a:\n    argv: []\n", ":6: config set a must give argv"),
        (MINIMAL + "config_sets: {a: {argv: [jq], cwd: srv}}\n", ":6: cwd of config set a must be a path from"),
        (MINIMAL + "config_sets: {a: {argv: [jq], env: {A=B: x}}}\n", ":6: config set a: 'A=B' is not a valid name"),
        (MINIMAL + 'config_sets: {a: {argv: ["jq\\0"]}}\n', ":6: config set a holds a character that no argument"),
        (MINIMAL + "modules: [ext4]\n", ":6: only a kernel has modules"),
        (MINIMAL + "bytecode: 9\n", ":6: bytecode: expected a whole number of at most 2"),
        (MINIMAL + "aliases: ['(']\n", ":6: '(' is not a regular expression"),
        (MINIMAL + "wheels: [numpy]\n", ":6: wheels: a wheel is written NAME==VERSION --hash=sha256:DIGEST"),
        (MINIMAL + "npm: [x@1]\n", ":6: npm: a package of npm is written NAME@VERSION sha512-DIGEST"),
        (
            MINIMAL + f"debian: [{', '.join(f'p{n}' for n in range(65))}]\n",
            "debian: expected a list of at most 64 values",
        ),
        (MINIMAL + "description: 2026-99-99\n", "a value has the wrong type"),
        ("a: [", "it is not YAML"),
        ("- jq", "a recipe must be a mapping (key: value)"),
        ("", "a recipe must be a mapping (key: value)"),
        (b"name: \xff", "it is not text in UTF-8"),
        ("include: " + "[" * 100_000, "nested too deeply"),
        ("#" * (MAX_BYTES + 1), "a recipe has at most 256 KiB"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_line(tmp_path, text, said):
    message = refusal(tmp_path, text)
    assert re.match(r":\d+: ", message)
    assert said in message


@pytest.mark.slow
def test_a_recipe_that_does_not_exist_names_the_command_that_writes_one(empty, tmp_path):
    said = empty.refused("package", "build", "--recipe", tmp_path / "none.yaml", status=3)
    assert "drumhead package new" in said
    assert "r.yaml" in empty.refused(
        "package", "build", "--recipe", write_files(tmp_path, {"r.yaml": "a: ["}) / "r.yaml", status=2
    )


def test_what_a_recipe_includes_moves_and_makes(tmp_path):
    from drumhead.package.build import select_files

    files = Tree()
    for path in ("usr/bin/jq", "usr/share/doc/jq/README", "usr/share/jq/one/a", "usr/share/jq/b"):
        files.add(path, regular(path.encode()))
    more = (
        "move: {usr/share/jq/one: srv/jq, usr/bin/jq: usr/bin/other}\ndirectories: [data]\nlinks: {usr/bin/jq: other}\n"
    )
    file = tmp_path / "r.yaml"
    file.write_text(MINIMAL + more)
    tree = select_files(files, read_recipe(file))
    kept = {path: entry.target or entry.read().decode() for path, entry in tree if entry.kind != "directory"}
    assert kept == {
        "usr/bin/jq": "other",
        "usr/bin/other": "usr/bin/jq",
        "srv/jq/a": "usr/share/jq/one/a",
        "usr/share/jq/b": "usr/share/jq/b",
    }
    assert tree["data"].kind == "directory"
    file.write_text(MINIMAL + "move: {usr/bin/jx: usr/bin/y}\n")
    with pytest.raises(DrumheadError, match="there is no usr/bin/jx to move"):
        select_files(files, read_recipe(file))


def test_a_new_recipe_can_be_built_tested_and_required(drumhead, tmp_path):
    said = drumhead("package", "new", "jq", cwd=tmp_path)
    assert "drumhead package build --recipe jq.yaml" in said
    text = (tmp_path / "jq.yaml").read_text()
    assert "- usr/bin/jq\n" in text
    assert "already exists" in drumhead.refused("package", "new", "jq", status=5, cwd=tmp_path)
    assert "is a package of drumhead" in drumhead.refused("package", "new", "nginx", status=5, cwd=tmp_path)
    assert "not a package name" in drumhead.refused("package", "new", "../x", status=2, cwd=tmp_path)
    assert "cannot be written" in drumhead.refused("package", "new", "jq", "--output", "no/x", status=2, cwd=tmp_path)
    said = drumhead("package", "new", "dnsmasq", cwd=tmp_path)
    assert "wrote dnsmasq.yaml, for dnsmasq-base, because dnsmasq has no programs but scripts and links" in said
    assert "- usr/sbin/dnsmasq\n" in (tmp_path / "dnsmasq.yaml").read_text()
    said = drumhead("package", "new", "perl", cwd=tmp_path)
    assert "wrote perl.yaml, for perl-base, because perl has no programs but scripts and links" in said
    assert "perl: {argv: [/usr/bin/perl]}" in (tmp_path / "perl.yaml").read_text()
    near = drumhead.refused("package", "new", "caddyy", status=3, cwd=tmp_path)
    assert "no package caddyy; there are caddy" in near
    (tmp_path / "jq.yaml").write_text(text.replace("TODO: what it prints", "jq-1.6"))
    (built,) = drumhead.json("package", "build", "--recipe", "jq.yaml", cwd=tmp_path)
    assert built["name"] == "jq"
    assert {"libjq1", "libonig5"} <= {origin["name"] for origin in built["origins"]}
    assert drumhead.json("package", "test", "--recipe", "jq.yaml", cwd=tmp_path) == [
        {"package": "jq", "passed": True, "verdict": "passed"}
    ]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["usr/bin/memcached", "lib/systemd/system/memcached.service"], "application"),
        (["usr/bin/jq"], "tool"),
        (["usr/sbin/haproxy", "usr/bin/halog"], "application"),
    ],
)
def test_a_server_is_an_application(files, kind):
    tree = Tree()
    for path in files:
        tree.add(path, regular(b"\x7fELF"))
    name = files[0].rpartition("/")[2]
    assert f"\nkind: {kind}\n" in recipe_text(name, Source(name, "x", tree), f"{name}.yaml")


def new_recipe(tmp_path, name, *paths, files=(), directories=()):
    tree = Tree()
    for path in directories:
        tree.add(path, directory())
    for path in paths:
        tree.add(path, regular(b"\x7fELF"))
    for path, text in dict(files).items():
        tree.add(path, regular(text.encode()))
    file = tmp_path / f"{name}.yaml"
    file.write_text(recipe_text(name, Source(name, "x", tree), file.name))
    return read_recipe(file)


def test_a_new_recipe_has_what_programs_read(tmp_path):
    """Without it, lighttpd has no modules, perl no strict and prometheus no settings."""
    libraries = ["usr/lib/lighttpd/mod_auth.so", "usr/lib/x86_64-linux-gnu/perl-base/strict.pm"]
    settings = ["etc/lighttpd/conf-available/a.conf", "etc/lighttpd.conf", "usr/share/lighttpd/a.pl"]
    others = ["usr/lib/systemd/system/lighttpd.service", "usr/lib/tmpfiles.d/lighttpd.conf", "etc/init.d/lighttpd"]
    others += ["etc/cron.daily/lighttpd", "etc/default/lighttpd", "usr/share/man/man8/lighttpd.8", "usr/share/icons/a"]
    recipe = new_recipe(tmp_path, "lighttpd", "usr/sbin/lighttpd", *libraries, *settings, *others)
    read = {"usr/lib/lighttpd", "usr/lib/x86_64-linux-gnu", "etc/lighttpd", "etc/lighttpd.conf", "usr/share/lighttpd"}
    assert set(recipe.include) == {"usr/sbin/lighttpd", *read}


@pytest.mark.parametrize(
    ("program", "unit", "argv", "include"),
    [
        (
            "usr/sbin/haproxy",
            (
                'Environment="CONFIG=/usr/share/site/haproxy.cfg" "EXTRAOPTS=-S /run/master.sock"\n'
                "ExecStart=/usr/sbin/haproxy -Ws -f $CONFIG $EXTRAOPTS\nType=notify\n"
            ),
            ("-Ws", "-f", "/usr/share/site/haproxy.cfg", "-S", "/run/master.sock"),
            {"usr/sbin/haproxy", "usr/share/site"},
        ),
        (
            "usr/bin/beanstalkd",
            "EnvironmentFile=-/etc/default/beanstalkd\nExecStart=-/usr/bin/beanstalkd \\\n -l ${ADDRESS} -p 1 $EXTRA\n",
            ("-l", "0.0.0.0", "-p", "1"),
            {"usr/bin/beanstalkd"},
        ),
        ("usr/sbin/nsd", 'Type=notify\nExecStart=/usr/sbin/nsd -d -P ""\n', ("-d", "-P", ""), {"usr/sbin/nsd"}),
        ("usr/sbin/daemon", "Type=forking\nExecStart=/usr/sbin/daemon -b\n", ("-b",), {"usr/sbin/daemon"}),
        ("usr/sbin/job", "Type=oneshot\nExecStart=/usr/sbin/job -b\n", (), {"usr/sbin/job"}),
        ("usr/bin/epmd", "Requires=epmd.socket\nExecStart=/usr/bin/epmd -systemd\n", (), {"usr/bin/epmd"}),
        ("usr/sbin/other", "ExecStart=/usr/share/other/wrapper start\n", (), {"usr/sbin/other"}),
        ("usr/sbin/host", "ExecStart=/usr/sbin/host --name %H\n", (), {"usr/sbin/host"}),
        ("usr/bin/[", "", (), {"usr/bin/["}),
    ],
)
def test_a_new_recipe_starts_a_server_as_its_unit_does(tmp_path, program, unit, argv, include):
    name = program.rpartition("/")[2].replace("[", "coreutils")
    files = {
        f"usr/lib/systemd/system/{name}.service": f"[Service]\n{unit}",
        f"usr/lib/systemd/system/{name}@.service": f"[Service]\nExecStart=/{program} /etc/%i.conf\n",
        f"etc/default/{name}": "# ADDRESS=127.0.0.1\nADDRESS='0.0.0.0'\n",
        f"usr/share/site/{name}.cfg": "",
    }
    recipe = new_recipe(tmp_path, name, program, files=files)
    assert recipe.config_sets[name].argv == (f"/{program}", *argv)
    assert set(recipe.include) == include
    in_background = "on in the background" in (tmp_path / f"{name}.yaml").read_text()
    assert in_background == ("Type=forking" in unit)


@pytest.mark.slow
async def test_a_new_recipe_of_a_server_has_the_files_that_are_in_other_packages(tmp_path):
    """Debian has the settings and the unit of tinyproxy beside its program, and names of root servers beside bind9."""
    await write_recipe(Home(root=tmp_path), "proxy", "tinyproxy", tmp_path / "proxy.yaml")
    recipe = read_recipe(tmp_path / "proxy.yaml")
    assert set(recipe.debian) == {"tinyproxy", "tinyproxy-bin"}
    assert {"usr/bin/tinyproxy", "etc/tinyproxy", "usr/share/tinyproxy"} <= set(recipe.include)
    assert recipe.config_sets["proxy"].argv == ("/usr/bin/tinyproxy", "-d")
    assert recipe.owners == {"run/tinyproxy": "tinyproxy"}
    await write_recipe(Home(root=tmp_path), "names", "bind9", tmp_path / "names.yaml")
    recipe = read_recipe(tmp_path / "names.yaml")
    assert set(recipe.debian) == {"bind9", "dns-root-data"}
    assert {"usr/sbin/named", "etc/bind", "usr/share/dns"} <= set(recipe.include)


def test_a_new_recipe_has_the_directories_that_systemd_makes_for_the_server(tmp_path):
    unit = (
        "[Service]\nType=forking\nUser=queue\nExecStart=/usr/sbin/queue -d\n"
        "RuntimeDirectory=queue queue/sockets %p\nStateDirectory=queue\nLogsDirectory = ../etc\n"
    )
    files = {
        "usr/lib/systemd/system/queue.service": unit,
        "usr/lib/systemd/system/queue-tool.service": unit.replace("sbin/queue", "bin/tool").replace("=queue", "=other"),
        "usr/lib/sysusers.d/queue.conf": "u queue -\n",
    }
    recipe = new_recipe(tmp_path, "queue", "usr/sbin/queue", "usr/bin/tool", files=files)
    owners = dict.fromkeys(["run/queue", "run/queue/sockets", "var/lib/queue"], "queue")
    assert (list(recipe.directories), recipe.owners) == (list(owners), owners)
    undeclared = {**files, "usr/lib/sysusers.d/queue.conf": ""}
    again = new_recipe(tmp_path, "queue", "usr/sbin/queue", files=undeclared)
    assert (list(again.directories), again.owners) == (list(owners), {})


def test_a_new_recipe_has_the_directories_that_the_package_prepares_for_the_server(tmp_path):
    """Without them, haproxy has no place for its socket, and mosquitto none for its log."""
    files = {
        "usr/lib/systemd/system/broker.service": "[Service]\nExecStart=/usr/sbin/broker\nRuntimeDirectory=proxy\n"
        "ExecStartPre=-/bin/mkdir -m 740 -p /var/log/broker /etc/broker\n"
        "ExecStartPre=/usr/bin/chown broker:adm /var/log/broker /run/../etc\n",
        "usr/lib/tmpfiles.d/broker.conf": "# d /run/no 0755 root root -\n  d /run/proxy/ 2775 proxy proxy -\n"
        "d /var/run/broker\nD! /run/other - broker\nd /run/%i\nf /run/file\n",
        "usr/lib/sysusers.d/broker.conf": "u broker -\n",
    }
    shipped = ["var/log/broker", "var/spool/broker/in", "usr/lib/broker"]
    recipe = new_recipe(tmp_path, "broker", "usr/sbin/broker", files=files, directories=shipped)
    made = {"run/proxy", "run/broker", "run/other", "var/log/broker", "var/spool/broker/in"}
    assert set(recipe.directories) == made
    assert recipe.owners == {"run/proxy": "proxy", "run/other": "broker", "var/log/broker": "broker"}


@pytest.mark.parametrize(
    ("name", "paths", "links"),
    [
        ("php-cli", ["usr/bin/php8.2"], {"usr/bin/php": "php8.2"}),
        ("ruby", ["usr/bin/ruby3.1"], {"usr/bin/ruby": "ruby3.1"}),
        ("perl", ["usr/bin/perl", "usr/bin/perl5.36.0"], {}),
        ("7zip", ["usr/bin/7z"], {}),
    ],
)
def test_a_new_recipe_has_the_plain_name_of_a_program_with_a_version(tmp_path, name, paths, links):
    """Debian makes php in a script and ruby in another package."""
    assert new_recipe(tmp_path, name, *paths).links == links


@pytest.mark.parametrize(
    ("program", "more", "missing"),
    [
        ("/usr/bin/jq", "", False),
        ("/bin/jq", "", False),
        ("/TODO", "", True),
        ("/usr/bin/sh", "requires: [cli]\n", False),
    ],
)
def test_a_config_set_must_start_a_program_of_the_package(tmp_path, program, more, missing):
    tree = Tree()
    tree.add("usr/bin/jq", regular(b""))
    file = write_files(tmp_path, {"r.yaml": MINIMAL + f"config_sets:\n  jq: {{argv: [{program}]}}\n{more}"}) / "r.yaml"
    if not missing:
        check_programs(read_recipe(file), tree)
        return
    with pytest.raises(DrumheadError, match="config set jq starts /TODO, which the package does not have"):
        check_programs(read_recipe(file), tree)


async def test_wheels_are_sources_too_and_must_have_their_hash(drumhead, tmp_path):
    """Use typing-extensions 4.15.0 with the digest that PyPI states."""
    digest = "f0fa19c6845758ab08074a0cfa8b7aecb71c999ca73d62883bc25cc018c4e548"
    text = (
        "name: typing\nkind: tool\ndescription: One module\nversion: 4.15.0\n"
        f"wheels: [typing-extensions==4.15.0 --hash=sha256:{digest}]\n"
        "include: []\nmove: {typing_extensions.py: usr/lib/typing.py}\n"
    )
    file = write_files(tmp_path, {"r.yaml": text}) / "r.yaml"
    (built,) = await asyncio.to_thread(drumhead.json, "package", "build", "--recipe", file)
    assert built["version"] == "4.15.0"
    tree = PackageStore(drumhead.home).tree(PackageStore(drumhead.home).find(parse_ref("typing")))
    assert [path for path, entry in tree if entry.kind == "file"] == ["usr/lib/typing.py"]
    file.write_text(text.replace(digest, "0" * 64))
    assert "ash mismatch" in await asyncio.to_thread(drumhead.refused, "package", "build", "--recipe", file, status=4)


@pytest.mark.parametrize(
    ("dependency", "package", "related"),
    [
        ("perl-base", "perl", True),
        ("ruby3.1", "ruby", True),
        ("php8.2-cli", "php-cli", True),
        ("php-common", "php-cli", False),
        ("libc6", "jq", False),
    ],
)
def test_a_dependency_may_have_the_programs_of_a_package(dependency, package, related):
    assert is_related(dependency, package) == related
