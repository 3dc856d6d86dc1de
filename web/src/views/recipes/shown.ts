// Of which recipe the draft is, and how drafts are begun and left.

import { type NamedRecipe, type Recipe } from "../../api/api";
import { begin, changed, forget, open } from "../../state/draft";
import { confirmed } from "../../state/questions";
import { go, unguard } from "../../router";
import { texts } from "../../texts";

const words = texts.recipes;
const NONE = { name: "", spec: "", changed: 0 };
/** The name of the recipe, and how the service had it when it was opened; another object for each draft. */
export let shown = { ...NONE };

/** Open a recipe in the place of the draft. */
export function show(recipe: NamedRecipe): void {
  shown = { name: recipe.name, spec: JSON.stringify(recipe.spec), changed: recipe.changed };
  open(recipe);
}

/** The draft is of no recipe that the service has. */
export function showNone(): void {
  shown = { ...NONE };
}

/** The draft was saved; the list that is read next has the recipe as the service writes it. */
export function showSaved(saved: NamedRecipe): void {
  shown = { name: saved.name, spec: "", changed: saved.changed };
}

/** A draft is left only when that is meant. */
export const leave = async () =>
  !changed.value ||
  (await confirmed({ title: words.leave, text: words.leaveText, action: words.leaveAction, keep: words.stay, danger: true }));

/** Begin a draft, unless another would be lost and is to stay. */
export async function beginAnew(recipe?: Recipe, under = ""): Promise<void> {
  if (!(await leave())) return;
  forget();
  unguard();
  go("recipes", "", { draft: String(Date.now()) });
  begin(recipe, under);
}
