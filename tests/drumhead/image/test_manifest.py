"""Test manifests: they are read as by Capstan, and errors name the file, the line and the reason."""

import os
import re

import pytest
import yaml

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.store import check_image_name
from drumhead.manifest.command_line import parse_command
from drumhead.manifest.init import init_project
from drumhead.manifest.project import read_project
from drumhead.manifest.records import Base
from drumhead.package.names import resolve_names
from drumhead.records import Command
from support.guests.composing import write_files

PACKAGE = "name: demo\ntitle: DEMO App\nauthor: lemmy (lemmy@email.com)\n"


def read(tmp_path, package=PACKAGE, run=None):
    files = {"meta/package.yaml": package, "pyproject.toml": "", "server.js": ""}
    if run is not None:
        files["meta/run.yaml"] = run
    return read_project(write_files(tmp_path, files))


def refusal(tmp_path, package=PACKAGE, run=None):
    with pytest.raises(DrumheadError) as caught:
        read(tmp_path, package, run)
    assert caught.value.code is ErrorCode.MANIFEST
    return caught.value.message


def test_the_seeds_package_yaml(tmp_path):
    project = read(
        tmp_path,
        "name: node-micro\ntitle: Node Microservices\nauthor: lemmy\n"
        "require:\n- eu.mikelangelo-project.app.node-4.2.6\n",
    )
    assert project.package.name == "node-micro"
    assert project.package.require == ("eu.mikelangelo-project.app.node-4.2.6",)
    assert project.run is None


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("eu.mikelangelo-project.app.node-4.2.6", "node"),
        ("eu.mikelangelo-project.app.node-4.4.5", "node"),
        ("app.node-4.4.5", "node"),
        ("node-6.10.2", "node"),
        ("eu.mikelangelo-project.osv.cli", "cli"),
        ("osv.cli", "cli"),
        ("python-2.7", "python"),
        ("osv.python3x", "python"),
        ("eu.mikelangelo-project.app.python-3.6", "python"),
        ("osv.python", "python"),
        ("osv.nginx", "nginx"),
        ("osv.openjdk8-zulu-full", "java"),
        ("eu.mikelangelo-project.openjdk8-zulu-compact1", "java"),
        ("osv.run-java", "java"),
    ],
)
def test_old_names_mean_todays_packages_with_a_notice(name, package):
    refs, notices = resolve_names([name])
    assert [ref.name for ref in refs] == [package]
    assert name in notices[0]


def test_what_every_guest_has_is_not_required():
    refs, notices = resolve_names(["osv.bootstrap", "python", "python"])
    assert [ref.name for ref in refs] == ["python"]
    assert "osv.bootstrap is part of every guest" in notices[0]


def test_values_are_taken_as_written(tmp_path):
    project = read(tmp_path, PACKAGE + "version: 1.0\ncreated: 2016-11-01\n")
    assert project.package.version == "1.0"
    assert project.notices == ()


@pytest.mark.parametrize("version", ["''", "'1:2.0-3+deb12u1'", "2016-11-01", "1.0 (beta)", "v1~rc/2"])
def test_many_texts_are_versions(tmp_path, version):
    assert read(tmp_path, PACKAGE + f"version: {version}\n").package.version == version.strip("'")


@pytest.mark.parametrize(
    ("run", "name", "command"),
    [
        (
            "runtime: node\nconfig_set:\n  hello:\n    main: /greeting.js\n    args:\n      - Johnny\n",
            "hello",
            Command(argv=("/usr/bin/node", "/greeting.js", "Johnny")),
        ),
        (
            "runtime: node\nconfig_set:\n  interpreter:\n    shell: true\n",
            "interpreter",
            Command(argv=("/usr/bin/node",)),
        ),
        (
            "runtime: python\nconfig_set:\n  a:\n    main: /s.py\n    python_args: [-O]\n    base: python-2.7:python\n",
            "a",
            Command(argv=("/usr/bin/python3", "-O", "/s.py")),
        ),
        (
            "runtime: python\nconfig_set:\n  a:\n    module: pack.age\n    env:\n      PORT: 8000\n      ON: yes\n",
            "a",
            Command(argv=("/usr/bin/python3", "-m", "pack.age"), env={"PORT": "8000", "ON": "yes"}),
        ),
        (
            "runtime: native\nconfig_set:\n  d:\n    bootcmd: --env=A=1 /ls -l 'a b'\n    env:\n      B: 2\n",
            "d",
            Command(argv=("/ls", "-l", "a b"), env={"A": "1", "B": "2"}),
        ),
    ],
)
def test_config_sets_of_capstans_documentation(tmp_path, run, name, command):
    project = read(tmp_path, run=run)
    assert project.run.config_sets[name] == command
    assert project.run.default == name


