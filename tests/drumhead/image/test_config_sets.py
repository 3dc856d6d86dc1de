"""What a config set says that its image does not have: each is refused by name before an image is stored."""

import pytest
from msgspec.structs import replace

from drumhead.closure import index_of
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.checks.arguments import check_arguments
from drumhead.image.checks.modules import check_warm
from drumhead.image.checks.programs import check_directories, check_programs
from drumhead.image.timezones import check_zones
from drumhead.machine.spec.request import choose_commands
from drumhead.records import Blob, Command, Image, Kernel
from drumhead.tree import Tree, regular, symlink
from support.guests.composing import write_files

STANDARD = "usr/lib/python3.11"
FILES = {
    f"{STANDARD}/os.pyc": "",
    f"{STANDARD}/http/__init__.pyc": "",
    f"{STANDARD}/http/server.pyc": "",
    f"{STANDARD}/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so": "",
    "usr/local/lib/python3.11/dist-packages/gunicorn/__main__.pyc": "",
    "usr/lib/drumhead/start.sh": "",
    "server.js": "",
    "site/index.js": "",
    "main.py": "",
    "web/__main__.py": "",
    "part/__init__.py": "",
    "part/one.py": "",
    "srv/shop/__init__.py": "",
    "srv/shop/__main__.py": "",
    "srv/app.jar": "",
    "data/.keep": "",
}
PROGRAMS = ("usr/bin/python3.11", "usr/bin/node", "usr/bin/busybox", "usr/bin/java", "usr/bin/tool")
LINKS = {"usr/bin/python3": "python3.11", "python": "usr/bin/python3.11", "usr/bin/sh": "busybox"}
ELF = b"\x7fELF"


def image_tree(files=None):
    tree = Tree()
    for path, text in (FILES | (files or {})).items():
        tree.add(path, regular(text.encode() if isinstance(text, str) else text))
    for path in PROGRAMS:
        tree.add(path, regular(ELF, 0o755))
    for path, target in LINKS.items():
        tree.add(path, symlink(target))
    return tree


def fault(*argv, cwd="/", env=None, files=None):
    """Why a config set is refused; empty when it is not."""
    tree = image_tree(files)
    commands = {"web": Command(argv=argv, cwd=cwd, env=env or {})}
    try:
        index = index_of(tree)
        programs = check_programs(index, tree, commands, [])
        check_directories(index, commands)
        check_arguments(index, programs)
    except DrumheadError as error:
        assert error.code is ErrorCode.INCOMPLETE
        assert error.message.startswith("config set web ")
        return error.message.removeprefix("config set web ")
    return ""


