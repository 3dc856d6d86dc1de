"""Read meta/run.yaml: runtimes and config sets.

Capstan's documentation describes the format (RuntimeNode, RuntimePython, RuntimeNative, ConfigurationFiles).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.manifest.command_line import parse_command
from drumhead.manifest.records import Base, RunManifest, RuntimeName
from drumhead.records import Command, variable_fault

if TYPE_CHECKING:
    from drumhead.manifest.yaml_reader import Section

RUNTIMES: dict[str, str] = {
    "native": "Run any program of the image",
    "node": "Run a JavaScript application with Node.js",
    "python": "Run a Python application",
}
TOP_KEYS = ("runtime", "config_set", "config_set_default", "warm")
COMMON_KEYS = ("env", "base", "cwd")
KEYS: dict[RuntimeName, tuple[str, ...]] = {
    "native": ("bootcmd",),
    "node": ("main", "args", "node_args", "shell"),
    "python": ("main", "module", "args", "python_args", "shell"),
}
INTERPRETER: dict[RuntimeName, str] = {"native": "", "node": "/usr/bin/node", "python": "/usr/bin/python3"}
REQUIRES: dict[RuntimeName, tuple[str, ...]] = {"native": (), "node": ("node",), "python": ("python",)}
"""The packages that a runtime implies."""


def read_run(section: Section) -> tuple[RunManifest, list[str]]:
    """Return the config sets of a run.yaml as commands, and notices. Raises MANIFEST."""
    notices = list(section.known(*TOP_KEYS))
    runtime = _runtime(section)
    sets = section.section("config_set", "config_set")
    if not sets.keys():
        raise section.refuse("config_set", "run.yaml must give at least one config_set")
    commands, bases = {}, {}
    for name in sets.keys():  # noqa: SIM118 - a Section is not a dict
        if not name.strip() or not name.isprintable():
            raise sets.refuse(name, f"{name!r} is not a name for a config set")
        one = sets.section(name, f"config_set {name}")
        _refuse_others(runtime, one)
        notices += one.known(*COMMON_KEYS, *KEYS[runtime])
        base = _base(runtime, one)
        if base:
            bases[name] = base
        commands[name] = _command(runtime, one, inherits=base is not None)
    default = section.text("config_set_default", "")
    if default and default not in commands:
        names = ", ".join(commands)
        raise section.refuse("config_set_default", f"config_set_default {default} must be one of: {names}")
    if not default and len(commands) == 1:
        (default,) = commands
    warm = _warm(runtime, section)
    return RunManifest(runtime=runtime, config_sets=commands, bases=bases, default=default, warm=warm), notices


def _warm(runtime: RuntimeName, section: Section) -> tuple[str, ...]:
    """Read ``warm``: the modules that a snapshot imports before it is saved."""
    modules = section.texts("warm")
    if modules and runtime != "python":
        raise section.refuse("warm", "warm is for Python modules; remove it, or use runtime: python")
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise section.refuse("warm", f"{name!r} is not the name of a Python module")
    return modules


def _runtime(section: Section) -> RuntimeName:
    if "runtime" not in section:
        raise section.refuse("runtime", "run.yaml must give runtime: native, node or python")
    match section.text("runtime"):
        case "native":
            return "native"
        case "node":
            return "node"
        case "python":
            return "python"
        case "java":
            raise section.refuse(
                "runtime", "for Java, require the package java; runtime: native, with bootcmd: java -jar /app.jar"
            )
        case other:
            raise section.refuse("runtime", f"{other} is not a runtime; runtimes are native, node and python")


def _command(runtime: RuntimeName, section: Section, *, inherits: bool) -> Command:
    environment = section.pairs("env")
    for name, value in environment.items():
        if fault := variable_fault(name, value):
            raise section.refuse("env", fault)
    cwd = section.text("cwd", "" if inherits else "/")
    if cwd and not cwd.startswith("/"):
        raise section.refuse("cwd", f"cwd must be a path from the image's root, not {cwd}")
    if inherits:
        return Command(argv=(), env=environment, cwd=cwd)
    if runtime != "native":
        return Command(argv=(INTERPRETER[runtime], *_arguments(runtime, section)), env=environment, cwd=cwd)
    try:
        command = parse_command(section.text("bootcmd"), environment)
    except DrumheadError as error:
        raise error if error.code is ErrorCode.MANIFEST else section.refuse("bootcmd", error.message) from error
    return Command(argv=command.argv, env=command.env | environment, cwd=cwd)


def _refuse_others(runtime: RuntimeName, section: Section) -> None:
    """Refuse keys that choose the command with another runtime, such as bootcmd with python."""
    wanted = {"native": "bootcmd", "node": "main", "python": "main or module"}[runtime]
    for key in ("main", "module", "bootcmd"):
        if key in section and key not in KEYS[runtime] and "base" not in section:
            raise section.refuse(key, f"with runtime: {runtime}, {section.what} has no {key}; give {wanted}")


def _base(runtime: RuntimeName, section: Section) -> Base | None:
    """Read ``base: PACKAGE:SET``. Return None if there is none, or if it only names the runtime (node-4.4.5:node)."""
    base = section.text("base", "")
    if not base:
        return None
    package, colon, name = base.partition(":")
    if not (package and colon and name):
        raise section.refuse("base", "base must have the form PACKAGE:CONFIG_SET")
    if runtime != "native" and runtime in package:
        return None
    for key in KEYS[runtime]:
        if key in section:
            raise section.refuse(key, f"base {base} gives the whole command; remove {key}, or base")
    return Base(package=package, config_set=name, place=section.place("base"))


def _arguments(runtime: RuntimeName, section: Section) -> tuple[str, ...]:
    options = section.words(f"{runtime}_args")
    if section.flag("shell"):
        for key in ("main", "module", "args"):
            if key in section:
                raise section.refuse(key, f"shell: true starts the interpreter alone; remove {key}")
        return options
    arguments = section.texts("args", may_be_empty=True)
    if runtime == "python" and "module" in section:
        if "main" in section:
            raise section.refuse("module", "give main or module, not both")
        return (*options, "-m", section.text("module"), *arguments)
    if runtime == "python" and "main" not in section:
        raise section.refuse("main", f"{section.what} must give main or module")
    return (*options, section.text("main"), *arguments)
