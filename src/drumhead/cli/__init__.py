"""The drumhead command. Commands live in this folder, one module per noun; they are imported when they are used."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys

import cyclopts

from drumhead.errors import EXIT_STATUS, DrumheadError

app = cyclopts.App(name="drumhead", help="Compose applications into small virtual machines and run them.")
package = cyclopts.App(name="package", help="Compose, build, find and move packages.")
remote = cyclopts.App(name="remote", help="Where packages are searched, pulled from and pushed to.")
runtime = cyclopts.App(name="runtime", help="What meta/run.yaml can say.")
kernel = cyclopts.App(name="kernel", help="Kernels that you bring (OSv's), and those that were built.")
image = cyclopts.App(name="image", help="Move whole images between this host and a registry.")
for group in (package, image, remote, runtime, kernel):
    app.command(group)

COMMANDS = [
    (package, "drumhead.cli.package", "init collect compose list search describe build pull push test"),
    (remote, "drumhead.cli.remote", "add list remove"),
    (runtime, "drumhead.cli.runtime", "list preview init"),
    (kernel, "drumhead.cli.kernel", "add list info"),
    (image, "drumhead.cli.image", "push pull"),
    (app, "drumhead.cli.image", "images rmi info export"),
    (app, "drumhead.cli.machine", "run instances stop start delete logs console exec wait"),
    (app, "drumhead.cli.fleet", "up down ps scale"),
]
"""Group, module, commands. The function for ``NAME`` is ``NAME_command`` in its module."""

for group, module, names in COMMANDS:
    for command in names.split():
        group.command(f"{module}:{command}_command", name=command)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns its exit status: what the command returns, or ``EXIT_STATUS`` of its error."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        command, bound, _ = app.parse_args(sys.argv[1:] if arguments is None else arguments)
        result = command(*bound.args, **bound.kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except DrumheadError as error:
        print(f"drumhead: {error.message}", file=sys.stderr)
        return EXIT_STATUS[error.code]
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    return result if isinstance(result, int) else 0
