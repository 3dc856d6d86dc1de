"""The drumhead command. Each noun has a module in this package, which is imported when it is used."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from drumhead import host
from drumhead.errors import EXIT_STATUS, DrumheadError, ErrorCode, host_error

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    import cyclopts
    from cyclopts.help import DefaultFormatter

GRACE = 3.0
"""Seconds that threads have to finish after Ctrl-C or another signal."""
CLEAN_UP = 0.3
"""Seconds that they have after that to remove their temporary files, once the programs they wait for are killed."""
GROUPS = {
    "package": "Compose, build, find, pull and push packages.",
    "image": "Push images to a registry and pull them.",
    "remote": "Choose where packages are searched, pulled from and pushed to.",
    "key": "Create and show the key that signs what you push.",
    "volume": "Create, list and delete disks that outlive their machines.",
    "snapshot": "Save booted machines, so that others resume instead of booting.",
    "runtime": "Show and write templates of meta/run.yaml.",
    "kernel": "Add OSv kernels and list the kernels of the local store.",
}
"""Groups of commands, and their help."""

COMMANDS = {
    "package init": ("drumhead.cli.package.project:init_command", "Write meta/package.yaml into a project."),
    "package new": ("drumhead.cli.package.build:new_command", "Write a recipe for a Debian package to start from."),
    "package compose": ("drumhead.cli.package.project:compose_command", "Compose a project into an image."),
    "package collect": (
        "drumhead.cli.package.project:collect_command",
        "Write the files that an image would hold into a directory.",
    ),
    "package list": ("drumhead.cli.package.store:list_command", "List the packages of the local store."),
    "package search": (
        "drumhead.cli.package.remotes:search_command",
        "Search remotes, the store and the recipes.",
    ),
    "package describe": ("drumhead.cli.package.store:describe_command", "Show a package and the files that it holds."),
    "package build": ("drumhead.cli.package.build:build_command", "Build packages from their recipes."),
    "package pull": ("drumhead.cli.package.remotes:pull_command", "Fetch a package from a remote."),
    "package push": ("drumhead.cli.package.remotes:push_command", "Send a package to a remote."),
    "package test": (
        "drumhead.cli.package.build:test_command",
        "Boot the demos of packages and check their output.",
    ),
    "image push": ("drumhead.cli.image.remotes:push_command", "Send an image to a registry."),
    "image pull": ("drumhead.cli.image.remotes:pull_command", "Fetch an image from a registry."),
    "remote add": ("drumhead.cli.remote:add_command", "Add a remote."),
    "remote list": ("drumhead.cli.remote:list_command", "List the remotes."),
    "remote remove": ("drumhead.cli.remote:remove_command", "Remove a remote."),
    "key create": ("drumhead.cli.key:create_command", "Create the key that signs what you push."),
    "key show": ("drumhead.cli.key:show_command", "Print the public key, for people who pull."),
    "volume create": ("drumhead.cli.volume:create_command", "Create an empty volume."),
    "volume list": ("drumhead.cli.volume:list_command", "List the volumes."),
    "volume delete": ("drumhead.cli.volume:delete_command", "Delete volumes and their data."),
    "snapshot create": ("drumhead.cli.snapshot:create_command", "Save a machine before its command starts."),
    "snapshot list": ("drumhead.cli.snapshot:list_command", "List the snapshots."),
    "snapshot delete": ("drumhead.cli.snapshot:delete_command", "Delete the snapshots of images."),
    "runtime list": ("drumhead.cli.runtime:list_command", "List the runtimes."),
    "runtime preview": ("drumhead.cli.runtime:preview_command", "Print a meta/run.yaml for a runtime."),
    "runtime init": ("drumhead.cli.runtime:init_command", "Write meta/run.yaml for a runtime."),
    "kernel add": ("drumhead.cli.kernel:add_command", "Add an OSv kernel."),
    "kernel list": ("drumhead.cli.kernel:list_command", "List the kernels of the local store."),
    "kernel info": ("drumhead.cli.kernel:info_command", "Show a kernel and the files that it was made from."),
    "images": ("drumhead.cli.image.store:images_command", "List the images of the local store."),
    "info": ("drumhead.cli.image.store:info_command", "Show the size, format, layers and commands of an image."),
    "rmi": ("drumhead.cli.image.store:rmi_command", "Delete images."),
    "export": ("drumhead.cli.image.export:export_command", "Write an image as a bootable disk or as an OCI layout."),
    "run": ("drumhead.cli.machine.run:run_command", "Run a machine from an image."),
    "instances": ("drumhead.cli.machine.instances:instances_command", "List the machines."),
    "stop": ("drumhead.cli.machine.instances:stop_command", "Stop machines."),
    "start": ("drumhead.cli.machine.run:start_command", "Start a stopped machine again."),
    "delete": ("drumhead.cli.machine.instances:delete_command", "Delete stopped machines."),
    "logs": (
        "drumhead.cli.machine.session:logs_command",
        "Print the output of a machine, or of a fleet's machines.",
    ),
    "console": ("drumhead.cli.machine.session:console_command", "Open the serial console of a machine."),
    "exec": ("drumhead.cli.machine.session:exec_command", "Run a program in a running machine."),
    "shell": ("drumhead.cli.shell:shell_command", "Open a shell of this host that is on a private network."),
    "wait": ("drumhead.cli.machine.instances:wait_command", "Wait until a machine has ended."),
    "doctor": ("drumhead.cli.doctor:doctor_command", "Check whether this host has what drumhead needs."),
    "up": ("drumhead.cli.fleet:up_command", "Start the machines of a fleet file and keep them running."),
    "down": ("drumhead.cli.fleet:down_command", "Stop and delete the machines of a fleet."),
    "ps": ("drumhead.cli.fleet:ps_command", "List the machines of a fleet."),
    "scale": ("drumhead.cli.fleet:scale_command", "Change how many machines of a member run."),
}
"""Commands: the function of each, and its help."""

FOREIGN = {
    "attach": "`drumhead logs --follow NAME` shows the output of a machine",
    "build": "`drumhead package compose NAME` composes an image",
    "cp": "`drumhead exec NAME -- sh -c 'cat >PATH' <FILE` copies a file into a machine",
    "create": "`drumhead run -d -i IMAGE NAME` makes a machine and starts it",
    "inspect": "`drumhead instances --json` and `drumhead info IMAGE` show what is known",
    "kill": "`drumhead stop --force NAME` switches a machine off",
    "list": "`drumhead instances` lists the machines",
    "ls": "`drumhead instances` lists the machines",
    "pull": "`drumhead image pull NAME` fetches an image, and `drumhead package pull` a package",
    "push": "`drumhead image push NAME` sends an image, and `drumhead package push` a package",
    "restart": "`drumhead stop NAME` and then `drumhead start NAME` restart a machine",
    "rm": "`drumhead delete NAME` deletes a machine",
    "ssh": "`drumhead exec -t NAME -- sh` opens a shell in a machine",
}
"""Commands of other systems, and what has their place. (cyclopts would offer rmi for rm, which deletes images.)"""


BEFORE_PROGRAM = {"exec": 1, "shell": 0}
"""Commands that run a program, and the number of words before it."""
WITH_VALUE = {"--env", "--cwd", "--private-network"}
"""Their flags whose value may be a word of its own."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status (docs/reference/errors.md lists them)."""
    gc.disable()  # modules are not garbage, so looking for it while they are imported costs time for nothing
    try:
        from drumhead.cli import output  # noqa: PLC0415 - as in application

        output.open_closed_streams()
        output.forget_useless_size()
        with output.printable_streams():
            return _main(arguments)
    except KeyboardInterrupt:
        return 130


