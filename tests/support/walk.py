"""List all commands of both programs. As a program, print the name and the help of each."""

import contextlib
import gc
import io
from collections.abc import Iterator, Sequence

import cyclopts

import drumhead.cli
import safelight.cli


def applications() -> dict[str, cyclopts.App]:
    return {"safelight": safelight.cli.application(), "drumhead": drumhead.cli.application()}


def main(program: str, argv: Sequence[str]) -> int:
    """Run one of the two programs in this process."""
    try:
        return {"safelight": safelight.cli.main, "drumhead": drumhead.cli.main}[program](list(argv))
    finally:
        gc.enable()  # which a program that ends early leaves to the end of its process


def commands(app: cyclopts.App, *path: str) -> Iterator[tuple[tuple[str, ...], cyclopts.App]]:
    """Yield all commands with the words that call them, without flags such as --help."""
    yield path, app
    for name, command in app.resolved_commands().items():
        if not name.startswith("-"):
            yield from commands(command, *path, name)


def show_all() -> None:
    for program, app in applications().items():
        for path, _ in commands(app):
            if program == "safelight" and path and path[0] in safelight.cli.PROGRAMS:
                continue  # these parse their own arguments
            with contextlib.redirect_stdout(io.StringIO()) as shown:
                assert main(program, [*path, "--help"]) == 0, path
            assert "Usage" in shown.getvalue(), path
            print(program, *path)


if __name__ == "__main__":
    show_all()
