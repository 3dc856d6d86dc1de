"""Settings, each declared once: flag, environment variable, TOML key and help come from one struct field.

Precedence, strongest first: flag, `SAFELIGHT_<SERVICE>_<FIELD>`, `SAFELIGHT_<FIELD>`, the service's table in the TOML
file, the file's top level, the default. The file is `--config FILE` or `SAFELIGHT_CONFIG`. Services use argparse and
not cyclopts, as the command does, because it takes a thirtieth of the time to import and a machine boots for each one.
For the same reason, modules that declare settings do not use `from __future__ import annotations`: the postponed
annotations would be compiled, twice, when the settings are read.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta

from safelight import __version__
from safelight.errors import validation_problem
from safelight.untrusted.validation import meant_by, suggestion

C = TypeVar("C", bound=msgspec.Struct)

PROGRAMS = ("keyvaluestore", "db", "storage", "master", "worker", "up")
"""The programs that have a table in the settings file."""

COMMAND_VARIABLES = ("CONFIG", "API_KEY", "MASTER", "KEYVALUESTORE", "CLUSTER_KEY_FILE", "TENANT")
"""The variables of the command, and the one that names the settings file, without `SAFELIGHT_`."""

_program = ContextVar("program", default="safelight")
"""The program whose settings were loaded, for errors that are found later."""

_MISSPELT = 0.85
"""How near a name must be to that of a setting, 0 to 1. Settings of two programs are less near, or the same."""
_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP)(_|$)")
_UNITS = {
    "bytes": {"": 1, "B": 1} | {f"{p}{s}": 1024**n for n, p in enumerate("KMGT", 1) for s in ("", "B", "iB")},
    "seconds": {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400},
}
_EXPECTED = re.compile(
    r"Expected `(?P<kind>int|float|bool|str)(?: \| null)?`(?: (?P<comparison>>=|<=|>) (?P<bound>[0-9.]+))?"
    r"(?:, got `.+`)?"
)
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
_COMPARISONS = {">=": "at least", "<=": "at most", ">": "more than"}
_VALUE_OF_BOOL = re.compile(r"argument (--[a-z-]+)/(--no-[a-z-]+): ignored explicit argument .*", re.DOTALL)
_SECONDS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_BYTES = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1))

Size = Annotated[int, Meta(ge=0, extra={"unit": "bytes"})]
"""Bytes; people may write `64M` or `2GiB` (powers of 1024)."""
_LONGEST = 36_500 * 86_400.0
"""A century, which all clocks and databases can still add to the current time."""
Duration = Annotated[float, Meta(ge=0, le=_LONGEST, extra={"unit": "seconds"})]
"""Seconds; people may write `90s`, `5m`, `2h` or `30d`."""
Period = Annotated[float, Meta(gt=0, le=_LONGEST, extra={"unit": "seconds"})]
"""A `Duration` above 0."""


class SettingsError(Exception):
    """A setting is not valid; the message says where it was given and what is expected."""


def load(
    kind: type[C],
    argv: Sequence[str] | None = None,
    *,
    section: str,
    program: str,
    environ: Mapping[str, str] = os.environ,
) -> C:
    """Read the settings of one program; a mistake ends it with status 2 and a sentence on stderr."""
    _program.set(program)
    parser = _Parser(
        prog=program,
        usage=f"{program} [OPTIONS]{_positional(kind)}",
        description=inspect.cleandoc(kind.__doc__ or ""),
        epilog=_EPILOG.format(section=section, prefix=f"SAFELIGHT_{section}_".upper()),
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="Show this help and exit.")
    version = f"{program} {__version__}"
    parser.add_argument("--version", action="version", version=version, help="Show the version and exit.")
    config = environ.get("SAFELIGHT_CONFIG")
    parser.add_argument("--config", metavar="FILE", default=config, help="Read settings from this TOML file.")
    for name, hint in hints(kind).items():
        _add_flag(parser, kind, name, hint)
    given = vars(parser.parse_args(argv))
    for sentence in misspelt(environ, list(hints(kind)), section):
        sys.stderr.write(f"{program}: {sentence}\n")
    try:
        return _merge(kind, given, section, environ)
    except SettingsError as error:
        parser.error(str(error))


_EPILOG = """\
SIZE is a number of bytes, such as 1048576, 64MiB or 2GiB. DURATION is a number of seconds, such as 30, 90s, 5m, 2h
or 30d. Each flag can also be set by a variable ({prefix}PORT for --port), or in the table [{section}] of
the settings file.
"""


def _positional(kind: type[msgspec.Struct]) -> str:
    names = [extra(hint, "positional") for hint in hints(kind).values()]
    return "".join(f" [{name}]" for name in names if name)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        message = _VALUE_OF_BOOL.sub(r"\1 takes no value; \2 turns it off", message)
        sentence = message if message.endswith("?") else f"{message.rstrip('.')}."
        self.exit(2, f"{self.prog}: {sentence} See `{self.prog} --help`.\n")


def _merge(kind: type[C], given: dict[str, Any], section: str, environ: Mapping[str, str]) -> C:
    path = given.pop("config")
    values: dict[str, Any] = {}
    origin: dict[str, tuple[str, Any]] = {}
    table = read_file(path) if path else {}
    _check_names(table, kind, section, path)
    for name, hint in hints(kind).items():
        flag = [(f"--{name.replace('_', '-')}", given.get(name))]
        for source, value in (*flag, *_candidates(name, section, table, path, environ)):
            if value is not None:
                values[name], origin[name] = _in_units(value, hint, source), (source, value)
                break
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        sentence, position = validation_problem(error)
        field = position.removeprefix("$.").partition("[")[0]
        source, value = origin.get(field, (field, None))
        raise SettingsError(f"{source}: {_advice(sentence, hints(kind).get(field), value)}") from None


def _candidates(
    name: str, section: str, table: dict[str, Any], path: str | None, environ: Mapping[str, str]
) -> list[tuple[str, Any]]:
    """Return where a setting of a program may be given besides its flag, strongest first, and what is given there."""
    own = table.get(section)
    own = own if isinstance(own, dict) else {}  # the setting `keyvaluestore` of the others has the name of a program
    return [
        *((variable, environ.get(variable)) for variable in _variables(section, name)),
        (f"{name} in [{section}] of {path}", own.get(name)),
        (f"{name} in {path}", None if isinstance(table.get(name), dict) else table.get(name)),
    ]


def source(name: str, section: str, path: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return where a setting of any program is given besides its flag: a variable or a place in a settings file."""
    table = read_file(path) if path else {}
    candidates = _candidates(name, section, table, path, environ)
    return next((place for place, value in candidates if value is not None), None)