def _main(arguments: list[str] | None) -> int:
    import cyclopts  # noqa: PLC0415 - as in application

    from drumhead.cli.output import complain, notice  # noqa: PLC0415 - as above

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        argv = sys.argv[1:] if arguments is None else arguments
        _check_text(argv)
        command, bound, _ = application(argv).parse_args(_end_flags(argv), exit_on_error=False, print_error=False)
        gc.freeze()
        gc.enable()
        result = command(*bound.args, **bound.kwargs)
        if inspect.iscoroutine(result):
            result = _run(result)
    except cyclopts.CycloptsError as error:
        asked = " ".join(["drumhead", *(error.command_chain or ()), "--help"])
        if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
            complain(f"Unexpected argument {error.unused_tokens[0]!r}. See `{asked}`.")
        elif isinstance(error, cyclopts.UnknownCommandError) and asked == "drumhead --help" and argv[0] in FOREIGN:
            complain(f"There is no command {argv[0]}; {FOREIGN[argv[0]]}. See `{asked}`.")
        else:
            complain(f"{error} See `{asked}`.")
        return 2
    except DrumheadError as error:
        for note in getattr(error, "__notes__", ()):
            notice(note)
        complain(error.message)
        return EXIT_STATUS[error.code]
    except BrokenPipeError:
        return 141
    except OSError as error:
        failure = host_error(error)
        complain(failure.message)
        return EXIT_STATUS[failure.code]
    return result if isinstance(result, int) else 0


