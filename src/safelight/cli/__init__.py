"""The safelight command. One module per noun; each is imported when it is used.

Arguments of services are passed on before the command imports anything of its own: `safelight db …` is `python -m
safelight.db …`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import itertools
import signal
import sys
from typing import TYPE_CHECKING

from safelight import imports
from safelight.files.standard_streams import discard_output, prepare_standard_streams

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    import cyclopts
    from cyclopts.help import DefaultFormatter

PROGRAMS = {
    "keyvaluestore": ("safelight.keyvaluestore.__main__", "Run the key-value store, where services find one another."),
    "db": ("safelight.db.__main__", "Run db, which keeps tasks."),
    "storage": ("safelight.storage.__main__", "Run storage, which keeps photos and results."),
    "master": ("safelight.master.__main__", "Run the master, which serves clients and workers."),
    "worker": ("safelight.worker.__main__", "Run a worker, which processes photos."),
    "up": ("safelight.cli.up.command", "Run all services and some workers on this machine."),
}
"""Programs that read their own arguments, and what they are for."""

COMMANDS = {
    "upload": ("safelight.cli.photos.upload:upload_command", "Upload photos, wait for their results and save them."),
    "status": ("safelight.cli.tasks.listing:status_command", "Show the queue and the workers."),
    "top": ("safelight.cli.system.top:top_command", "Show the queue and the workers, live."),
    "tasks": ("safelight.cli.tasks.listing:tasks_command", "List tasks, newest first."),
    "task": ("safelight.cli.tasks.listing:task_command", "Show one task."),
    "download": ("safelight.cli.photos.download:download_command", "Download the results of tasks."),
    "cancel": ("safelight.cli.tasks.actions:cancel_command", "Cancel tasks that have not ended."),
    "retry": ("safelight.cli.tasks.actions:retry_command", "Process failed, cancelled or quarantined tasks again."),
    "release": ("safelight.cli.tasks.actions:release_command", "Process quarantined tasks again."),
    "delete": ("safelight.cli.tasks.actions:delete_command", "Delete tasks with their photos and results."),
    "rerun": ("safelight.cli.tasks.actions:rerun_command", "Process the photos of tasks with another recipe."),
    "pause": ("safelight.cli.tasks.queue:pause_command", "Pause the queue, or one recipe: no worker begins its tasks."),
    "resume": ("safelight.cli.tasks.queue:resume_command", "Resume the queue, or one recipe."),
    "workers": ("safelight.cli.system.workers:app", "List, drain and resume workers."),
    "webhooks": ("safelight.cli.webhooks:app", "List webhook calls with their answers, and make them again."),
    "confirm-clock": (
        "safelight.cli.system.clock:confirm_clock_command",
        "Confirm that the clocks are right, after one has jumped.",
    ),
    "accept-storage": (
        "safelight.cli.system.accept_storage:accept_storage_command",
        "Accept another store of photos, because the old one is gone.",
    ),
    "recipes": ("safelight.cli.recipes:app", "List, show, check and save recipes."),
    "login": ("safelight.cli.access.login:login_command", "Keep an API key for later commands."),
    "logout": ("safelight.cli.access.login:logout_command", "Forget a kept API key."),
    "keys": ("safelight.cli.access.keys:app", "List, create, rotate and revoke API keys."),
    "tenants": ("safelight.cli.access.tenants:app", "List, create, change and delete tenants."),
    "audit": ("safelight.cli.access.tenants:audit_command", "Print the audit log."),
    "share": ("safelight.cli.access.share:share_command", "Make a signed link to a result or an original."),
    "formats": (
        "safelight.cli.formats:formats_command",
        "Show which image formats this installation reads and writes.",
    ),
    "backup": ("safelight.cli.backup.commands:backup_command", "Back up a system while it works."),
    "restore": ("safelight.cli.backup.commands:restore_command", "Restore a backup, or check one."),
    "migrate": (
        "safelight.cli.backup.commands:migrate_command",
        "Copy photos and results, or tasks, to another backend.",
    ),
    "store": ("safelight.cli.system.store:app", "Read and change the key-value store."),
}
"""Commands: where each is, and what it is for."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status (docs/reference/errors.md lists them)."""
    imports.begin()
    prepare_standard_streams()
    argv = sys.argv[1:] if arguments is None else arguments
    try:
        return _chosen(argv)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "safelight"):
            raise
        # Services go without some packages, among them those that print in colour.
        sys.stderr.write(
            f"safelight: This needs the Python package {package}, which is not installed here. Run it where "
            "safelight is installed completely: `pip install .` in a checkout.\n"
        )
        return 1


def _chosen(argv: list[str]) -> int:
    if argv and argv[0] in PROGRAMS:
        module = importlib.import_module(PROGRAMS[argv[0]][0])
        return module.main(argv[1:]) or 0
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set while modules are imported, see `safelight`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return _run(argv)


