"""Write the generated parts of docs/reference from the code: PYTHONPATH=tests python tests/documentation/reference.py

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. A test generates all parts again and compares.
"""

import asyncio
import functools
import importlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import aiohttp
import cyclopts
import msgspec
from cyclopts.help import create_parameter_help_panel

from drumhead import errors as drumhead_errors
from drumhead.package.recipe import known_recipes
from safelight import errors, settings
from safelight.cli import PROGRAMS
from support.programs.command import everything
from support.walk import applications, commands

REFERENCE = Path(__file__).parents[2] / "docs/reference"
PART = re.compile(r"(<!-- generated: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SERVICES = ("keyvaluestore", "db", "storage", "master", "worker")


def table(heads: tuple[str, ...], rows: Iterator[tuple[object, ...]] | list[tuple[object, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


def program_settings(name: str) -> str:
    kind = importlib.import_module(PROGRAMS[name][0]).Config
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}

    def row(field: str, hint: Any) -> tuple[object, ...]:
        positional = settings.extra(hint, "positional")
        default = defaults[field]
        shown = "" if default in (None, "", False) or default is msgspec.NODEFAULT else default
        flag = positional or f"--{field.replace('_', '-')}"
        about = [settings.description(hint), noted("choices", choices(hint))]
        return code(flag), code(settings.typed(shown, settings.extra(hint, "unit"))), " ".join(filter(None, about))

    return table(("flag", "default", "meaning"), [row(*each) for each in settings.hints(kind).items()])


def choices(hint: Any) -> tuple[str, ...]:
    """Return the values that a setting may have, or nothing if they are not listed."""
    parts = get_args(hint)
    return parts if get_origin(hint) is Literal else next(filter(None, map(choices, parts)), ())


def safelight_codes() -> str:
    return table(
        ("code", "HTTP status", "worth a retry", "exit status"),
        [
            (code(each.value), errors.STATUS[each], "yes" if errors.Error(each, "").transient else "",
             errors.EXIT_STATUS.get(each, errors.FAILED))
            for each in errors.Code
        ],
    )  # fmt: skip


def drumhead_codes() -> str:
    source = Path(drumhead_errors.__file__).read_text()
    said = dict(re.findall(r'    [A-Z_]+ = "([a-z-]+)"\n    """(.+?)"""', source))
    rows = [
        (code(each.value), drumhead_errors.EXIT_STATUS[each], said[each.value]) for each in drumhead_errors.ErrorCode
    ]
    return table(("code", "exit status", "meaning"), rows)


def metrics(text: str) -> str:
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)", text, re.MULTILINE))
    found = re.findall(r"^# HELP (safelight_\w+) (.+)$", text, re.MULTILINE)
    return table(
        ("metric", "kind", "meaning"),
        [(code(name), kinds[name], f"{about}.") for name, about in found if not name.endswith("_created")],
    )


def api(document: dict[str, Any]) -> str:
    methods = [
        (path, method.upper(), one.get("summary", ""))
        for path, operations in document["paths"].items()
        for method, one in operations.items()
    ]
    return table(("request", "what it does"), [(code(f"{method} {path}"), text) for path, method, text in methods])


def program_commands(program: str) -> str:
    app, parts = applications()[program], []
    for path, command in commands(app):
        if command.default_command is None or (program == "safelight" and path[0] in PROGRAMS):
            continue
        parts.append(f"### {' '.join([program, *path])}\n{one_command(command, app.default_parameter)}")
    return "\n" + "\n".join(parts) + "\n"


def one_command(command: cyclopts.App, defaults: cyclopts.Parameter | None) -> str:
    """Write a command's arguments as its help does; `defaults` are those of the application."""
    about = (command.default_command.__doc__ or "").partition("Parameters\n")[0]  # type: ignore[union-attr]
    arguments = command.assemble_argument_collection(default_parameter=defaults, parse_docstring=True)
    rows = []
    for entry in create_parameter_help_panel(cyclopts.Group(), arguments, "plaintext").entries:
        names = " ".join(code(label) for label in entry.display_labels)
        default = "required" if entry.required else code(entry.default or "")
        notes = [noted("choices", entry.choices), noted("env var", entry.env_var)]
        rows.append((names, default, " ".join([str(entry.description.primary_renderable), *filter(None, notes)])))
    return " ".join(about.split()) + "\n" + ("\n" + table(("argument", "default", "meaning"), rows) if rows else "")


def noted(name: str, words: Sequence[str] | None) -> str:
    return f"[{name}: {', '.join(map(code, words))}]" if words else ""


def packages() -> str:
    return table(("package", "what it is"), [(code(one.name), one.description) for one in known_recipes().values()])


WITHOUT_A_SYSTEM: dict[str, Callable[[], str]] = {
    **{f"settings {name}": functools.partial(program_settings, name) for name in PROGRAMS},
    "codes of safelight": safelight_codes,
    "codes of drumhead": drumhead_codes,
    "commands of safelight": functools.partial(program_commands, "safelight"),
    "commands of drumhead": functools.partial(program_commands, "drumhead"),
    "packages": packages,
}
"""The functions that write the parts that depend only on the code."""


async def of_a_running_system(addresses: dict[str, str]) -> dict[str, str]:
    """Return the parts that are read from the services of a running system."""
    parts = {}
    async with aiohttp.ClientSession() as http:
        for name in SERVICES:
            address = addresses.get(name) or addresses[f"{name}-1"]
            async with http.get(f"http://{address}/metrics") as answer:
                parts[f"metrics {name}"] = metrics(await answer.text())
        async with http.get(f"http://{addresses['master']}/openapi.json") as answer:
            parts["api"] = api(await answer.json())
    return parts


def written() -> dict[str, str]:
    """Return all parts as they are in the pages."""
    return {part[1]: part[2] for page in REFERENCE.glob("*.md") for part in PART.findall(page.read_text())}


def main() -> None:
    with tempfile.TemporaryDirectory() as place, everything(Path(place) / "data") as addresses:
        parts = {name: write() for name, write in WITHOUT_A_SYSTEM.items()} | asyncio.run(
            of_a_running_system(addresses)
        )
    for page in REFERENCE.glob("*.md"):
        page.write_text(PART.sub(lambda part: part[1] + parts[part[2]] + part[4], page.read_text()))
    if missing := parts.keys() - written().keys():
        sys.exit(f"no page has a place for {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
