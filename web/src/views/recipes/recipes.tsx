// The view of recipes: look at one, edit it, save it under a name.

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { checkToml, deleteRecipe, getRecipes, type NamedRecipe, Problem, type Recipe, saveRecipe } from "../../api/api";
import { begin, canUndo, changed, draft, edit, forget, name, open, undo } from "../../state/draft";
import { asking, confirmed } from "../../state/questions";
import { Icon } from "../../parts/icons";
import { Loading, useReading } from "../../parts/reading";
import { attempt, say } from "../../state/messages";
import { changeRecipe, loadSummary, summary } from "../../state/queue";
import { choose, chosen, isBuiltin, load, recipes } from "../../state/recipes";
import { may } from "../../state/session";
import { detail, go, guarded, link, query, unguard, useSubject, view } from "../../router";
import { texts } from "../../texts";
import { toToml } from "../../toml";
import { Editor } from "./editor";

const words = texts.recipes;

/** A draft is left only when that is meant. */
const leave = async () =>
  !changed.value ||
  (await confirmed({ title: words.leave, text: words.leaveText, action: words.leaveAction, keep: words.stay, danger: true }));

/** Guard the draft while it has changes, and another one that takes its place as well. */
function useGuard() {
  useLayoutEffect(() => {
    if (!changed.value) return undefined;
    const stop = guarded(async () => {
      const left = await leave();
      if (left) forget();
      return left;
    });
    const unload = (event: BeforeUnloadEvent) => event.preventDefault();
    window.addEventListener("beforeunload", unload);
    return () => {
      stop();
      window.removeEventListener("beforeunload", unload);
    };
  }, [changed.value, detail.value, query.value.draft]);
}

function useUndoKey() {
  useLayoutEffect(() => {
    const heard = (event: KeyboardEvent) => {
      const isText = event.target instanceof HTMLInputElement && event.target.type === "text";
      if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || isText) return;
      event.preventDefault();
      undo();
    };
    document.addEventListener("keydown", heard);
    return () => document.removeEventListener("keydown", heard);
  }, []);
}

const NONE = { name: "", spec: "", changed: 0 };
/** Of which recipe the draft is, and how the service had it when it was opened; another object for each draft. */
let shown = { ...NONE };

function show(recipe: NamedRecipe): void {
  shown = { name: recipe.name, spec: JSON.stringify(recipe.spec), changed: recipe.changed };
  open(recipe);
}

export function Recipes() {
  const isNew = query.value.draft !== undefined;
  const current = isNew ? undefined : recipes.value.find((recipe) => recipe.name === (detail.value || chosen.value));
  const error = useReading(load);
  useEffect(() => void (may("read") && loadSummary().catch(() => undefined)), []);
  const spec = current ? JSON.stringify(current.spec) : "";
  // A view that comes back opens the recipe anew, unless a draft was not left: it was hidden by the sign-in.
  useLayoutEffect(() => {
    if (!changed.value) shown = { ...NONE };
  }, []);
  // Runs before painting, so that nobody edits the previous recipe. A list that is read again must not drop what was
  // typed since, so a recipe is opened again only if it is another one.
  useLayoutEffect(() => {
    if (!current) {
      // Until the list was read, nobody knows of which recipe it is.
      if (isNew || recipes.value.length) shown = { ...NONE };
      return;
    }
    const isSame = shown.name === current.name && shown.spec === spec;
    if (isSame) shown.changed = current.changed; // it was saved again as it was
    if (isSame || (shown.name === current.name && changed.value)) return;
    show(current);
  }, [current?.name, current?.changed, spec, query.value.draft]);
  useGuard();
  useUndoKey();
  useSubject(detail.value && current ? current.name : "");
  return (
    <div class="recipes">
      <nav class="panel list" aria-label={words.title}>
        <h1>{words.title}</h1>
        {error && <p class="error">{error}</p>}
        {recipes.value.length === 0 && !error && <Loading />}
        <ul>
          {recipes.value.map((recipe) => (
            <li key={recipe.name}>
              <a href={link("recipes", recipe.name)} aria-current={recipe === current ? "true" : undefined}>
                <b>{recipe.name}</b>
                <small class="quiet">
                  {words.kind(isBuiltin(recipe), Object.keys(recipe.spec.outputs).length)}
                  {summary.value?.paused_recipes[recipe.name] !== undefined && ` · ${words.paused}`}
                </small>
              </a>
            </li>
          ))}
        </ul>
        <NewRecipes />
      </nav>
      {!current && !isNew && recipes.value.length > 0 && <p class="empty">{words.unknown(detail.value)}</p>}
      {(current || isNew) && (
        <div class="edit">
          <Heading current={current} />
          <Editor />
        </div>
      )}
    </div>
  );
}

