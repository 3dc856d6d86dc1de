"""Groups of arguments. Each refuses empty texts, such as that of an unset variable: they would mean something else."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from cyclopts import UNSET, App, ArgumentCollection, Group, Token

from safelight.errors import Code, Error

_MAY_BE_EMPTY = {"VALUE", "--name", "--instance"}
"""Texts of people, and the name of the instance that has none."""


def _refuse_empty(arguments: ArgumentCollection) -> None:
    """Refuse empty texts on the command line. An empty variable of the environment is as good as none.

    An empty path would be the working directory, and an empty filter would match every task.
    """
    for argument in arguments:
        if not any(_is_empty(token) for token in argument.tokens):
            continue
        if Path in (argument.hint, *get_args(argument.hint)):
            raise Error(Code.INVALID_REQUEST, f"{argument.name}: write a path, not ''. The working directory is `.`.")
        if argument.name not in _MAY_BE_EMPTY:
            raise Error(Code.INVALID_REQUEST, f"{argument.name} is empty. Leave it out, or give it a value.")


def _is_empty(token: Token) -> bool:
    """Return whether a token is an empty text, and not a flag that needs no text."""
    return token.source == "cli" and not token.value and token.implicit_value is UNSET


ARGUMENTS = Group("Arguments", validator=_refuse_empty)
PARAMETERS = Group("Parameters", validator=_refuse_empty)
WHICH = Group("Which tasks", validator=_refuse_empty)
WHERE = Group("Where and how", validator=_refuse_empty)


def commands(name: str, *, about: str = "") -> App:
    """Return an application for the commands of one noun."""
    return App(name=name, help=about or None, group_arguments=ARGUMENTS, group_parameters=PARAMETERS)