def test_the_default_config_set(tmp_path):
    run = "runtime: node\nconfig_set:\n  a: {main: /a.js}\n  b: {main: /b.js}\n"
    assert read(tmp_path, run=run).run.default == ""
    assert read(tmp_path, run=run + "config_set_default: b\n").run.default == "b"


def test_a_config_set_inherits_a_packages_command(tmp_path):
    run = read(tmp_path, run="runtime: native\nconfig_set:\n  s:\n    base: osv.cli:cli\n    env: {A: b}\n").run
    assert run.bases == {"s": Base(package="osv.cli", config_set="cli", place="meta/run.yaml:4")}
    assert run.config_sets["s"].env == {"A": "b"}


@pytest.mark.parametrize(
    ("package", "line", "reason"),
    [
        ("title: t\nauthor: a\n", 1, "must give name"),
        ("name: a\nauthor: a\n", 1, "must give title"),
        ("name: a\ntitle: t\n", 1, "must give author"),
        (PACKAGE + "requires:\n- x\n", 4, "no key requires; did you mean require?"),
        (PACKAGE + "require: python\n", 4, "require must be a list"),
        (PACKAGE + "require:\n- a\n- [b]\n", 6, "must be one value"),
        (PACKAGE + "require:\n- a\n- ../b\n", 6, "'../b' is not a package"),
        (PACKAGE + "require:\n- a@\n", 5, "'a@' is not a package"),
        (PACKAGE + "name: again\n", 4, "given twice"),
        (PACKAGE + f"x: {'[' * 5000}\n", 1, "nested too deeply"),
        (PACKAGE + "x: \0\n", 1, "special characters are not allowed"),
        ("name: ../x\ntitle: t\nauthor: a\n", 1, "not a package name"),
        (PACKAGE + "  x: [\n", 4, "not YAML"),
        (PACKAGE + "guest: windows\n", 4, "linux or osv"),
        (PACKAGE + "version: 2024-05-01T12:30\n", 4, "nothing but a number before a colon, not '2024-05-01T12:30'"),
        (PACKAGE + 'version: "1\\e[2J"\n', 4, "printable characters only"),
        (PACKAGE + f"version: {'é' * 65}\n", 4, "a version has at most 128 bytes"),
        (PACKAGE + "files:\n  /srv: nowhere\n", 5, "not a file or directory"),
        (PACKAGE + "files:\n  /srv: ../..\n", 5, "not a file or directory"),
        (PACKAGE + "files:\n  /: meta/package.yaml\n", 5, "only a directory can be the image's root"),
        (PACKAGE + "python:\n  lock: no.lock\n", 5, "not a file of the project"),
        ("- a\n", 1, "must be a mapping"),
        ("", 1, "empty"),
    ],
)
def test_a_wrong_package_yaml_is_refused_by_line(tmp_path, package, line, reason):
    message = refusal(tmp_path, package)
    assert message.startswith(f"meta/package.yaml:{line}: ")
    assert reason in message


