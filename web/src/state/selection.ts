// Which tasks are selected: some by hand, or all that match the filter of the list.

import { computed, signal } from "@preact/signals";
import type { Task } from "../api/api";
import type { Filter } from "../api/filter";

export type Selection = { ids: ReadonlySet<string> } | { filter: Filter };
const NONE: Selection = { ids: new Set() };

export const selection = signal<Selection>(NONE);
export const isSelecting = computed(() => "filter" in selection.value || selection.value.ids.size > 0);
let anchor = "";

export const isSelected = (task: Task) => "filter" in selection.value || selection.value.ids.has(task.id);

export function clear(): void {
  if (isSelecting.peek()) selection.value = NONE;
  anchor = "";
}

export function selectMatching(filter: Filter): void {
  selection.value = { filter };
}

/** Select or deselect a task; with `range`, everything between it and the one chosen before. */
export function toggle(task: Task, items: readonly Task[], range = false): void {
  const known = selection.value;
  const ids = new Set("filter" in known ? items.map((one) => one.id) : known.ids);
  const from = items.findIndex((one) => one.id === anchor);
  const to = items.findIndex((one) => one.id === task.id);
  if (range && from >= 0 && to >= 0) {
    for (const one of items.slice(Math.min(from, to), Math.max(from, to) + 1)) ids.add(one.id);
  } else if (!ids.delete(task.id)) {
    ids.add(task.id);
  }
  anchor = task.id;
  selection.value = { ids };
}

/** A task that is gone is no longer selected. */
export function forget(gone: ReadonlySet<string>): void {
  const known = selection.peek();
  if ("filter" in known || ![...known.ids].some((id) => gone.has(id))) return;
  selection.value = { ids: new Set([...known.ids].filter((id) => !gone.has(id))) };
}
