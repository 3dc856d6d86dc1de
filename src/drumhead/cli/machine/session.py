"""``drumhead logs``, ``console`` and ``exec``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from drumhead.cli.flags import Count
from drumhead.cli.fleet_logs import print_logs
from drumhead.cli.output import notice
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest, require
from drumhead.home import find_home
from drumhead.machine.instances import Instances
from drumhead.machine.session.terminal import claiming_console, run_console, run_session
from drumhead.machine.spec.options import read_variables
from drumhead.machine.stop import wait_machine
from drumhead.machine.watch import follow as follow_file
from drumhead.machine.watch import read_from, tail_offset
from drumhead.records import Command
from drumhead.text import write_output

if TYPE_CHECKING:
    from drumhead.machine.instances import Instances

Flag = Parameter(negative="")


async def logs_command(
    name: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    tail: Annotated[int | None, Count, Parameter(name=["--tail", "-n"])] = None,
    console: Annotated[bool, Flag] = False,
) -> None:
    """Print the output of a machine's command.

    Parameters
    ----------
    name:
        The name of the instance, or of a fleet to print the output of all its machines.
    follow:
        Print further output until the machine ends.
    tail:
        Print only this many of the last lines.
    console:
        Print the output of the kernel and of init instead.
    """
    instances = Instances(find_home())
    if instances.find(name) is None and (find_home().fleets / name).is_dir():
        await print_logs(name, follow=follow, tail=tail)
        return
    instances.read(name)
    await _print_file(instances, name, "console" if console else "log", follow=follow, tail=tail)
    ended = instances.read(name)
    if ended.reason and not console:
        notice(f"{name}: {ended.reason}")


async def console_command(name: str, /) -> None:
    """Open the serial console of a machine. Enter starts a shell there; Ctrl-] or the end of input leaves the
    console.

    Parameters
    ----------
    name:
        The name of the instance.
    """
    instances = Instances(find_home())
    running = instances.read_running(name)
    path = instances.directory(name) / "console"
    with claiming_console(path.parent):
        for part in read_from(path, tail_offset(path, 20)):
            write_output(part)
        shell = find_guest(running.launch.guest).unsupported.get("shell", "")
        notice(f"Console of {name}; Ctrl-] leaves it.{f' {shell}.' if shell else ''}")
        await run_console(path.parent)


async def exec_command(
    name: str,
    /,
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    tty: Annotated[bool, Parameter(name=["--tty", "-t"], negative="")] = False,
    env: Annotated[tuple[str, ...], Parameter(name="--env")] = (),
    cwd: str = "/",
    interactive: Annotated[bool, Parameter(name=["--interactive", "-i"], negative="", show=False)] = False,  # noqa: ARG001 - it always is
) -> int:
    """Run a program in a running machine, with this terminal, and exit with its exit status.

    Ctrl-C goes to the program. Without --tty, the third one ends this command even if the program ignores it,
    and so does a SIGTERM after ten seconds.

    Parameters
    ----------
    name:
        The name of the instance.
    command:
        The program and its arguments; flags that follow it are its own.
    tty:
        Give the program a terminal.
    env:
        An environment variable for the program, NAME=VALUE; repeatable.
    cwd:
        The directory to start the program in.
    interactive:
        Accepted for those who are used to -it; a program always gets this command's input.
    """
    instances = Instances(find_home())
    running = instances.read_running(name)
    require(find_guest(running.launch.guest), "exec")
    if not command:
        raise DrumheadError(ErrorCode.USAGE, f"give a program: drumhead exec {name} -- PROGRAM ARGUMENTS")
    program = Command(argv=command, env={**running.launch.spec.command.env, **read_variables(list(env))}, cwd=cwd)
    return await run_session(instances.directory(name), program, terminal=tty)


async def _print_file(instances: Instances, name: str, file: str, *, follow: bool, tail: int | None) -> None:
    """Print a file of an instance; with `follow`, keep printing until the machine ends."""
    path = instances.directory(name) / file
    offset = 0 if tail is None else tail_offset(path, tail)
    if not follow:
        for chunk in read_from(path, offset):
            write_output(chunk)
        return
    async for _, chunk in follow_file(path, offset=offset, until=wait_machine(instances, name)):
        write_output(chunk)
