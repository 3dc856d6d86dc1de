"""From what a person asks for to a complete InstanceSpec: which command, with which environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.manifest.run_yaml import parse_command
from drumhead.records import Command

if TYPE_CHECKING:
    from drumhead.records import Image


def choose_command(
    image: Image, *, config_set: str = "", words: str = "", env: dict[str, str] | None = None
) -> Command:
    """Return the command that a machine starts: `words` as given, else a config set of the image, else its default.

    `env` is added to what the config set brings. Raises USAGE, NOT_FOUND with the config sets that there are.
    """
    if words:
        command = parse_command(words)
        return Command(argv=command.argv, env={**command.env, **(env or {})})
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


def default_instance_name(image: str) -> str:
    """``node-micro/tutorial`` runs as ``node-micro-tutorial``."""
    return image.replace("/", "-").replace("+", "-")[:63].strip("-.")
