// The recipes, and the one for uploads.

import { signal } from "@preact/signals";
import type { NamedRecipe } from "../api/api";
import { getRecipes } from "../api/api";
import { keep, kept } from "../kept";

const KEY = "safelight.recipe";
/** What a newcomer most likely wants comes first; `invert`, which makes negatives, comes last. */
const FIRST = ["web", "thumbnail", "grayscale"];
const LAST = ["invert"];
const DEFAULT = "web";

export const recipes = signal<NamedRecipe[]>([]);
export const chosen = signal(kept(KEY) ?? DEFAULT);

export const isBuiltin = (recipe: NamedRecipe) => recipe.changed === 0;

export function choose(name: string): void {
  chosen.value = name;
  keep(KEY, name);
}

const rank = ({ name }: NamedRecipe) =>
  LAST.includes(name) ? 2 : FIRST.includes(name) ? FIRST.indexOf(name) / FIRST.length : 1;

export async function load(): Promise<void> {
  const found = await getRecipes();
  recipes.value = found.sort((one, other) => rank(one) - rank(other) || one.name.localeCompare(other.name));
  if (!found.some((recipe) => recipe.name === chosen.value)) {
    choose(found.some((recipe) => recipe.name === DEFAULT) ? DEFAULT : (found[0]?.name ?? DEFAULT));
  }
}
