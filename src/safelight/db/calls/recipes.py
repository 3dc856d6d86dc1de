"""Read and write the recipes that users have saved."""

from __future__ import annotations

import msgspec

from safelight.db.commit.transaction import Transaction
from safelight.errors import Code, Error
from safelight.wire import NamedRecipe


def find_all(transaction: Transaction, tenant: str) -> list[NamedRecipe]:
    """Return all recipes of a tenant in order of their names."""
    rows = transaction.connection.read("recipes", list[tuple[str, str, int]], tenant)
    return [
        NamedRecipe(tenant=tenant, name=name, spec=msgspec.Raw(spec), changed=changed / 1000)
        for name, spec, changed in rows
    ]


def save(transaction: Transaction, recipe: NamedRecipe) -> None:
    """Save a recipe, replacing the tenant's one of the same name."""
    transaction.connection.run("save_recipe", recipe.tenant, recipe.name, bytes(recipe.spec).decode(), transaction.now)


def delete(transaction: Transaction, name: str, tenant: str) -> None:
    """Delete a recipe. Raises NOT_FOUND."""
    if not transaction.connection.run("delete_recipe", tenant, name):
        raise Error(Code.NOT_FOUND, f"There is no saved recipe named {name}.")