def own(
    name: str, section: str, table: dict[str, Any], path: str | None, environ: Mapping[str, str] = os.environ
) -> tuple[str, Any] | None:
    """Return where a setting is given for this one program besides its flag, and what is given there.

    `table` is the content of the settings file `path`.
    """
    variable, _, in_table, _ = _candidates(name, section, table, path, environ)
    return next((place for place in (variable, in_table) if place[1] is not None), None)


def seconds(place: str, value: Any) -> float:
    """Return the value of a `Duration`; a mistake ends the program with status 2 and a sentence on stderr."""
    try:
        return msgspec.convert(_in_units(value, Duration, place), Duration, strict=False)
    except (SettingsError, msgspec.ValidationError):
        fail(f"{place}: write a duration, such as 30, 5m or 2h, not {value!r}.")


def _advice(sentence: str, hint: Any, value: Any) -> str:
    """Rewrite what msgspec says of a value for the person who wrote it."""
    unit, match = extra(hint, "unit"), _EXPECTED.fullmatch(sentence)
    if choices := _choices(hint):
        wanted = f"{', '.join(choices[:-1])} or {choices[-1]}"
    elif match is not None:
        wanted = {"bytes": "a size", "seconds": "a duration"}.get(unit, _KINDS[match["kind"]])
        if match["bound"]:
            bound = typed((int if match["kind"] == "int" else float)(match["bound"]), unit)
            wanted += f" of {_COMPARISONS[match['comparison']]} {bound}"
    elif "matching regex" in sentence and (wanted := extra(hint, "words")):
        pass
    else:
        return sentence
    return f"write {wanted}, not {value!r}"


def _check_names(table: dict[str, Any], kind: type[msgspec.Struct], section: str, path: str | None) -> None:
    """Refuse names in a settings file that no program reads.

    A setting at the top level may be another program's, so it counts only if it is nearly the name of a setting.
    """
    sections = {name: value for name, value in table.items() if isinstance(value, dict)}
    for name in PROGRAMS:
        value = table.get(name, {})
        if not isinstance(value, dict) and (name, type(value)) != ("keyvaluestore", str):
            raise SettingsError(f"{name} in {path}: write a table, [{name}], not {value!r}")
    for name in sections:
        if name not in PROGRAMS:
            raise SettingsError(f"{path}: there is no program [{name}]{suggestion(name, PROGRAMS)}")
    for name in sections.get(section, {}):
        if name not in (known := list(hints(kind))):
            meant = meant_by(name.replace("-", "_"), known, alike=0.6)
            hint = f"; did you mean {meant}?" if meant else ""
            raise SettingsError(f"{name} in [{section}] of {path}: there is no such setting{hint}")
    for name in table.keys() - sections.keys() - hints(kind).keys():
        if meant := meant_by(name.replace("-", "_"), list(hints(kind)), alike=_MISSPELT):
            raise SettingsError(f"{name} in {path}: there is no such setting; did you mean {meant}?")


