"""The safelight command. One module per noun; each is imported when it is used.

Services are handed their arguments before anything of this command's own is imported: `safelight db …` is
`python -m safelight.db …`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import cyclopts

PROGRAMS = {
    "keyvaluestore": ("safelight.keyvaluestore.__main__", "Run the key-value store, where services find each other."),
    "db": ("safelight.db.__main__", "Run the service that keeps tasks."),
    "storage": ("safelight.storage.__main__", "Run the service that keeps photos and results."),
    "master": ("safelight.master.__main__", "Run the service that clients and workers talk to."),
    "worker": ("safelight.worker.__main__", "Run a worker, which processes photos."),
    "up": ("safelight.cli.up", "Run everything on this machine: the services and some workers."),
}
"""Programs that read their own arguments (`safelight NAME --help` shows them), and what they are for."""

COMMANDS = {
    "safelight.cli.upload": "upload",
    "safelight.cli.tasks": "status tasks task cancel retry release delete",
    "safelight.cli.download": "download",
    "safelight.cli.top": "top",
}
"""Modules and their commands. The function for `NAME` is `NAME_command`."""

GROUPS = {
    "recipes": ("safelight.cli.recipes", "What can be made of a photo.", "list show check save delete"),
    "store": ("safelight.cli.store", "Look into the key-value store, and change it.", "get set delete list watch"),
}
"""Groups of commands: module, what it is about, commands."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status (docs/cli.md lists them)."""
    argv = sys.argv[1:] if arguments is None else arguments
    if argv and argv[0] in PROGRAMS:
        module = importlib.import_module(PROGRAMS[argv[0]][0])
        return module.main(argv[1:]) or 0
    return _run(argv)


def _run(argv: list[str]) -> int:
    import cyclopts  # noqa: PLC0415 - services go without

    from safelight.cli.printing import complain, status_of  # noqa: PLC0415 - as above
    from safelight.errors import Error  # noqa: PLC0415 - as above

    try:
        command, bound, _ = application().parse_args(argv, exit_on_error=False, print_error=False)
        result = command(*bound.args, **bound.kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except cyclopts.CycloptsError as error:
        complain(f"{error} See safelight --help.")
        return 2
    except Error as error:
        complain(error.detail)
        return status_of(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    return result if isinstance(result, int) else 0


def application() -> cyclopts.App:
    """Put the command together; nothing of a command is imported before it is used."""
    import cyclopts  # noqa: PLC0415 - services go without

    from safelight import __version__  # noqa: PLC0415 - as above

    app = cyclopts.App(
        name="safelight",
        help="Photos go in, workers process them, results come out.",
        version=__version__,
        help_format="plaintext",
    )
    for module, names in COMMANDS.items():
        for name in names.split():
            app.command(f"{module}:{name}_command", name=name)
    for name, (module, about, names) in GROUPS.items():
        group = cyclopts.App(name=name, help=about)
        app.command(group)
        for each in names.split():
            group.command(f"{module}:{each}_command", name=each)
    programs = cyclopts.Group("Programs", help="Each takes --help.", sort_key=2)
    for name, (_, about) in PROGRAMS.items():
        app.command(cyclopts.App(name=name, help=about, group=programs))
    app.register_install_completion_command(help="Install shell completion.")
    return app
