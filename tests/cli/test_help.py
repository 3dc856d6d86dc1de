"""Test that the help describes every command and every flag of both programs and of every service."""

import importlib
import itertools
import json
import re

import msgspec
import pytest

from drumhead.cli import COMMANDS, FOREIGN, _end_flags
from safelight import settings
from safelight.cli import PROGRAMS
from support.programs.command import safelight
from support.walk import applications, commands, main

WALKED = {
    " ".join([program, *path]): command
    for program, app in applications().items()
    for path, command in commands(app)
    if not (program == "safelight" and path and path[0] in PROGRAMS)
}


@pytest.mark.parametrize("name", WALKED)
def test_every_command_and_every_flag_is_described(name: str) -> None:
    command = WALKED[name]
    assert command.help.strip(), name
    about = " ".join(command.help.split())
    assert about.endswith((".", ":")), about
    if command.default_command is None:
        return
    assert (command.default_command.__doc__ or "").strip(), f"{name} has no docstring"
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.show:
            text = (argument.parameter.help or "").strip()
            assert text.endswith("."), f"{name} {argument.name}: {text!r} is not a sentence"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_setting_is_described(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(PROGRAMS[name][0])
    for field, hint in settings.hints(module.Config).items():
        described = settings.description(hint)
        assert described.endswith("."), f"{name} {field}: {described!r} is not a sentence"
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert not re.search(r"default: \d+\.0\]|default: \d{6,}(?<!00000)\]", shown), "not as people type it"
    assert not re.search(r"default: (None|False|\"\")", shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WALKED if WALKED[name].default_command is not None])
def test_help_is_shown_in_each_way_to_ask_for_it(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    program, *path = name.split()
    assert main(program, [*path, "--help"]) == 0
    shown = capsys.readouterr().out
    for paragraph in shown.partition("╭")[0].strip().split("\n\n"):
        for line, following in itertools.pairwise(map(str.rstrip, paragraph.splitlines())):
            assert len(f"{line} {following.split()[0]}") > 90, f"{line!r} ends too early"
    assert f"Usage: {name}" in shown
    assert "[default: ]" not in shown
    assert "default: [" not in shown
    assert "--empty-" not in shown
    options = set(re.findall(r"--([a-z-]+)", shown))
    assert not {option for option in options if f"no-{option}" in options}, "a switch and its opposite"


@pytest.mark.parametrize("name", WALKED)
def test_a_wrong_flag_leads_to_the_help_of_its_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *path = name.split()
    if WALKED[name].default_command is None:
        path.append("bogus")
    assert main(program, [*path, "--bogus"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith(f"{program}: ")
    assert error.endswith(f"See `{name} --help`."), error


@pytest.mark.parametrize(
    ("argv", "advice"),
    [
        ("upload -", "`-` does not stand for standard input or output here"),
        ("download 1 --output -", "`-` does not stand for standard input or output here"),
        ("tasks --search -old", "Write a value that begins with a hyphen as --search=-old."),
        ("tasks --search", "requires an argument. See"),
    ],
)
def test_a_value_that_begins_with_a_hyphen_is_explained(
    argv: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("safelight", argv.split()) == 2
    assert advice in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("word", FOREIGN)
def test_a_command_of_another_system_leads_to_what_has_its_place(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("drumhead", [word, "web"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said == f"drumhead: There is no command {word}; {FOREIGN[word]}. See `drumhead --help`."
    named = re.findall(r"`drumhead ([a-z]+(?: [a-z]+)?)", said)
    assert named and all({one, one.split()[0]} & COMMANDS.keys() for one in named), "these commands exist"
    assert word not in COMMANDS


@pytest.mark.parametrize(
    ("argv", "words", "tty"),
    [
        ("-it web sh -l", "web sh -l", True),
        ("-i -t web -- sh -l", "web sh -l", True),
        ("web -t -- ls -i", "web ls -i", True),
        ("web ls -t -i --env a", "web ls -t -i --env a", False),
        ("web node --version", "web node --version", False),
        ("--env A=b web --cwd / sh -c -- x", "web sh -c -- x", False),
        ("web -- node -- --help", "web node -- --help", False),
    ],
)
def test_the_flags_after_a_program_are_the_program_s(argv: str, words: str, *, tty: bool) -> None:
    given = ["exec", *argv.split()]
    _, bound, _ = applications()["drumhead"].parse_args(_end_flags(given), exit_on_error=False, print_error=False)
    assert bound.args == tuple(words.split())
    assert bound.kwargs.get("tty", False) == tty


def test_a_shell_s_program_has_flags_of_its_own() -> None:
    assert _end_flags(["shell", "--private-network", "shop", "curl", "-V"])[3:] == ["--", "curl", "-V"]
    assert _end_flags(["run", "web", "-d"]) == ["run", "web", "-d"]


def test_a_record_without_a_description_would_be_noticed() -> None:
    class Config(msgspec.Struct):
        port: int = 0

    assert settings.description(settings.hints(Config)["port"]) == ""


@pytest.mark.slow
def test_the_formats_of_this_installation_are_listed() -> None:
    told = safelight("formats", "--json")
    assert told.returncode == 0, told.stderr
    rows = {row["format"]: row for row in json.loads(told.stdout)}
    assert rows["heic"]["reads"]
    assert not rows["heic"]["writes"]
    assert rows["jxl"]["writes"]
    assert rows["png"]["animated"]
    assert "JPEG XL" in safelight("formats").stdout
