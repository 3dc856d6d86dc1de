"""Choose the command and the default name of an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.manifest.command_line import parse_command
from drumhead.records import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drumhead.records import Image


def choose_command(
    image: Image, *, config_set: str = "", command_line: str = "", env: dict[str, str] | None = None
) -> Command:
    """Return the command of a machine: `command_line` if given, else a config set of the image, else its default.

    `env` is added to the config set's environment. A `command_line` runs with the variables and in the directory that
    all config sets of the image share. Raises USAGE, and NOT_FOUND with the names of the existing config sets.
    """
    if command_line:
        shared = image.shared_circumstances()
        command = parse_command(command_line, {**shared.env, **(env or {})})
        return Command(argv=command.argv, env={**shared.env, **command.env, **(env or {})}, cwd=shared.cwd)
    name = config_set or image.default
    known = ", ".join(image.commands) or "none"
    if not name:
        raise DrumheadError(
            ErrorCode.USAGE, f'{image.name} has no default command; give -e "COMMAND" or --run with one of: {known}'
        )
    if name not in image.commands:
        raise DrumheadError(ErrorCode.NOT_FOUND, f"{image.name} has no config set {name}; it has: {known}")
    command = image.commands[name]
    return Command(argv=command.argv, env={**command.env, **(env or {})}, cwd=command.cwd)


def choose_commands(
    image: Image, *, config_sets: Sequence[str] = (), command_line: str | None = None, env: dict[str, str] | None = None
) -> list[Command]:
    """Return the commands that a machine runs one after another, each from ``choose_command``, whose errors it
    raises.
    """
    if command_line is not None:
        if not command_line.strip():
            raise DrumheadError(
                ErrorCode.USAGE,
                f"-e {command_line!r} names no program; without -e the default command of the image runs",
            )
        return [choose_command(image, command_line=command_line, env=env)]
    return [choose_command(image, config_set=name, env=env) for name in config_sets or ("",)]


def default_instance_name(image: str) -> str:
    """Return ``node-micro-tutorial`` for the image ``node-micro/tutorial``."""
    return image.replace("/", "-").replace("+", "-")[:63].strip("-.")
