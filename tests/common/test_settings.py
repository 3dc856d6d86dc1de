"""Test settings: precedence, values, and messages for mistakes."""

from __future__ import annotations

import importlib
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from safelight import settings

PROGRAMS = ("keyvaluestore", "db", "storage", "master", "worker")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A program for tests."""

    place: Annotated[str | None, Meta(description="where", extra={"positional": "PLACE"})] = None
    port: Annotated[int, Meta(ge=0, le=65535, description="100 % of ports")] = 8001
    room: Annotated[settings.Size, Meta(description="room")] = 1024
    pause: Annotated[settings.Duration, Meta(description="pause")] = 1.0
    period: Annotated[settings.Period, Meta(description="period")] = 1.0
    mode: Annotated[Literal["fast", "safe"], Meta(description="mode")] = "safe"
    verify: Annotated[bool, Meta(description="verify")] = False
    token: Annotated[str | None, Meta(description="secret")] = None


def load(*argv: str, **environ: str) -> Config:
    return settings.load(Config, argv, section="db", program="safelight db", environ=environ)


def test_defaults():
    assert load() == Config()


def test_precedence_of_flags_environment_and_file(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("port = 1\nmode = 'fast'\n[db]\nport = 2\n[storage]\nport = 9\n")
    environ = {"SAFELIGHT_CONFIG": str(file)}
    assert load(**environ).mode == "fast"
    assert load(**environ).port == 2
    environ["SAFELIGHT_PORT"] = "3"
    assert load(**environ).port == 3
    environ["SAFELIGHT_DB_PORT"] = "4"
    assert load(**environ).port == 4
    assert load("--port", "5", **environ).port == 5
    other = tmp_path / "other.toml"
    other.write_text("port = 6\n")
    assert load("--config", str(other), SAFELIGHT_CONFIG=str(file)).port == 6


@pytest.mark.parametrize(
    ("text", "size"), [("64M", 64 << 20), ("2GiB", 2 << 30), ("1.5K", 1536), ("7", 7), ("10B", 10), (" 1 kB ", None)]
)
def test_sizes(text, size, capsys):
    if size is None:
        with pytest.raises(SystemExit):
            load("--room", text)
        assert "write a number of bytes, such as 64M" in capsys.readouterr().err
    else:
        assert load("--room", text).room == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("30d", 2592000), ("0.5", 0.5)]
)
def test_durations(text, seconds):
    assert load("--pause", text).pause == seconds
    assert load(SAFELIGHT_PAUSE=text).pause == seconds


def test_flags_positional_and_switches():
    config = load("10.0.0.1:8000", "--verify", "--mode", "fast")
    assert (config.place, config.verify, config.mode) == ("10.0.0.1:8000", True, "fast")
    assert load("--no-verify", SAFELIGHT_VERIFY="true").verify is False
    assert load(SAFELIGHT_VERIFY="1").verify is True


def test_file_values_in_their_own_types(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("[db]\nroom = '1M'\npause = 2\nverify = true\n")
    config = load("--config", str(file))
    assert (config.room, config.pause, config.verify) == (1 << 20, 2.0, True)


@pytest.mark.parametrize(
    ("argv", "environ", "sentence"),
    [
        (["--port", "x"], {}, "--port: write a whole number, not 'x'"),
        (["--port", "70000"], {}, "--port: write a whole number of at most 65535, not '70000'"),
        ([], {"SAFELIGHT_PORT": "x"}, "SAFELIGHT_PORT: write a whole number, not 'x'"),
        ([], {"SAFELIGHT_DB_MODE": "slow"}, "SAFELIGHT_DB_MODE: write fast or safe, not 'slow'"),
        ([], {"SAFELIGHT_VERIFY": "maybe"}, "SAFELIGHT_VERIFY: write true or false, not 'maybe'"),
        (["--verify=maybe"], {}, "--verify takes no value; --no-verify turns it off."),
        (["--pause", "36501d"], {}, "--pause: write a duration of at most 36500d, not '36501d'"),
        (["--pause", "soon"], {}, "--pause: write a number of seconds, such as 30, 5m or 2h, not 'soon'"),
        (["--period", "0"], {}, "--period: write a duration of more than 0, not '0'"),
        (["--prot", "1"], {}, "safelight db: unrecognized arguments: --prot. See `safelight db --help`."),
        (["--config", "/nowhere.toml"], {}, "/nowhere.toml cannot be read: No such file"),
    ],
)
def test_mistakes_end_the_program_with_a_sentence(argv, environ, sentence, capsys):
    with pytest.raises(SystemExit) as caught:
        load(*argv, **environ)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port = [", "is not valid TOML"),
        ("[db]\nport = 'x'", "port in [db] of"),
        ("port = 'x'", "port in"),
        ("periods = 1\nxyzzy = 2", "periods in"),
        ("[db]\nprot = 1", "there is no such setting; did you mean port? See"),
        ("[db]\nshutdown-token = 'x'", "there is no such setting. See"),
        ("[stroage]\nport = 1", "there is no program [stroage]; did you mean storage? See"),
        ("[[db]]\nport = 1", "write a table, [db], not [{'port': 1}]. See"),
        ("master = '10.0.0.1:8003'", "write a table, [master], not '10.0.0.1:8003'. See"),
        ("[[keyvaluestore]]\nport = 1", "write a table, [keyvaluestore], not [{'port': 1}]. See"),
    ],
)
def test_mistakes_in_the_file_name_the_file(tmp_path, text, sentence, capsys):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(SystemExit):
        load("--config", str(file))
    error = capsys.readouterr().err
    assert sentence in error
    assert str(file) in error


@pytest.mark.parametrize("address", ["10.0.0.1", "host:abc", ":80", "a:1,b:2", "::1", "[::1]", "x y:1", "ftp://x:1"])
def test_an_address_to_register_that_nobody_can_call_is_refused(address, capsys):
    kind = importlib.import_module("safelight.db.__main__").Config

    def given(value):
        return settings.load(kind, ["--advertise", value], section="db", program="db", environ={}).advertise

    with pytest.raises(SystemExit):
        given(address)
    assert "--advertise: write HOST:PORT (an IPv6 address in brackets) or a URL, not" in capsys.readouterr().err
    for usable in ("10.0.0.1:80", "[::1]:80", "db.example:8001", "https://db.example/path", ""):
        assert given(usable) == usable


def test_the_file_may_begin_with_a_byte_order_mark_and_must_be_utf_8(tmp_path, capsys):
    file = tmp_path / "settings.toml"
    file.write_text("port = 7", encoding="utf-8-sig")
    assert load("--config", str(file)).port == 7
    file.write_text("port = 7", encoding="utf-16")
    with pytest.raises(SystemExit):
        load("--config", str(file))
    assert f"{file} is not UTF-8 text. See" in capsys.readouterr().err


def test_every_program_reads_a_file_that_says_where_the_key_value_store_is(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("keyvaluestore = '10.0.0.1:8000'\ndata = 'x'\n")
    for name in PROGRAMS:
        kind = importlib.import_module(f"safelight.{name}.__main__").Config
        found = settings.load(kind, ["--config", str(file)], section=name, program=name, environ={})
        assert found.data == "x"
        assert getattr(found, "keyvaluestore", "10.0.0.1:8000") == "10.0.0.1:8000"


@pytest.mark.parametrize("service", ["keyvaluestore", "storage"])
def test_every_service_reads_its_settings_and_prints_help(service, capsys):
    module = __import__(f"safelight.{service}.__main__", fromlist=["Config"])
    config = settings.load(module.Config, ["--port", "0"], section=service, program=service, environ={})
    assert config.port == 0
    with pytest.raises(SystemExit) as caught:
        settings.load(module.Config, ["--help"], section=service, program=service, environ={})
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "--drain DURATION" in shown
    assert "[default: 10s]" in shown
    assert ("KEYVALUESTORE_HOST:PORT" in shown) == (service != "keyvaluestore")
    assert ("--registration-ttl" in shown) == (service != "keyvaluestore")


@pytest.mark.parametrize("service", ["keyvaluestore", "db", "storage", "master", "worker"])
def test_settings_are_not_compiled_when_they_are_read(service):
    """Postponed annotations are compiled, which took most of the time of reading settings."""
    config = __import__(f"safelight.{service}.__main__", fromlist=["Config"]).Config
    texts = [
        name
        for kind in config.__mro__
        for name, hint in vars(kind).get("__annotations__", {}).items()
        if isinstance(hint, str)
    ]
    assert texts == []


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2592000.0, "seconds", "30d"), (300.0, "seconds", "5m"), (90.0, "seconds", "90s"), (0.5, "seconds", "0.5s"),
        (0.0, "seconds", "0"), (2 << 30, "bytes", "2GiB"), (1536, "bytes", "1536"), (3 << 19, "bytes", "1536KiB"),
        (8000, None, "8000"),
    ],
)  # fmt: skip
def test_values_are_shown_as_people_type_them(value, unit, text):
    assert settings.typed(value, unit) == text
    if unit:
        flag = "--pause" if unit == "seconds" else "--room"
        assert getattr(load(flag, text), flag[2:]) == value


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("SAFELIGHT_DB_PROT", "there is no such setting; did you mean SAFELIGHT_DB_PORT?"),
        ("SAFELIGHT_DB_XYZZY", "The variable SAFELIGHT_DB_XYZZY is ignored: there is no such setting."),
        ("SAFELIGHT_VERIFYS", "did you mean SAFELIGHT_VERIFY?"),
        ("SAFELIGHT_DB_PLACE", ""),
        ("SAFELIGHT_TOKEN", ""),
        ("SAFELIGHT_STORAGE_PERIODS", ""),
        ("SAFELIGHT_MASTER", ""),
        ("SAFELIGHT_XYZZY", ""),
        ("SAFELIGHT_DB_SERVICE_HOST", ""),
        ("SAFELIGHT_DB_PORT_8001_TCP_ADDR", ""),
        ("DB_PROT", ""),
    ],
)
def test_misspelt_variables_are_named(variable, sentence, capsys):
    load(**{variable: "1"})
    said = capsys.readouterr().err
    assert sentence in said
    assert bool(said) == bool(sentence)


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_names_a_misspelt_variable_once(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(f"SAFELIGHT_{name}_XYZZY".upper(), "1")
    program = importlib.import_module(f"safelight.{name}.__main__")
    with pytest.raises(SystemExit):  # no service can keep its data in a file
        (tmp_path / "file").touch()
        program.main(["--data", str(tmp_path / "file")])
    assert capsys.readouterr().err.count("XYZZY is ignored") == 1


def test_no_setting_is_taken_for_a_misspelt_one_of_another_program():
    programs = {name: importlib.import_module(f"safelight.{name}.__main__").Config for name in PROGRAMS}
    programs["up"] = importlib.import_module("safelight.cli.up.command").Config
    names = {name: list(settings.hints(kind)) for name, kind in programs.items()}
    environ = {f"SAFELIGHT_{one}".upper(): "" for own in names.values() for one in own}
    environ |= {f"SAFELIGHT_{name}_{one}".upper(): "" for name, own in names.items() for one in own}
    assert [settings.misspelt(environ, own, name) for name, own in names.items()] == [[]] * len(names)