@pytest.mark.parametrize(
    ("run", "line", "reason"),
    [
        ("config_set:\n  a: {main: /a}\n", 1, "must give runtime: native, node or python"),
        ("runtime: java\nconfig_set:\n  a: {main: A}\n", 1, "require the package java; runtime: native"),
        ("runtime: ruby\nconfig_set:\n  a: {main: A}\n", 1, "ruby is not a runtime"),
        ("runtime: node\n", 1, "at least one config_set"),
        ("runtime: node\nconfig_set:\n  '': {main: /a}\n", 3, "'' is not a name for a config set"),
        ("runtime: node\nconfig_set:\n  a:\n    args: [x]\n", 4, "must give main"),
        ("runtime: node\nconfig_set:\n  a:\n    main: /a\n    arg: [x]\n", 5, "no key arg; did you mean args?"),
        ("runtime: node\nconfig_set:\n  a:\n    main: /a\n    env: {1A: x}\n", 5, "not a valid name of an environment"),
        (
            "runtime: node\nconfig_set:\n  a:\n    main: /a\n    env: {A=B: x}\n",
            5,
            "not a valid name of an environment",
        ),
        ('runtime: node\nconfig_set:\n  a:\n    main: "/a\\0b"\n', 4, "holds a character that no text can hold"),
        ('runtime: node\nconfig_set:\n  a:\n    main: /a\n    args: [x, "\\uD800"]\n', 5, "holds a character that no"),
        ('runtime: node\nconfig_set:\n  a:\n    main: /a\n    env: {A: "\\0"}\n', 5, "holds a character that no"),
        ("runtime: node\nconfig_set:\n  a: {main: /a}\nconfig_set_default: b\n", 4, "must be one of: a"),
        ("runtime: node\nconfig_set:\n  a:\n    shell: maybe\n", 4, "true or false"),
        ("runtime: native\nconfig_set:\n  a:\n    bootcmd: '/a; /b'\n    cwd: x\n", 5, "cwd must be a path"),
        ("runtime: native\nconfig_set:\n  a:\n    bootcmd: /a & /b\n", 4, "runs one command"),
        ("runtime: native\nconfig_set:\n  a:\n    bootcmd: '/a \"b'\n", 4, "cannot be split"),
        ("runtime: native\nconfig_set:\n  a:\n    base: nothing\n", 4, "PACKAGE:CONFIG_SET"),
        ("runtime: node\nconfig_set:\n  a: {main: /a}\nwarm: [os]\n", 4, "warm is for Python modules"),
        (
            "runtime: python\nconfig_set:\n  a: {main: /a}\nwarm: [os.path, a-b]\n",
            4,
            "'a-b' is not the name of a Python module",
        ),
    ],
)
def test_a_wrong_run_yaml_is_refused_by_line(tmp_path, run, line, reason):
    message = refusal(tmp_path, run=run)
    assert message.startswith(f"meta/run.yaml:{line}: ")
    assert reason in message


@pytest.mark.parametrize("name", ["meta/package", "meta/run"])
def test_a_manifest_with_another_ending_is_not_ignored(tmp_path, name):
    write_files(tmp_path, {"meta/package.yaml": PACKAGE, "meta/run.yaml": "runtime: native\n"})
    (tmp_path / f"{name}.yaml").rename(tmp_path / f"{name}.yml")
    with pytest.raises(DrumheadError, match=rf"^{name}\.yml:1: .* rename it to {name}\.yaml$"):
        read_project(tmp_path)


def test_names_of_variables_may_have_dots_and_hyphens(tmp_path):
    names = {"discovery.type": "single-node", "npm_config_a-b": "1"}
    lines = "".join(f"      {name}: {value}\n" for name, value in names.items())
    run = read(tmp_path, run=f"runtime: native\nconfig_set:\n  a:\n    bootcmd: /a\n    env:\n{lines}").run
    assert run.config_sets["a"].env == names
    assert parse_command("--env=discovery.type=single-node /a").env == {"discovery.type": "single-node"}


def test_an_argument_may_be_empty_but_not_missing(tmp_path):
    run = "runtime: python\nconfig_set:\n  a:\n    main: /a\n    args:\n    - ''\n    - b\n"
    assert read(tmp_path, run=run).run.config_sets["a"].argv[-3:] == ("/a", "", "b")
    assert refusal(tmp_path, run=f"{run}    -\n").startswith("meta/run.yaml:8: each item of args must be one value")
    assert "each item of require" in refusal(tmp_path, PACKAGE + "require: ['']\n")


