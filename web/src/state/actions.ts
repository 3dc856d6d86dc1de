// Actions on many tasks: count the tasks that will change, and act page by page.

import { signal } from "@preact/signals";
import { actOnTasks, countTasks, filterRecord, findTasks, type StateName, stateName, type Task, type TaskAction, type TaskActionResult } from "../api/api";
import { type Filter, moment } from "../api/filter";
import { type Selection } from "./selection";

export type Action = TaskAction["action"];

const IN_PROGRESS: StateName[] = ["uploading", "waiting", "working"];
const ENDED: StateName[] = ["finished", "failed", "quarantined", "cancelled"];
export const ELIGIBLE: Record<Action, readonly StateName[]> = {
  retry: ["failed", "quarantined", "cancelled"],
  cancel: IN_PROGRESS,
  release: ["quarantined"],
  delete: [...IN_PROGRESS, ...ENDED],
  rerun: ["waiting", "working", ...ENDED],
};

export interface Plan {
  total: number;
  states: Partial<Record<StateName, number>>;
  /** Whether the numbers are exact; a very large system is counted in part. */
  complete: boolean;
  /** The states that a filter asks for; without it all. */
  wanted?: readonly StateName[];
}

/** Count by state what was chosen by hand. */
export function countChosen(ids: ReadonlySet<string>, items: readonly Task[]): Plan {
  const states: Plan["states"] = {};
  for (const task of items) {
    if (!ids.has(task.id)) continue;
    const state = stateName(task.state);
    states[state] = (states[state] ?? 0) + 1;
  }
  return { total: ids.size, states, complete: true };
}

/** Count by state all that match a filter. */
export async function countMatching(filter: Filter): Promise<Plan> {
  const states: Plan["states"] = {};
  const counts = await countTasks(filter);
  const wanted = wantedStates(filter);
  let total = 0;
  for (const [state, held] of Object.entries(counts.states) as [StateName, number][]) {
    if (wanted && !wanted.includes(state)) continue;
    states[state] = held;
    total += held;
  }
  return { total, states, complete: counts.complete, wanted };
}

const wantedStates = (filter: Filter) => (filter.state ? (filter.state.split(",") as StateName[]) : undefined);

export const eligible = (action: Action, found: Plan) =>
  ELIGIBLE[action].reduce((sum, state) => sum + (found.states[state] ?? 0), 0);

/** Whether some of what was chosen may be in one of these states, counted or not. */
export const mayHold = (found: Plan, states: readonly StateName[]) =>
  states.some((state) => (found.states[state] ?? 0) > 0) ||
  (!found.complete && (!found.wanted || states.some((state) => found.wanted?.includes(state))));

export interface Progress {
  action: Action;
  done: number;
  total: number;
}
/** The action that is in progress. */
export const progress = signal<Progress | undefined>(undefined);
let stopped = false;
export const stop = () => {
  stopped = true;
};

export interface Result {
  changed: number;
  skipped: number;
  stopped: boolean;
}

const AT_ONCE = 200;

/** The selection without the photos that arrive from now on: they are not among those that a person is asked about. */
export async function soFar(selection: Selection): Promise<Selection> {
  if ("ids" in selection) return selection;
  const { filter } = selection;
  const newest = (await findTasks(filter, { limit: AT_ONCE })).tasks;
  if (newest.length === 0) return selection;
  // The service counts milliseconds, and leaves out those from `until` on.
  const end = Math.max(...newest.map((task) => task.created)) + 0.001;
  return { filter: { ...filter, until: String(filter.until ? Math.min(end, moment(filter.until)) : end) } };
}

/** Do it, some tasks at a time, until all are through or a person stops it. */
export async function run(action: Action, selection: Selection, total: number, recipe?: string): Promise<Result> {
  const result: Result = { changed: 0, skipped: 0, stopped: false };
  stopped = false;
  progress.value = { action, done: 0, total };
  try {
    for await (const answer of steps({ action, recipe: recipe ?? null, limit: AT_ONCE }, selection)) {
      result.changed += answer.changed;
      result.skipped += answer.skipped;
      progress.value = { action, done: result.changed + result.skipped, total };
      if (stopped) return { ...result, stopped: true };
    }
    return result;
  } finally {
    progress.value = undefined;
  }
}

async function* steps(request: Pick<TaskAction, "action" | "recipe" | "limit">, selection: Selection) {
  if ("ids" in selection) {
    const ids = [...selection.ids];
    for (let start = 0; start < ids.length; start += AT_ONCE) {
      yield await actOnTasks({ ...request, tasks: ids.slice(start, start + AT_ONCE), filter: null, before: null });
    }
    return;
  }
  // The tasks that a rerun creates are newer than those that it reads, so it never meets them.
  for (let before: string | null = null, first = true; first || before; first = false) {
    const answer: TaskActionResult = await actOnTasks({ ...request, tasks: null, filter: filterRecord(selection.filter), before });
    yield answer;
    before = answer.next;
  }
}
