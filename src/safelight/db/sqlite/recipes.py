"""Recipes that users saved."""

from __future__ import annotations

import msgspec

from safelight.db.sqlite.transaction import Transaction
from safelight.errors import Code, Error
from safelight.wire import NamedRecipe


def every(transaction: Transaction) -> list[NamedRecipe]:
    """Return them by name."""
    rows = transaction.connection.read("recipes", list[tuple[str, str, int]])
    return [NamedRecipe(name=name, spec=msgspec.Raw(spec), changed=changed / 1000) for name, spec, changed in rows]


def save(transaction: Transaction, recipe: NamedRecipe) -> None:
    """Save one in place of what stood under its name."""
    transaction.connection.run("save_recipe", recipe.name, bytes(recipe.spec).decode(), transaction.now)


def delete(transaction: Transaction, name: str) -> None:
    """Forget one."""
    if not transaction.connection.run("delete_recipe", name):
        raise Error(Code.NOT_FOUND, f"There is no saved recipe named {name}.")