def test_an_unknown_key_is_only_noted(tmp_path):
    (notice,) = read(tmp_path, PACKAGE + "homepage: x\n").notices
    assert notice.startswith("meta/package.yaml:4: homepage has no effect here; package.yaml has: name, title, author")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("enviroment: {A: b}", "no key enviroment; did you mean env?"),
        ("working_dir: /srv", "no key working_dir; did you mean cwd?"),
        ("bootcmd: python /a.py", "with runtime: python, config_set web has no bootcmd; give main or module"),
        ("env: {A: b}", "config_set web must give main or module"),
    ],
)
def test_a_word_of_another_program_or_runtime_is_refused_with_the_right_one(tmp_path, line, said):
    run = f"runtime: python\nconfig_set:\n  web:\n    {line}\n"
    assert said in refusal(tmp_path, PACKAGE, run)


def test_other_words_and_a_text_for_a_list_are_refused_with_what_to_write(tmp_path):
    run = "runtime: python\nconfig_set:\n  web: {main: /a.py}\ndefault: web\n"
    assert "meta/run.yaml:4: run.yaml has no key default; did you mean config_set_default?" in refusal(
        tmp_path, PACKAGE, run
    )
    assert refusal(tmp_path, PACKAGE + "require: node\n").endswith("require must be a list: [one, two]")
    assert "package.yaml has no key dependencies; did you mean require?" in refusal(
        tmp_path, PACKAGE + "dependencies: [python]\n"
    )


def test_a_directory_without_manifest_says_what_to_do(tmp_path):
    with pytest.raises(DrumheadError, match="drumhead package init"):
        read_project(tmp_path)


@pytest.mark.parametrize("runtime", ["native", "node", "python"])
def test_what_init_writes_is_read_again(tmp_path, runtime):
    init_project(tmp_path, name="a/b", title="Über: all", author="", require=("cli",), runtime=runtime)
    project = read_project(tmp_path)
    assert (project.package.name, project.package.title, project.package.require) == ("a/b", "Über: all", ("cli",))
    assert project.run.default == "default"
    with pytest.raises(DrumheadError, match="already exists"):
        init_project(tmp_path)


def test_init_makes_a_name_of_that_of_the_directory_and_refuses_a_wrong_one(tmp_path):
    init_project(tmp_path / "Mein Projekt (neu)")
    package = read_project(tmp_path / "Mein Projekt (neu)").package
    assert (package.name, package.title) == ("Mein-Projekt-neu", "Mein Projekt (neu)")
    odd = tmp_path / os.fsdecode(b"pr\xffj")
    init_project(odd)
    package = read_project(odd).package
    assert (package.name, package.title) == ("pr-j", "pr?j")
    init_project(tmp_path / "null")
    assert read_project(tmp_path / "null").package.name == "null"
    with pytest.raises(DrumheadError, match="'a b' is not a package name"):
        init_project(tmp_path, name="a b")
    with pytest.raises(DrumheadError, match="a version has at most 128 bytes"):
        init_project(tmp_path, version="feature:1")


@pytest.mark.parametrize("name", ["", "a b", "a\n", "-x", "/a", "a//b", "../x", "x" * 129])
def test_a_name_that_no_registry_takes_is_no_name_of_an_image(name):
    with pytest.raises(DrumheadError, match="is not an image name"):
        check_image_name(name)
    check_image_name("node-micro/tutorial")


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("/node keyvaluestore.js", ("/node", "keyvaluestore.js")),
        ("/a \\\n  -m x\n", ("/a", "-m", "x")),
        (r"""/a 'b;c' "d e"f \; \$PORT "\"\$x" '' """, ("/a", "b;c", "d ef", ";", "$PORT", '"$x', "")),
        ("/serve $PORT ${HOST}:$PORT '$PORT' \"x; $PORT\"", ("/serve", "80", "h:80", "$PORT", "x; $PORT")),
        ("/serve --at='a b':$PORT", ("/serve", "--at=a b:80")),
        ("/a $ * ~ a=b", ("/a", "$", "*", "~", "a=b")),
        ("--env=PORT=8080 --env=URL=$HOST:$PORT /serve $URL", ("/serve", "h:8080")),
    ],
)
def test_command_lines_are_split_as_in_a_shell(text, argv):
    assert parse_command(text, {"HOST": "h", "PORT": "80"}).argv == argv


