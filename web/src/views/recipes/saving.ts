// Saving the draft as a recipe.

import { getRecipes, type NamedRecipe, Problem, type Recipe, saveRecipe } from "../../api/api";
import { draft, forget, name } from "../../state/draft";
import { attempt, say } from "../../state/messages";
import { asking } from "../../state/questions";
import { load } from "../../state/recipes";
import { detail, go, unguard, view } from "../../router";
import { texts } from "../../texts";
import { show, showSaved, shown } from "./shown";

const words = texts.recipes;

/**
 * Save the draft under its name. What is typed until the service has answered is a change of the saved recipe. Another
 * draft that was opened stays.
 */
export async function save(): Promise<void> {
  const under = name.value.trim();
  const [sent, of] = [draft.value, shown];
  const saved = await attempt(() => saveOver(under, { ...sent, name: under }));
  if (!saved) return;
  say(words.saved(saved.name));
  if (shown === of) {
    forget(sent);
    showSaved(saved);
  }
  await load();
  if (view.value !== "recipes" || detail.value === saved.name || shown.name !== saved.name) return;
  unguard();
  go("recipes", saved.name);
}

/** Save a recipe. If the service has a version that the draft was not made from, ask what to do. */
async function saveOver(under: string, recipe: Recipe): Promise<NamedRecipe | undefined> {
  const of = shown;
  let known = under === of.name ? of.changed : 0;
  for (;;) {
    try {
      return await saveRecipe(under, recipe, known);
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== "precondition_failed") throw error;
    }
    const found = (await getRecipes()).find((one) => one.name === under);
    if (found) {
      const answer = await askToSaveOver(under, under !== of.name);
      if (answer === words.loadSaved) await loadSaved(found, of);
      if (answer !== "") return undefined;
    }
    known = found?.changed ?? 0; // one that was deleted meanwhile is created again
  }
}

/** Ask whether to save over a version; the answer is empty if so, or `words.loadSaved`. */
function askToSaveOver(under: string, isNew: boolean): Promise<string | undefined> {
  const question = { title: words.clash(under, isNew), text: words.clashText(isNew), keep: words.stay };
  return asking({ ...question, action: words.saveOver, other: words.loadSaved, danger: true });
}

/** Open the saved version in the place of the draft that was to be saved, if that is still open. */
async function loadSaved(found: NamedRecipe, of: typeof shown): Promise<void> {
  await load();
  if (shown !== of) return;
  show(found);
  unguard();
  go("recipes", found.name);
}