def _run(argv: list[str]) -> int:
    import cyclopts  # noqa: PLC0415 - services go without

    from safelight.cli.printing import complain  # noqa: PLC0415 - as above
    from safelight.errors import FAILED, Error, status_of  # noqa: PLC0415 - as above

    try:
        return _called(argv)
    except cyclopts.CycloptsError as error:
        unused = error.unused_tokens if isinstance(error, cyclopts.UnusedCliTokensError) else None
        wrong = f"Unexpected argument {unused[0]!r}." if unused else f"{error}{_advice(error, argv)}"
        complain(f"{wrong} See `{' '.join(['safelight', *(error.command_chain or ()), '--help'])}`.")
        return 2
    except Error as error:
        complain(error.detail)
        return status_of(error)
    except KeyboardInterrupt:
        return 130
    except (BrokenPipeError, ExceptionGroup) as error:
        if isinstance(error, ExceptionGroup) and not error.subgroup(BrokenPipeError):
            raise
        discard_output()
        return 141
    except UnicodeEncodeError:
        if (argument := _not_text(argv)) is None:
            raise
        complain(f"The argument {argument!r} is not UTF-8 text.")
        return 2
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # the help's console has met it
            return 141
        raise
    except OSError as error:
        discard_output()
        complain(f"{error.filename or 'The output cannot be written'}: {error.strerror or error}.")
        return FAILED


def _advice(error: cyclopts.CycloptsError, argv: list[str]) -> str:
    """Return what to do about an argument that begins with a hyphen and was not meant as a flag."""
    if "-" in argv:
        return " `-` does not stand for standard input or output here: name a file or a directory."
    flag = getattr(error, "keyword", None) or ""
    follows = dict(itertools.pairwise(argv)).get(flag, "")
    is_flag = not follows.startswith("-") or follows.startswith("--")
    return "" if is_flag else f" Write a value that begins with a hyphen as {flag}={follows}."


def _called(argv: list[str]) -> int:
    """Call the command that `argv` names; return its status."""
    command, bound, _ = application(argv).parse_args(argv, exit_on_error=False, print_error=False)
    imports.complete()
    result = command(*bound.args, **bound.kwargs)
    if inspect.iscoroutine(result):
        result = asyncio.run(_until_signalled(result))
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _not_text(argv: Sequence[str]) -> str | None:
    """Return the first argument that is not UTF-8; only names of files may be so."""
    return next((each for each in argv if any("\ud800" <= letter <= "\udfff" for letter in each)), None)


async def _until_signalled(command: Coroutine[Any, Any, Any]) -> Any:
    """Run a command. SIGTERM and SIGHUP cancel it as Ctrl-C does, so that no temporary files are left.

    A signal that is ignored, as under nohup, stays so. Return the command's status, or that of the signal.
    """
    task, received = asyncio.ensure_future(command), list[int]()

    def stop(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            return 128 + received[0]
        raise


def application(argv: Sequence[str] = ()) -> cyclopts.App:
    """Build the application; import a command only when it is used.

    The help of the command that `argv` calls is its docstring; the others have their sentence in `COMMANDS`.
    """
    import cyclopts  # noqa: PLC0415 - services go without

    from safelight import __version__  # noqa: PLC0415 - as above
    from safelight.cli.groups import ARGUMENTS, PARAMETERS  # noqa: PLC0415 - as above

    app = cyclopts.App(
        name="safelight",
        help="Upload photos, process them on workers and download the results.",
        version=f"safelight {__version__}",
        help_format="plaintext",
        help_formatter=_help_formatter(argv),
        default_parameter=cyclopts.Parameter(negative="", show_default=_shown),
        group_arguments=ARGUMENTS,
        group_parameters=PARAMETERS,
    )
    for order, (name, (target, about)) in enumerate(COMMANDS.items()):
        called = list(argv[:1]) == [name] and target.endswith("_command")
        app.command(target, name=name, help=None if called else about, sort_key=order)
    programs = cyclopts.Group("Services", help="Each has its own --help.", sort_key=2)
    for order, (name, (_, about)) in enumerate(PROGRAMS.items()):
        app.command(cyclopts.App(name=name, help=about, group=programs, sort_key=order))
    app.register_install_completion_command(help="Install completion for your shell.")
    return app


def _help_formatter(argv: Sequence[str]) -> DefaultFormatter | None:
    """Return what prints the help, if `argv` asks for it: importing it takes time."""
    if not {"--help", "-h"} & set(argv):
        return None
    from safelight.cli.help import Formatter  # noqa: PLC0415 - as above

    return Formatter()


def _shown(default: object) -> str | None:
    """Return a default as people type it, or None for flags that need no default in the help."""
    if isinstance(default, list | tuple):
        return ", ".join(map(str, default)) or None
    return None if default is None or default is False or default == "" else str(default)
