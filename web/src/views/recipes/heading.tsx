// The head of a recipe: its name and description, and what can be done with it.

import { deleteRecipe, getRecipes, type NamedRecipe, Problem } from "../../api/api";
import { canUndo, changed, draft, edit, name, undo } from "../../state/draft";
import { confirmed } from "../../state/questions";
import { Icon } from "../../parts/icons";
import { attempt, say } from "../../state/messages";
import { changeRecipe, summary } from "../../state/queue";
import { choose, chosen, isBuiltin, load } from "../../state/recipes";
import { may } from "../../state/session";
import { go } from "../../router";
import { texts } from "../../texts";
import { toToml } from "../../toml";
import { save } from "./saving";
import { beginAnew, shown } from "./shown";

const words = texts.recipes;

export function Heading({ current }: { current: NamedRecipe | undefined }) {
  const submit = (event: Event) => {
    event.preventDefault();
    void save();
  };
  return (
    <div class="heading">
      <div>
        <h2>{current?.name ?? words.unnamed}</h2>
        <input
          type="text"
          class="description"
          value={draft.value.description ?? ""}
          maxLength={500}
          placeholder={words.description}
          aria-label={words.description}
          onInput={(event) => edit({ ...draft.value, description: event.currentTarget.value })}
        />
      </div>
      <form class="actions" onSubmit={submit}>
        {current && <Use recipe={current} />}
        <button type="button" class="plain round" aria-label={words.undo} title={words.undo} disabled={!canUndo.value} onClick={undo}>
          <Icon name="undo" />
        </button>
        {current && <Duplicate of={current.name} />}
        <button type="button" class="plain round" aria-label={words.export} title={words.export} onClick={exportToml}>
          <Icon name="download" />
        </button>
        {current && may("operate") && <Pause name={current.name} />}
        {current && !isBuiltin(current) && may("operate") && <Delete recipe={current} />}
        {may("operate") && <Naming current={current} />}
      </form>
    </div>
  );
}

/** Choose the recipe for the photos that are uploaded next. */
function Use({ recipe }: { recipe: NamedRecipe }) {
  const use = () => {
    choose(recipe.name);
    say(words.used(recipe.name));
  };
  return chosen.value === recipe.name ? (
    <span class="state finished">
      <i /> {words.isUsed}
    </span>
  ) : (
    <button type="button" onClick={use}>
      {words.use}
    </button>
  );
}

function Duplicate({ of }: { of: string }) {
  return (
    <button
      type="button"
      class="plain round"
      aria-label={words.duplicate(of)}
      title={words.duplicate(of)}
      onClick={() => void beginAnew(draft.value, `${of}-copy`)}
    >
      <Icon name="copy" />
    </button>
  );
}

function exportToml(): void {
  const { name: _, ...unnamed } = draft.value;
  const written = toToml({ ...(name.value && { name: name.value }), ...unnamed });
  const address = URL.createObjectURL(new Blob([written], { type: "application/toml" }));
  const anchor = Object.assign(document.createElement("a"), { href: address, download: `${name.value || "recipe"}.toml` });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Whether workers begin photos with this recipe. */
function Pause({ name: of }: { name: string }) {
  const paused = summary.value?.paused_recipes[of] !== undefined;
  const label = paused ? texts.system.resumeRecipe(of) : `${texts.system.pauseRecipe} ${of}`;
  return (
    <button type="button" class="plain round" aria-label={label} title={label} onClick={() => void changeRecipe(of, !paused)}>
      <Icon name={paused ? "play" : "pause"} />
    </button>
  );
}

function Delete({ recipe }: { recipe: NamedRecipe }) {
  const of = recipe.name;
  const drop = async () => {
    if (!(await asksToDelete(words.deleteQuestion(of), words.deleteText))) return;
    await attempt(async () => {
      if (!(await dropped(of, shown.name === of ? shown.changed : recipe.changed))) return;
      await load();
      go("recipes");
    });
  };
  return (
    <button type="button" class="plain round" onClick={() => void drop()} aria-label={words.delete(of)}>
      <Icon name="trash" />
    </button>
  );
}

const asksToDelete = (title: string, text: string) =>
  confirmed({ title, text, action: texts.selection.actions.delete, danger: true });

/** Delete a recipe; ask again if it is not the one that was shown. Whether it is gone. */
async function dropped(name: string, known: number): Promise<boolean> {
  for (;;) {
    try {
      await deleteRecipe(name, known);
      return true;
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== "precondition_failed") throw error;
    }
    const found = (await getRecipes()).find((one) => one.name === name);
    if (!found) return true;
    if (!(await asksToDelete(words.clash(name, false), words.savedSince))) return false;
    known = found.changed;
  }
}

/** The name to save under, and the button that saves. */
function Naming({ current }: { current: NamedRecipe | undefined }) {
  return (
    <>
      <label>
        <span class="hidden">{words.name}</span>
        <input
          type="text"
          value={name.value}
          required
          pattern="[a-z0-9][a-z0-9_\-]{0,63}"
          title={words.nameRule}
          placeholder={words.name}
          onInput={(event) => (name.value = event.currentTarget.value)}
        />
      </label>
      <button class="main" disabled={!changed.value && name.value === current?.name}>
        {words.save}
      </button>
    </>
  );
}
