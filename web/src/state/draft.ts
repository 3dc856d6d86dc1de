// The recipe that is being edited, and its undo history.

import { computed, signal } from "@preact/signals";
import type { NamedRecipe, Operation, OutputSpec, Recipe } from "../api/api";
import { isBuiltin } from "./recipes";

const MOST = 100;
const TOGETHER = 800;
const EMPTY: Recipe = { outputs: { image: { format: "webp", operations: [] } } };

export const draft = signal<Recipe>(EMPTY);
/** The name to save it under. */
export const name = signal("");
/** Whether a change of one output is made to all. */
export const toAll = signal(false);
const past = signal<Recipe[]>([]);
/** The version that is saved, or not worth saving; empty for a new recipe. */
const saved = signal(JSON.stringify(EMPTY));
/** What the last change was made to, and when. */
let last = { at: -Infinity, of: "" };

export const changed = computed(() => saved.value !== JSON.stringify(draft.value));
export const canUndo = computed(() => past.value.length > 0);

export function open(recipe: NamedRecipe): void {
  begin(recipe.spec, isBuiltin(recipe) ? `my-${recipe.name}` : recipe.name);
  saved.value = JSON.stringify(draft.value);
}

/** Edit something that is not saved yet. */
export function begin(recipe: Recipe = EMPTY, under = ""): void {
  draft.value = structuredClone(recipe);
  name.value = under;
  past.value = [];
  last = { at: -Infinity, of: "" };
  saved.value = "";
}

/** Take a version as saved, or as not worth saving. */
export function forget(version = draft.value): void {
  saved.value = JSON.stringify(version);
}

/** Change it. Changes of one value in quick succession (a slider that is dragged) are undone together. */
export function edit(recipe: Recipe): void {
  const now = { at: performance.now(), of: differences(draft.value, recipe).join(" ") };
  // A value that was wrong, and is what it was before, is no change to undo.
  if (now.of && (now.at - last.at > TOGETHER || now.of !== last.of)) past.value = [...past.value.slice(-MOST), draft.value];
  last = now;
  draft.value = recipe;
}

/** The paths of the values in which two versions differ; where one has more members, the path of the whole. */
function differences(before: unknown, after: unknown, path = ""): string[] {
  if (Object.is(before, after)) return [];
  const isPair = typeof before === "object" && typeof after === "object" && before && after;
  const names = isPair ? Object.keys(after) : [];
  if (!isPair || Object.keys(before).join() !== names.join()) return [`${path} ${names.length}`];
  return names.flatMap((name) => differences((before as Tree)[name], (after as Tree)[name], `${path}/${name}`));
}
type Tree = Record<string, unknown>;

export function undo(): void {
  const before = past.value.at(-1);
  if (!before) return;
  past.value = past.value.slice(0, -1);
  draft.value = before;
  last = { at: -Infinity, of: "" };
}

/** Change one output, and the others alike where a person wants that. */
export function editOutput(output: string, next: OutputSpec): void {
  const outputs = draft.value.outputs;
  const before = outputs[output]!;
  const entries = Object.entries(outputs).map(([each, spec]) => {
    if (each === output) return [each, next] as const;
    return [each, toAll.value ? alike(spec, before, next) : spec] as const;
  });
  edit({ ...draft.value, outputs: Object.fromEntries(entries) });
}

/** What changed between two versions of an output, done to another one. */
function alike(spec: OutputSpec, before: OutputSpec, after: OutputSpec): OutputSpec {
  const result: Record<string, unknown> = { ...spec };
  for (const field of new Set([...Object.keys(before), ...Object.keys(after)]) as Set<keyof OutputSpec>) {
    if (field === "operations" || JSON.stringify(before[field]) === JSON.stringify(after[field])) continue;
    if (after[field] === undefined) delete result[field];
    else result[field] = after[field];
  }
  result.operations = alikeOperations(spec.operations ?? [], before.operations ?? [], after.operations ?? []);
  return result as OutputSpec;
}

/** Whether two places hold operations of one kind, each as the first, or the second, and so on, of its output. */
function isAlike(own: Operation[], mine: number, others: Operation[], other: number): boolean {
  const op = own[mine]!.op;
  const earlier = (list: Operation[], end: number) => list.slice(0, end).filter((one) => one.op === op).length;
  return others[other]?.op === op && earlier(own, mine) === earlier(others, other);
}

function alikeOperations(own: Operation[], before: Operation[], after: Operation[]): Operation[] {
  if (after.length > before.length) return [...own, structuredClone(after.at(-1)!)];
  if (after.length < before.length) {
    const gone = before.findIndex((one, place) => JSON.stringify(one) !== JSON.stringify(after[place]));
    const place = own.findIndex((_, other) => isAlike(own, other, before, gone));
    return own.filter((_, other) => other !== place);
  }
  return own.map((operation, mine) => {
    const place = after.findIndex((one, other) => isAlike(own, mine, after, other) && before[other]?.op === one.op);
    if (place < 0) return operation;
    const changes = Object.entries(after[place]!).filter(
      ([field, value]) => JSON.stringify(value) !== JSON.stringify(before[place]![field]),
    );
    return { ...operation, ...Object.fromEntries(changes) };
  });
}
