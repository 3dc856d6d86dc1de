// The recipes that there are, and the one that uploads get.

import { signal } from "@preact/signals";
import type { NamedRecipe } from "./api";
import { getRecipes } from "./api";

const KEY = "safelight.recipe";

export const recipes = signal<NamedRecipe[]>([]);
export const chosen = signal(localStorage.getItem(KEY) ?? "invert");

export const isBuiltin = (recipe: NamedRecipe) => recipe.changed === 0;

export function choose(name: string): void {
  chosen.value = name;
  localStorage.setItem(KEY, name);
}

export async function load(): Promise<void> {
  recipes.value = await getRecipes();
  if (!recipes.value.some((recipe) => recipe.name === chosen.value)) choose("invert");
}
