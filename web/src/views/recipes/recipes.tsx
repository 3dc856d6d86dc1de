// The view of recipes: look at one, edit it, save it under a name.

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { checkToml, type NamedRecipe } from "../../api/api";
import { changed, forget, undo } from "../../state/draft";
import { Icon } from "../../parts/icons";
import { Loading, useReading } from "../../parts/reading";
import { attempt } from "../../state/messages";
import { loadSummary, summary } from "../../state/queue";
import { chosen, isBuiltin, load, recipes } from "../../state/recipes";
import { may } from "../../state/session";
import { detail, guarded, link, query, useSubject } from "../../router";
import { texts } from "../../texts";
import { Editor } from "./editor";
import { Heading } from "./heading";
import { beginAnew, leave, show, showNone, shown } from "./shown";

const words = texts.recipes;

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

/** Open the recipe that the address names, unless it is open already. */
function useOpened(current: NamedRecipe | undefined, isNew: boolean) {
  const spec = current ? JSON.stringify(current.spec) : "";
  // A view that comes back opens the recipe anew, unless a draft was not left: it was hidden by the sign-in.
  useLayoutEffect(() => {
    if (!changed.value) showNone();
  }, []);
  // Runs before painting, so that nobody edits the previous recipe. A list that is read again must not drop what was
  // typed since, so a recipe is opened again only if it is another one.
  useLayoutEffect(() => {
    if (!current) {
      // Until the list was read, nobody knows of which recipe it is.
      if (isNew || recipes.value.length) showNone();
      return;
    }
    const isSame = shown.name === current.name && shown.spec === spec;
    if (isSame) shown.changed = current.changed; // it was saved again as it was
    if (isSame || (shown.name === current.name && changed.value)) return;
    show(current);
  }, [current?.name, current?.changed, spec, query.value.draft]);
}

export function Recipes() {
  const isNew = query.value.draft !== undefined;
  const current = isNew ? undefined : recipes.value.find((recipe) => recipe.name === (detail.value || chosen.value));
  const error = useReading(load);
  useEffect(() => void (may("read") && loadSummary().catch(() => undefined)), []);
  useOpened(current, isNew);
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
            <Entry key={recipe.name} recipe={recipe} isCurrent={recipe === current} />
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

function Entry({ recipe, isCurrent }: { recipe: NamedRecipe; isCurrent: boolean }) {
  return (
    <li>
      <a href={link("recipes", recipe.name)} aria-current={isCurrent ? "true" : undefined}>
        <b>{recipe.name}</b>
        <small class="quiet">
          {words.kind(isBuiltin(recipe), Object.keys(recipe.spec.outputs).length)}
          {summary.value?.paused_recipes[recipe.name] !== undefined && ` · ${words.paused}`}
        </small>
      </a>
    </li>
  );
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
