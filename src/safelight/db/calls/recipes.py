"""Read and write the recipes that users have saved."""

from __future__ import annotations

import msgspec

from safelight.db.commit.transaction import Transaction
from safelight.errors import Code, Error
from safelight.wire import NamedRecipe, SavedRecipe
from safelight.wire.conditions import Condition, tag_of

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


def save(transaction: Transaction, recipe: NamedRecipe, condition: Condition) -> SavedRecipe:
    """Save a recipe, replacing the tenant's one of the same name.

    Raises NOT_FOUND if there is no such tenant, since a later one of this id would get the recipe, CONFLICT if there
    is no room for it, and PRECONDITION_FAILED.
    """
    if recipe.tenant not in transaction.memory.tenants:
        raise Error(Code.NOT_FOUND, f"There is no tenant {recipe.tenant[:32]}.")
    spec = bytes(recipe.spec)
    before = _changed(transaction, recipe.name, recipe.tenant)
    if not _holds(condition, before):
        # A request that is repeated since its answer was lost finds what it has saved itself (RFC 9110, 13.1.1).
        if before is None or bytes(find(transaction, recipe.name, recipe.tenant).spec) != spec:
            raise _refused(recipe.name, condition, before)
        return SavedRecipe(name=recipe.name, changed=before / 1000, size=len(spec))
    others, size = transaction.connection.read("other_recipes", tuple[int, int], recipe.tenant, recipe.name)
    if others >= _MOST:
        raise Error(Code.CONFLICT, f"{others} recipes are saved, and no more than {_MOST} may be. Delete one first.")
    if size + len(spec) > MOST_BYTES:
        detail = (
            f"The saved recipes would have {size + len(spec)} bytes together, and no more than {MOST_BYTES} may be "
            "saved. Delete one first, or make the images in this one smaller."
        )
        raise Error(Code.CONFLICT, detail, limit=MOST_BYTES)
    # Each change has a time of its own, by which caches and conditions recognise it.
    changed = max(transaction.now, (before or 0) + 1)
    transaction.connection.run("save_recipe", recipe.tenant, recipe.name, spec.decode(), changed, len(spec))
    return SavedRecipe(name=recipe.name, changed=changed / 1000, size=len(spec))


def delete(transaction: Transaction, name: str, tenant: str, condition: Condition) -> None:
    """Delete a recipe. Raises NOT_FOUND, PRECONDITION_FAILED."""
    before = _changed(transaction, name, tenant)
    if before is None:
        raise _unknown(name)
    if not _holds(condition, before):
        raise _refused(name, condition, before)
    transaction.connection.run("delete_recipe", tenant, name)


def _changed(transaction: Transaction, name: str, tenant: str) -> int | None:
    changed: int | None = transaction.connection.value("recipe_changed", tenant, name)
    return changed


def _holds(condition: Condition, before: int | None) -> bool:
    return condition.holds(None if before is None else tag_of(before / 1000))


def _refused(name: str, condition: Condition, before: int | None) -> Error:
    if before is None:
        detail = f"The recipe {name} does not exist any more. To create it again, leave out If-Match."
    elif condition.match is None:
        detail = f"There is a recipe {name} already. Choose another name, or leave out If-None-Match to replace it."
    else:
        detail = f"The recipe {name} was changed meanwhile. Read it again, and repeat your change with its new ETag."
    return Error(Code.PRECONDITION_FAILED, detail)


def _unknown(name: str) -> Error:
    return Error(Code.NOT_FOUND, f"There is no saved recipe named {name[:64]}.")
