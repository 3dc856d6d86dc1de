// The recipes: look at one, edit it, save it under a name.

import { useEffect } from "preact/hooks";
import { deleteRecipe, type NamedRecipe, saveRecipe } from "../api";
import { changed, draft, name, open } from "../draft";
import { plural } from "../format";
import { confirmed } from "../parts/confirm";
import { Icon } from "../parts/icons";
import { attempt, say } from "../parts/toast";
import { choose, chosen, isBuiltin, load, recipes } from "../recipes";
import { detail, go, link } from "../router";
import { Editor } from "./editor";

export function Recipes() {
  const current = recipes.value.find((recipe) => recipe.name === (detail.value || chosen.value));
  useEffect(() => void load().catch(() => undefined), []);
  useEffect(() => {
    if (current) open(current);
  }, [current]);
  return (
    <div class="recipes">
      <nav class="panel list" aria-label="Recipes">
        <h1>Recipes</h1>
        <ul>
          {recipes.value.map((recipe) => (
            <li key={recipe.name}>
              <a href={link("recipes", recipe.name)} aria-current={recipe === current ? "true" : undefined}>
                <b>{recipe.name}</b>
                <small class="quiet">
                  {isBuiltin(recipe) ? "built in" : "yours"} · {plural(Object.keys(recipe.spec.outputs).length, "output")}
                </small>
              </a>
            </li>
          ))}
        </ul>
      </nav>
      {current && (
        <div class="edit">
          <Heading current={current} />
          <Editor />
        </div>
      )}
    </div>
  );
}

function Heading({ current }: { current: NamedRecipe }) {
  const save = async (event: Event) => {
    event.preventDefault();
    const saved = await attempt(() => saveRecipe(name.value.trim(), { ...draft.value, name: name.value.trim() }));
    if (!saved) return;
    say(`Saved as ${saved.name}.`);
    await load();
    changed.value = false;
    go("recipes", saved.name);
  };
  const drop = async () => {
    const words = "Photos that were made with it keep their results.";
    if (!(await confirmed(`Delete the recipe ${current.name}?`, words, "Delete"))) return;
    await attempt(async () => {
      await deleteRecipe(current.name);
      await load();
      go("recipes");
    });
  };
  const use = () => {
    choose(current.name);
    say(`New uploads get the recipe ${current.name}.`);
  };
  return (
    <div class="heading">
      <div>
        <h2>{current.name}</h2>
        <p class="quiet">{draft.value.description}</p>
      </div>
      <form class="actions" onSubmit={(event) => void save(event)}>
        {chosen.value === current.name ? (
          <span class="state finished">
            <i /> Used for uploads
          </span>
        ) : (
          <button type="button" onClick={use}>
            Use for uploads
          </button>
        )}
        {!isBuiltin(current) && (
          <button type="button" onClick={() => void drop()} aria-label={`Delete the recipe ${current.name}`}>
            <Icon name="trash" />
          </button>
        )}
        <label>
          <span class="hidden">Name to save under</span>
          <input
            value={name.value}
            required
            pattern="[a-z0-9][a-z0-9_\-]{0,63}"
            title="Small letters, digits, - and _"
            onInput={(event) => (name.value = event.currentTarget.value)}
          />
        </label>
        <button class="main" disabled={!changed.value && name.value === current.name}>
          Save
        </button>
      </form>
    </div>
  );
}
