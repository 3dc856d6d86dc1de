// The recipe that is being edited.

import { signal } from "@preact/signals";
import type { NamedRecipe, Recipe } from "./api";
import { isBuiltin } from "./recipes";

export const draft = signal<Recipe>({ outputs: {} });
/** The name to save it under. */
export const name = signal("");
export const changed = signal(false);

export function open(recipe: NamedRecipe): void {
  draft.value = structuredClone(recipe.spec);
  name.value = isBuiltin(recipe) ? `my-${recipe.name}` : recipe.name;
  changed.value = false;
}

export function edit(recipe: Recipe): void {
  draft.value = recipe;
  changed.value = true;
}