def test_variables_may_stand_before_the_program():
    assert parse_command("--env=A?=b --env=B='c d' /x").env == {"A": "b", "B": "c d"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, "does not name a program") for text in ("", "--env=A=b")),
        *((f"/a {more}", "runs one command") for more in ("; /b", "& /b", "> /log", "2>/log", "< /in", "<<E\nx\nE")),
        *((f'/a "b"{more}', "runs one command") for more in ("; /c", "|/c", "&& /c", ">/log", "\n/c")),
        *((f"/a {more}", "runs one command") for more in ("b;/c", "b|c", "x?a=1&b=2", "`date`", "$(date)", "$1", "$$")),
        *((f"/a {more}", "runs one command") for more in ("${B:-8}", "${B", "$?")),
        ("/a $B", "B has no value here; set it with --env=B="),
        ("B=1 /a", "give a variable as --env=B=1 before"),
        ("/a 'b", "No closing quotation"),
        ("/a \\", "No escaped character"),
    ],
)
def test_what_only_a_shell_would_do_is_refused(text, reason):
    with pytest.raises(DrumheadError, match=re.escape(reason)):
        parse_command(text)


def test_an_item_of_node_args_may_hold_several_arguments(tmp_path):
    text = "runtime: node\nconfig_set:\n  a:\n    main: /s.js\n    node_args:\n    - --require module1\n    - -p\n"
    assert read(tmp_path, run=text).run.config_sets["a"].argv[1:] == ("--require", "module1", "-p", "/s.js")


@pytest.mark.parametrize("key", ["bootcmd: /x", "main: /x", "args: [x]", "python_args: [x]", "shell: true"])
def test_a_base_is_refused_beside_what_it_would_drop(tmp_path, key):
    runtime = "native" if key.startswith("bootcmd") else "python"
    with pytest.raises(DrumheadError, match=r"run.yaml:5: base own:set gives the whole command; remove "):
        read(tmp_path, run=f"runtime: {runtime}\nconfig_set:\n  a:\n    base: own:set\n    {key}\n")


def test_merge_keys_are_read_as_yaml_defines_them(tmp_path):
    text = (
        "runtime: python\nconfig_set:\n  a: &a\n    main: /s.py\n    cwd: /srv\n    env: &env {A: 1, B: 2}\n"
        "  b:\n    <<: *a\n    main: /t.py\n    env:\n      <<: [{B: 3, C: 4}, *env]\n      A: 5\n"
    )
    command = read(tmp_path, run=text).run.config_sets["b"]
    assert command == Command(argv=("/usr/bin/python3", "/t.py"), env={"A": "5", "B": "3", "C": "4"}, cwd="/srv")
    assert (
        command.env
        == yaml.safe_load(
            text.replace("1", "'1'").replace("4", "'4'").replace("2", "'2'").replace("3", "'3'").replace("5", "'5'")
        )["config_set"]["b"]["env"]
    )


@pytest.mark.parametrize(
    ("env", "reason"), [("<<: text", "<< merges mappings"), ("&e {<<: *e}", "<< merges a mapping into itself")]
)
def test_a_merge_of_something_else_is_refused_by_line(tmp_path, env, reason):
    place = f"env: {env}" if env[0] == "&" else f"env: {{{env}}}"
    with pytest.raises(DrumheadError, match=rf"run.yaml:5: {reason}"):
        read(tmp_path, run=f"runtime: python\nconfig_set:\n  a:\n    main: /s.py\n    {place}\n")


def test_nested_merges_cost_no_more_than_their_size(tmp_path):
    levels = "".join(f"  l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 9)}]}}\n" for n in range(1, 30))
    text = f"runtime: python\nconfig_set:\n  l0: &l0 {{main: /s.py}}\n{levels}config_set_default: l29\n"
    assert read(tmp_path, run=text).run.config_sets["l29"].argv[-1] == "/s.py"