def misspelt(environ: Mapping[str, str], names: Sequence[str], section: str) -> list[str]:
    """Return a sentence for each variable that a program with these settings ignores because of its spelling.

    A variable without a program's name may be meant for another one, so it counts only if it is nearly the name of a
    setting. Variables that Kubernetes and Docker make for a service called safelight-db are none of ours.
    """
    found = []
    known = {variable for name in names for variable in _variables(section, name)}
    for variable in sorted(environ):
        word = variable.removeprefix("SAFELIGHT_")
        if word == variable or variable in known or word in COMMAND_VARIABLES or _LINK.search(word):
            continue
        owner = next((program for program in PROGRAMS if word.startswith(f"{program.upper()}_")), None)
        if owner not in (None, section):
            continue
        word = word.removeprefix(f"{section.upper()}_").lower()
        meant = meant_by(word, names, alike=0.6 if owner else _MISSPELT)
        if owner or meant:
            hint = f"; did you mean {_variables(section, meant)[0 if owner else 1]}?" if meant else "."
            found.append(f"The variable {variable} is ignored: there is no such setting{hint}")
    return found


def _variables(section: str, name: str) -> list[str]:
    return [f"SAFELIGHT_{section}_{name}".upper(), f"SAFELIGHT_{name}".upper()]


def read_file(path: str) -> dict[str, Any]:
    """Return the content of a settings file. Raises SettingsError."""
    import tomllib  # noqa: PLC0415 - most services have no settings file, and start sooner without its parser

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # editors may write a byte order mark
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the settings file {path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from None


@cache
def hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the settings of a program: the type of each field by its name."""
    return {field.name: field.type for field in _fields(kind)}


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def description(hint: Any) -> str:
    """Return the help sentence in a setting's type."""
    return next((meta.description for meta in _metas(hint) if meta.description), "")


def _metas(hint: Any) -> list[Meta]:
    if get_origin(hint) is Annotated:
        return [item for item in hint.__metadata__ if isinstance(item, Meta)] + _metas(hint.__origin__)
    return [meta for part in get_args(hint) for meta in _metas(part)]


def extra(hint: Any, key: str) -> Any:
    """Return the value that a setting's type has under a key: its `unit`, `metavar` or `positional`."""
    return next((meta.extra[key] for meta in _metas(hint) if meta.extra and key in meta.extra), None)


def _is_bool(hint: Any) -> bool:
    return hint is bool or (get_origin(hint) is Annotated and hint.__origin__ is bool)


def _add_flag(parser: argparse.ArgumentParser, kind: type[msgspec.Struct], name: str, hint: Any) -> None:
    default = next(f.default for f in _fields(kind) if f.name == name)
    hidden = default is None or default is False or default is msgspec.NODEFAULT or default == ""
    shown = "" if hidden else f" [default: {typed(default, extra(hint, 'unit'))}]"
    text = f"{description(hint)}{shown}".replace("%", "%%")
    if extra(hint, "positional"):
        parser.add_argument(name, nargs="?", default=None, metavar=extra(hint, "positional"), help=text)
    elif _is_bool(hint):
        parser.add_argument(
            f"--{name.replace('_', '-')}", action=argparse.BooleanOptionalAction, default=None, help=text
        )
    else:
        parser.add_argument(f"--{name.replace('_', '-')}", default=None, metavar=_metavar(hint), help=text)


def _metavar(hint: Any) -> str:
    """Return the placeholder for a flag's value in the help: its choices, its unit, or its kind of text."""
    if choices := _choices(hint):
        return "{" + ",".join(choices) + "}"
    if (unit := extra(hint, "unit")) is not None:
        return {"bytes": "SIZE", "seconds": "DURATION"}[unit]
    return str(extra(hint, "metavar") or ("NUMBER" if _holds(hint, int) else "TEXT"))


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return list(map(str, get_args(hint)))
    return [choice for part in get_args(hint) if not isinstance(part, Meta) for choice in _choices(part)]


def _holds(hint: Any, kind: type) -> bool:
    return hint is kind or any(_holds(part, kind) for part in get_args(hint))


def typed(value: Any, unit: str | None = None) -> str:
    """Write a value as a person would type it: `30d`, `2GiB`, `0.5s`. `unit` is "bytes", "seconds" or None."""
    if unit == "seconds" and value:
        name, size = next((n, s) for n, s in _SECONDS if value % s == 0 or n == "s")
        return f"{value / size:g}{name}"
    if unit == "bytes" and value:
        name, size = next((n, s) for n, s in _BYTES if value % s == 0)
        return f"{value // size}{name}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_units(value: Any, hint: Any, source: str) -> Any:
    unit = extra(hint, "unit")
    if unit is None or not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2] not in _UNITS[unit]:
        example = "64M or 1048576" if unit == "bytes" else "30, 5m or 2h"
        raise SettingsError(f"{source}: write a number of {unit}, such as {example}, not {value!r}")
    number = float(match[1]) * _UNITS[unit][match[2]]
    return int(number) if unit == "bytes" else number


def set_program(name: str) -> None:
    """Name the program whose mistakes `fail` reports in this context."""
    _program.set(name)


def fail(sentence: str, *, status: int = 2) -> NoReturn:
    """End the program with a sentence on stderr, for a mistake that is found after the settings were read."""
    sys.stderr.write(f"{_program.get()}: {sentence}\n")
    raise SystemExit(status)