/** Begin a draft, unless another would be lost and is to stay. */
async function beginAnew(recipe?: NamedRecipe["spec"], under = ""): Promise<void> {
  if (!(await leave())) return;
  forget();
  unguard();
  go("recipes", "", { draft: String(Date.now()) });
  begin(recipe, under);
}

function NewRecipes() {
  const field = useRef<HTMLInputElement>(null);
  const take = async () => {
    const file = field.current?.files?.[0];
    field.current!.value = "";
    if (!file) return;
    const found = await attempt(async () => checkToml(await file.text(), file.name.endsWith(".json")));
    if (found) await beginAnew(found.spec, found.name === "custom" ? file.name.replace(/\.\w+$/, "") : found.name);
  };
  return (
    <p class="actions">
      <button onClick={() => void beginAnew()}>
        <Icon name="plus" /> {words.new}
      </button>
      <button onClick={() => field.current?.click()}>
        <Icon name="upload" /> {words.import}
      </button>
      <input ref={field} type="file" hidden accept=".toml,.json" aria-label={words.importLabel} onChange={() => void take()} />
    </p>
  );
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
      const isNew = under !== of.name;
      const question = { title: words.clash(under, isNew), text: words.clashText(isNew), keep: words.stay };
      const answer = await asking({ ...question, action: words.saveOver, other: words.loadSaved, danger: true });
      if (answer === words.loadSaved) await load();
      if (answer === words.loadSaved && shown === of) {
        show(found);
        unguard();
        go("recipes", under);
      }
      if (answer !== "") return undefined;
    }
    known = found?.changed ?? 0; // one that was deleted meanwhile is created again
  }
}

function Heading({ current }: { current: NamedRecipe | undefined }) {
  // What is typed until the service has answered is a change of the saved recipe. Another draft that was opened stays.
  const save = async (event: Event) => {
    event.preventDefault();
    const under = name.value.trim();
    const [sent, of] = [draft.value, shown];
    const saved = await attempt(() => saveOver(under, { ...sent, name: under }));
    if (!saved) return;
    say(words.saved(saved.name));
    if (shown === of) {
      forget(sent);
      shown = { name: saved.name, spec: "", changed: saved.changed };
    }
    await load();
    if (view.value !== "recipes" || detail.value === saved.name || shown.name !== saved.name) return;
    unguard();
    go("recipes", saved.name);
  };
  const drop = async (named: NamedRecipe) => {
    const question = { title: words.deleteQuestion(named.name), text: words.deleteText, action: texts.selection.actions.delete };
    if (!(await confirmed({ ...question, danger: true }))) return;
    await attempt(async () => {
      await deleteRecipe(named.name);
      await load();
      go("recipes");
    });
  };
  const use = (named: NamedRecipe) => {
    choose(named.name);
    say(words.used(named.name));
  };
  const exportToml = () => {
    const { name: _, ...unnamed } = draft.value;
    const written = toToml({ ...(name.value && { name: name.value }), ...unnamed });
    const address = URL.createObjectURL(new Blob([written], { type: "application/toml" }));
    const anchor = Object.assign(document.createElement("a"), { href: address, download: `${name.value || "recipe"}.toml` });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
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
      <form class="actions" onSubmit={(event) => void save(event)}>
        {current &&
          (chosen.value === current.name ? (
            <span class="state finished">
              <i /> {words.isUsed}
            </span>
          ) : (
            <button type="button" onClick={() => use(current)}>
              {words.use}
            </button>
          ))}
        <button type="button" class="plain round" aria-label={words.undo} title={words.undo} disabled={!canUndo.value} onClick={undo}>
          <Icon name="undo" />
        </button>
        {current && (
          <button
            type="button"
            class="plain round"
            aria-label={words.duplicate(current.name)}
            title={words.duplicate(current.name)}
            onClick={() => void beginAnew(draft.value, `${current.name}-copy`)}
          >
            <Icon name="copy" />
          </button>
        )}
        <button type="button" class="plain round" aria-label={words.export} title={words.export} onClick={exportToml}>
          <Icon name="download" />
        </button>
        {current && may("operate") && <Pause name={current.name} />}
        {current && !isBuiltin(current) && may("operate") && (
          <button type="button" class="plain round" onClick={() => void drop(current)} aria-label={words.delete(current.name)}>
            <Icon name="trash" />
          </button>
        )}
        {may("operate") && (
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
        )}
      </form>
    </div>
  );
}
