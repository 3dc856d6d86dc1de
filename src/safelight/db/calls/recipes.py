"""Read and write the recipes that users have saved."""

from __future__ import annotations

import msgspec

from safelight.db.commit.transaction import Transaction
from safelight.errors import Code, Error
from safelight.wire import NamedRecipe, SavedRecipe

_MOST = 1000
"""The most recipes that a tenant may save."""
MOST_BYTES = 32 * 1024 * 1024
"""The most bytes that they may have together; the master caches them, and lists them in one response."""


def find_all(transaction: Transaction, tenant: str) -> list[SavedRecipe]:
    """List the recipes of a tenant in order of their names."""
    rows = transaction.connection.read("recipes", list[tuple[str, int, int]], tenant)
    return [SavedRecipe(name=name, changed=changed / 1000, size=size) for name, changed, size in rows]


def find(transaction: Transaction, name: str, tenant: str) -> NamedRecipe:
    """Return a recipe. Raises NOT_FOUND."""
    row = transaction.connection.read("recipe", tuple[str, int] | None, tenant, name)  # type: ignore[arg-type]
    if row is None:
        raise _unknown(name)
    spec, changed = row
    return NamedRecipe(tenant=tenant, name=name, spec=msgspec.Raw(spec), changed=changed / 1000)


def save(transaction: Transaction, recipe: NamedRecipe) -> None:
    """Save a recipe, replacing the tenant's one of the same name.

    Raises NOT_FOUND if there is no such tenant, since a later one of this id would get the recipe, and CONFLICT if
    there is no room for it.
    """
    if recipe.tenant not in transaction.memory.tenants:
        raise Error(Code.NOT_FOUND, f"There is no tenant {recipe.tenant[:32]}.")
    spec = bytes(recipe.spec)
    others, size = transaction.connection.read("other_recipes", tuple[int, int], recipe.tenant, recipe.name)
    if others >= _MOST:
        raise Error(Code.CONFLICT, f"{others} recipes are saved, and no more than {_MOST} may be. Delete one first.")
    if size + len(spec) > MOST_BYTES:
        detail = (
            f"The saved recipes would have {size + len(spec)} bytes together, and no more than {MOST_BYTES} may be "
            "saved. Delete one first, or make the images in this one smaller."
        )
        raise Error(Code.CONFLICT, detail, limit=MOST_BYTES)
    transaction.connection.run("save_recipe", recipe.tenant, recipe.name, spec.decode(), transaction.now, len(spec))


def delete(transaction: Transaction, name: str, tenant: str) -> None:
    """Delete a recipe. Raises NOT_FOUND."""
    if not transaction.connection.run("delete_recipe", tenant, name):
        raise _unknown(name)


def _unknown(name: str) -> Error:
    return Error(Code.NOT_FOUND, f"There is no saved recipe named {name[:64]}.")