def _end_flags(argv: Sequence[str]) -> Sequence[str]:
    """Put ``--`` before the program of `exec` or `shell`, because the flags after it are the program's.

    Otherwise ``exec web node --version`` would print drumhead's version, and ``exec web ls -t`` would lose its flag.
    """
    if not argv or argv[0] not in BEFORE_PROGRAM:
        return argv
    words, at = BEFORE_PROGRAM[argv[0]], 1
    while at < len(argv) and argv[at] != "--":
        if not argv[at].startswith("-"):
            if not words:
                return [*argv[:at], "--", *argv[at:]]
            words -= 1
        at += 2 if argv[at] in WITH_VALUE else 1
    return argv


def _run(command: Coroutine[Any, Any, Any]) -> Any:
    """Run the coroutine of a command.

    After Ctrl-C, SIGTERM or SIGHUP the coroutine is cancelled. Threads that are still packing or unpacking have a few
    seconds to remove their temporary files. Files get their name only when they are complete, so stopping these threads
    loses nothing.
    """
    with asyncio.Runner() as runner:
        try:
            return runner.run(_until_signalled(command))
        except KeyboardInterrupt:
            _limit_clean_up(128 + signal.SIGINT)
            raise


async def _until_signalled(command: Coroutine[Any, Any, Any]) -> Any:
    """Run a command that SIGTERM and SIGHUP cancel. Return its status, or that of the signal.

    A signal that is ignored, as under nohup, stays so.
    """
    task, loop, received = asyncio.ensure_future(command), asyncio.get_running_loop(), list[int]()

    def cancel(number: int, _frame: object) -> None:
        received.append(number)
        task.cancel()
        loop.call_soon_threadsafe(lambda: None)  # wakes the loop

    # Without any handler of asyncio's own, a signal that comes just before the loop begins to wait would not wake it.
    # Nobody sends this signal.
    loop.add_signal_handler(signal.SIGURG, lambda: None)
    # asyncio's handlers would not come back when a command that has handlers of its own removes those.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
    status = 128 + received[0]
    _limit_clean_up(status)
    return status


def _limit_clean_up(status: int) -> None:
    """End the process with `status` if its threads do not end by themselves."""
    logging.disable()  # libraries report that they were interrupted
    threading.Thread(target=_give_up, args=[status], daemon=True).start()


def _give_up(status: int) -> None:
    time.sleep(GRACE)
    host.kill_all()
    time.sleep(CLEAN_UP)
    os._exit(status)


def _check_text(argv: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8, because records and machines hold only UTF-8. Raises USAGE."""
    try:
        "".join(argv).encode()
    except UnicodeEncodeError as error:
        raise DrumheadError(ErrorCode.USAGE, "an argument is not UTF-8 text") from error


def application(argv: Sequence[str] = ()) -> cyclopts.App:
    """Build the application without importing any command before it is used.

    The help of the command that `argv` calls comes from its docstring, the help of the others from `COMMANDS`.
    """
    import cyclopts  # noqa: PLC0415 - only the command needs it

    from drumhead import __version__  # noqa: PLC0415 - as above

    app = cyclopts.App(
        name="drumhead",
        help="Compose applications into small virtual machines and run them.",
        version=f"drumhead {__version__}",
        help_format="plaintext",
        help_formatter=_help_formatter(argv),
        default_parameter=cyclopts.Parameter(negative="", show_default=_shown),
        group_arguments=cyclopts.Group("Arguments", validator=_refuse_empty_paths),
        group_parameters=cyclopts.Group("Parameters", validator=_refuse_empty_paths),
    )
    groups = {"": app}
    for order, (name, about) in enumerate(GROUPS.items()):
        groups[name] = cyclopts.App(name=name, help=about, sort_key=order, version_flags=[])
        app.command(groups[name])
    for order, (path, (target, about)) in enumerate(COMMANDS.items(), start=len(GROUPS)):
        group, _, name = path.rpartition(" ")
        called = list(argv[: path.count(" ") + 1]) == path.split()
        groups[group].command(target, name=name, help=None if called else about, sort_key=order)
    return app


def _refuse_empty_paths(arguments: cyclopts.ArgumentCollection) -> None:
    """Refuse an empty text as a path, such as that of an unset variable, which would mean the working directory."""
    for argument in arguments:
        is_path = Path in (argument.hint, *get_args(argument.hint))
        if is_path and any(token.source == "cli" and not token.value for token in argument.tokens):
            message = f"{argument.name}: write a path, not ''; the working directory is `.`"
            raise DrumheadError(ErrorCode.USAGE, message)


def _help_formatter(argv: Sequence[str]) -> DefaultFormatter | None:
    """Return what prints the help, if `argv` asks for it: importing it takes time."""
    if not {"--help", "-h"} & set(argv):
        return None
    from drumhead.cli.help import Formatter  # noqa: PLC0415 - as above

    return Formatter()


def _shown(default: object) -> str | None:
    """Return a default as people would type it, or None if the help should not show one."""
    return None if default is None or default is False or default in ("", ()) else str(default)