@pytest.mark.parametrize(
    "argv",
    [
        "/usr/bin/python3 /main.py x",
        "/usr/bin/python3 main.py",
        "/python -u -X dev /web",
        "/usr/bin/python3 -m http.server 8000",
        "/usr/bin/python3 -m gunicorn app:app",
        "/usr/bin/python3 -m part.one",
        "/usr/bin/python3 -c pass",
        "/usr/bin/python3 --version",
        "/usr/bin/python3",
        "/usr/bin/python3 /run/made.py",
        "node /server.js",
        "node /server",
        "node --require /x /site",
        "node --max-old-space-size 64 /unclear.js",
        "node -e 1",
        "node",
        "sh -c 'exit 1'",
        "sh /usr/lib/drumhead/start.sh",
        "sh tool",
        "java -Xmx64M -jar /srv/app.jar",
        "/usr/bin/tool /none",
    ],
)
def test_what_is_there_is_taken(argv):
    assert fault(*argv.split()) == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("/usr/bin/python3 /server.py", "runs /server.py, which is not in the image; correct its name, or add it"),
        ("/usr/bin/python3 -O -X dev sever.py", "runs sever.py, which is not in the image"),
        ("/usr/bin/python3 /srv/main.py", "runs /srv/main.py, which is not in the image; did you mean /main.py?"),
        ("/python /part", "runs /part, which is not in the image"),
        ("/usr/bin/python3 -m part.three", "runs the module part.three, which is not in the image"),
        ("/usr/bin/python3 -mpart", "runs the package part, which has no __main__.py"),
        ("/usr/bin/python3 -m shop", "is in /srv, where Python does not look; add cwd: /srv, or env: {PYTHON"),
        ("/usr/bin/python3 -I -m part.one", "which is in /, where Python does not look"),
        ("node /sever.js", "runs /sever.js, which is not in the image"),
        ("node /data", "runs /data, which is not in the image"),
        ("sh /start.sh", "runs /start.sh, which is not in the image; did you mean /usr/lib/drumhead/start.sh?"),
        ("java -jar /app.jar", "runs /app.jar, which is not in the image; did you mean /srv/app.jar?"),
        ("/tool", "starts /tool, which is not in the image; require its package"),
        ("/main.py", "starts /main.py, which is not executable; chmod +x"),
        ("/srv", "starts /srv, which is a directory"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_by_name(argv, said):
    assert said in fault(*argv.split())


def test_a_program_of_developers_or_of_the_project_is_not_said_to_be_in_a_package():
    assert fault("npm", "start") == "starts npm, which is not in the image; name the program that npm would start"
    described = {"lib/api/pyproject.toml": '[project]\nname = "x"\n[project.scripts]\nserve-api = "api:main"\n'}
    assert "/lib/api/pyproject.toml names it" in fault("serve-api", files=described)
    assert "require its package" in fault("name", files=described)


@pytest.mark.parametrize("name", ["next", "npm"])
def test_a_program_of_node_modules_is_named_as_node_starts_it(name):
    place = f"node_modules/.bin/{name}"
    said = f"starts {name}, which is not in the image; start it as `node /{place}`"
    assert fault(name, "start", files={place: "#!/usr/bin/env node\n"}) == said
    assert fault("node", f"/{place}", "start", files={place: ""}) == ""


def test_a_module_is_looked_for_where_python_looks():
    run = ("/usr/bin/python3", "-m", "shop")
    assert fault(*run, cwd="/srv") == ""
    assert fault(*run, env={"PYTHONPATH": "/nowhere:srv"}) == ""
    assert fault(*run, env={"PYTHONPATH": "/nowhere"})
    assert fault("/usr/bin/python3", "-E", "-m", "shop", env={"PYTHONPATH": "/srv"})
    assert fault(*run, files={"usr/local/lib/python3.11/dist-packages/own.pth": "/srv\n"}) == ""
    assert fault(*run, env={"PYTHONHOME": "/opt"}) == ""


@pytest.mark.parametrize(
    ("cwd", "said"),
    [
        ("/", ""),
        ("/srv/shop/", ""),
        ("/tmp/made", ""),
        ("/srv/ship", "runs in /srv/ship, a directory that is not in the image; correct cwd"),
        ("/main.py", "runs in /main.py, which is not a directory"),
    ],
)
def test_a_working_directory_that_is_not_there_is_refused(cwd, said):
    message = fault("/usr/bin/tool", cwd=cwd)
    assert message.startswith(said)
    assert bool(message) is bool(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho\n", ""),
        ("#! /usr/bin/env -S python3 -u\n", "a script for /usr/bin/env, which is not in the image; require the pack"),
        ("#!/bin/bash -e\n", "a script for /bin/bash, which is not in the image; require its package"),
        ("#!/bin/sh\r\necho\r\n", r"a script for '/bin/sh\r'; its lines end as on Windows"),
        ("echo\n", "which is neither a program nor a script"),
        ("", "which is neither a program nor a script"),
        (ELF, ""),
    ],
)  # fmt: skip
def test_a_script_needs_its_interpreter(text, said):
    tree = image_tree()
    tree.add("run.sh", regular(text.encode() if isinstance(text, str) else text, 0o755))
    commands = {"web": Command(argv=("/run.sh",))}
    if not said:
        check_programs(index_of(tree), tree, commands, [])
        return
    with pytest.raises(DrumheadError) as refused:
        check_programs(index_of(tree), tree, commands, [])
    assert said in refused.value.message


def test_env_starts_only_what_is_there():
    tree = image_tree()
    tree.add("usr/bin/env", regular(ELF, 0o755))
    for program, said in {"python3": "", "-S python3 -u": "", "ruby": "a script for ruby, which is not in"}.items():
        tree.add("run", regular(f"#!/usr/bin/env {program}\n".encode(), 0o755))
        try:
            check_programs(index_of(tree), tree, {"web": Command(argv=("/run",))}, [])
        except DrumheadError as error:
            assert said
            assert said in error.message
        else:
            assert not said


def test_a_file_without_modes_is_started_where_the_guest_has_none():
    tree = image_tree({"plain": ELF})
    commands = {"web": Command(argv=("/plain",))}
    assert check_programs(index_of(tree), tree, commands, [], has_modes=False)


ZONES = {f"usr/share/zoneinfo/{name}": "TZif" for name in ("Europe/Ljubljana", "CET", "America/New_York")}


@pytest.mark.parametrize(
    ("zone", "files", "said"),
    [
        ("Europe/Ljubljana", ZONES, ""),
        (":CET", ZONES, ""),
        ("/usr/share/zoneinfo/CET", ZONES, ""),
        ("UTC", {}, ""),
        ("CET-1CEST,M3.5.0,M10.5.0/3", {}, ""),
        ("<+0330>-3:30", {}, ""),
        ("EST5EDT", {}, ""),
        ("Europe/Lubljana", ZONES, "TZ is Europe/Lubljana, which is not a time zone; did you mean Europe/Ljubljana?"),
        ("america/new_york", ZONES, "did you mean America/New_York?"),
        ("Europe", ZONES, "TZ is Europe, which is not a time zone"),
        ("CEST", ZONES, "TZ is CEST, which is not a time zone"),
        ("/etc/localtime", ZONES, "TZ is /etc/localtime, which is not a time zone"),
        ("Europe/Ljubljana", {}, "the image has no time zones; compose it with --require tzdata"),
    ],
)
def test_a_time_zone_that_does_not_exist_is_refused(zone, files, said):
    commands = {"web": Command(argv=("x",), env={"TZ": zone})}
    index = index_of(image_tree(files))
    if not said:
        check_zones(index, commands)
        return
    with pytest.raises(DrumheadError) as refused:
        check_zones(index, commands)
    assert refused.value.message.startswith("config set web: ")
    assert said in refused.value.message


