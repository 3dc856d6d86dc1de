"""Recipes: list, show, check, save, delete."""

from __future__ import annotations

from typing import Any

import msgspec

from safelight import recipe as recipes
from safelight.cli.connection import HERE, Where, master
from safelight.cli.groups import commands
from safelight.cli.printing import ago, counted, out, print_json, say, table
from safelight.cli.recipe_files import document, read
from safelight.wire import NamedRecipe

USUAL = "web"
"""The default recipe of `safelight upload`."""

app = commands("recipes")


@app.default
async def recipes_command(name: str | None = None, /, *, where: Where = HERE) -> None:
    """List the recipes, or show one.

    Parameters
    ----------
    name:
        The recipe to show; without it, all are listed.
    """
    await (list_command(where=where) if name is None else show_command(name, where=where))


@app.command(name="list")
async def list_command(*, where: Where = HERE) -> None:
    """List every recipe that the master knows."""
    async with master(where) as client:
        found = sorted(await client.recipes(), key=lambda each: (each.name != USUAL, each.name))
    if where.json:
        print_json(found)
        return
    out.print(table("RECIPE", "OUTPUTS", "CHANGED", "WHAT IT DOES", rows=[_row(each) for each in found]))


@app.command(name="show")
async def show_command(name: str, /, *, where: Where = HERE) -> None:
    """Show one recipe as JSON.

    Parameters
    ----------
    name:
        The name of the recipe.
    """
    async with master(where) as client:
        found = await client.recipe(name)
    print_json(found if where.json else found.spec)


@app.command(name="check")
async def check_command(file: str, /, *, offline: bool = False, where: Where = HERE) -> None:
    """Check a recipe in a file, and name the place of each mistake.

    Parameters
    ----------
    file:
        The file: FILE.toml, FILE.toml:NAME or FILE.json.
    offline:
        Check the file without asking the master.
    """
    made = read(file)
    if not offline:
        async with master(where) as client:
            await client.check_recipe(document(made))
    if where.json:
        print_json(document(made))
    else:
        say(f"{file} is a valid recipe with {counted(len(made.outputs), 'output')}.")


@app.command(name="save")
async def save_command(
    file: str, /, *, name: str | None = None, unchanged_since: float | None = None, where: Where = HERE
) -> None:
    """Save a recipe, so that uploads can name it. It replaces the saved recipe of this name.

    Parameters
    ----------
    file:
        The file: FILE.toml, FILE.toml:NAME or FILE.json.
    name:
        The name to save it under; by default its own name.
    unchanged_since:
        Save it only if nobody has saved or deleted the recipe of this name since then: the `changed` that
        `safelight recipes show NAME --json` prints, or 0 for a new recipe.
    """
    made = read(file)
    async with master(where) as client:
        saved = await client.save_recipe(
            made.name if name is None else name, document(made), unchanged_since=unchanged_since
        )
    if where.json:
        print_json(saved)
    else:
        say(f"Saved recipe {saved.name}.")


@app.command(name="delete")
async def delete_command(name: str, /, *, unchanged_since: float | None = None, where: Where = HERE) -> None:
    """Delete a saved recipe; tasks that use it keep their copy.

    Parameters
    ----------
    name:
        The name of the recipe.
    unchanged_since:
        Delete it only if nobody has saved it since then: the `changed` that `safelight recipes show NAME --json`
        prints.
    """
    async with master(where) as client:
        await client.delete_recipe(name, unchanged_since=unchanged_since)
    if not where.json:
        say(f"Deleted recipe {name}.")


def _row(found: NamedRecipe) -> tuple[str, str, str, str]:
    fields: dict[str, Any] = msgspec.json.decode(found.spec)
    changed = ago(found.changed) if found.changed > 0 else "built in"
    if found.name not in recipes.BUILTIN and not found.changed:
        changed = "from a file"
    return found.name, ", ".join(fields.get("outputs", {})), changed, fields.get("description", "")