@pytest.mark.parametrize("program", ["node", "/usr/bin/java"])
def test_programs_with_zones_of_their_own_need_none_in_the_image(program):
    check_zones(index_of(Tree()), {"web": Command(argv=(program, "x"), env={"TZ": "Europe/Ljubljana"})})


@pytest.mark.parametrize("module", ["os", "os.path", "http.server", "_ssl", "sys", "part.one", "part", "shop", "srv"])
def test_a_module_that_a_snapshot_imports_may_be_of_any_kind(module):
    check_warm(index_of(image_tree()), [module], Command(argv=(), env={"PYTHONPATH": "/srv"}))


@pytest.mark.parametrize("module", ["shop", "part.two", "http.client", "nothing"])
def test_a_module_that_a_snapshot_cannot_import_is_refused(module):
    with pytest.raises(DrumheadError, match=f"warm names the module {module}, which is not in the image"):
        check_warm(index_of(image_tree()), [module], Command(argv=()))


def test_a_config_set_that_an_image_does_not_have_is_refused_by_name():
    kernel = Kernel(package="linux", version="1", vmlinux=Blob(digest="0" * 64, size=1), initrd=None)
    commands = {"web": Command(argv=("/web",))}
    image = Image(name="i", title="", version="", guest="linux", kernel=kernel, layers=(), commands=commands)
    with pytest.raises(DrumheadError, match="i has no config set migrate; it has: web"):
        choose_commands(replace(image, default="web"), config_sets=("web", "migrate"))


def test_composing_refuses_what_only_the_guest_would_notice(drumhead, tmp_path):
    project = write_files(
        tmp_path / "project",
        {"meta/package.yaml": "name: p\ntitle: P\nauthor: a\nrequire: [cli]\n", "main.py": "", "a/b.py": ""},
    )
    compose = ("package", "compose", "t/given", "-C", project)

    def said(config_set, *more, top=""):
        write_files(project, {"meta/run.yaml": f"runtime: python\n{top}config_set:\n  web: {{{config_set}}}\n"})
        return drumhead.refused(*compose, *more, status=2)

    assert "config set web runs /min.py, which is not in the image" in said("main: /min.py")
    assert "runs the module a.c, which is not in the image" in said("module: a.c")
    assert "which is in /a, where Python does not look" in said("module: b")
    assert "runs in /srv, a directory that is not in the image" in said("main: /main.py, cwd: /srv")
    assert "TZ is Europe/Lubljana, which is not a time zone; did you mean Europe/Ljubljana?" in said(
        "main: /main.py", "--env", "TZ=Europe/Lubljana"
    )
    assert "warm names the module a.c" in said("main: /main.py", top="warm: [a.c]\n")
    assert "or name a config set (web)" in said("main: /main.py", "--run", "wbe")
    write_files(project, {"setup.py": ""})
    *_, cause, refusal = said("module: flask").splitlines()
    assert cause.startswith("setup.py is not read for dependencies; ")
    assert "runs the module flask, which is not in the image" in refusal
    # A .pth file lets Python look in src, and nowhere else.
    described = {"pyproject.toml": '[project]\nname = "p"\nversion = "1"\n', "src/p/__init__.py": "", "src/p/c.py": ""}
    write_files(project, described)
    assert "runs the module p.d, which is not in the image" in said("module: p.d")
    assert "which is in /a, where Python does not look" in said("module: b")
    assert "warm names the module p.d" in said("module: p.c", top="warm: [p.d]\n")
    assert "there is no image" in drumhead.refused("info", "t/given", status=3), "nothing was stored"


def test_a_machine_is_not_given_what_its_image_lacks(drumhead, project):
    drumhead("package", "compose", "t/machine", "-C", project)

    def said(*words):
        return drumhead.refused("run", "-d", "-i", "t/machine", "given", *words, status=2)

    assert "the image has no time zones; compose it with --require tzdata" in said("--env", "TZ=Europe/Ljubljana")
    assert "a volume cannot be mounted at /main.py: /main.py is a file of the image" in said("--volume", "v:/main.py")
    assert "/main.py is a file of the image" in said("--volume", "v:/main.py/data")
    write_files(
        project,
        {"fleet.yaml": "name: f\nmembers:\n  one: {image: t/machine, env: {TZ: Europe/Lubljana}}\n"},
    )
    drumhead("package", "compose", "t/machine", "-C", project, "--require", "tzdata")
    assert "did you mean Europe/Ljubljana?" in said("--env", "TZ=Europe/Lubljana")
    refused = drumhead.refused("up", "-d", "-f", project / "fleet.yaml", status=2)
    assert "member one: TZ is Europe/Lubljana" in refused
    assert drumhead.json("instances") == []
    assert not (drumhead.home.volumes / "v.raw").exists()
