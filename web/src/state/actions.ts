// Actions on many tasks: count the tasks that will change, and act page by page.

import { signal } from "@preact/signals";
import { actOnTasks, countTasks, filterRecord, findTasks, Problem, type StateName, stateName, type Task, type TaskAction } from "../api/api";
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
  /** Why the service does not go on at the moment. */
  held?: string;
}
/** The action that is in progress. */
export const progress = signal<Progress | undefined>(undefined);
let stopper = new AbortController();
export const stop = () => stopper.abort();

export interface Result {
  changed: number;
  skipped: number;
  stopped: boolean;
  /** Why it ended early, unless a person stopped it. */
  problem?: string;
}

const AT_ONCE = 200;
/** Seconds between two attempts at most. */
const LONGEST_PAUSE = 10;

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

/** Do it, some tasks at a time, until all are through, the service refuses or a person stops it. */
export async function run(action: Action, selection: Selection, total: number, recipe?: string): Promise<Result> {
  const result: Result = { changed: 0, skipped: 0, stopped: false };
  stopper = new AbortController();
  progress.value = { action, done: 0, total };
  try {
    for await (const answer of steps({ action, recipe: recipe ?? null, limit: AT_ONCE }, selection)) {
      result.changed += answer.changed;
      result.skipped += answer.skipped;
      progress.value = { action, done: result.changed + result.skipped, total };
      if (stopper.signal.aborted) return { ...result, stopped: true };
    }
    return result;
  } catch (error) {
    if (stopper.signal.aborted) return { ...result, stopped: true };
    if (result.changed + result.skipped === 0) throw error;
    return { ...result, stopped: true, problem: error instanceof Error ? error.message : String(error) };
  } finally {
    progress.value = undefined;
  }
}

async function* steps(request: Pick<TaskAction, "action" | "recipe" | "limit">, selection: Selection) {
  if ("filter" in selection && request.action !== "rerun") {
    const filter = filterRecord(selection.filter);
    for (let before: string | null = null, first = true; first || before; first = false) {
      const answer = await persevere(() => actOnTasks({ ...request, tasks: null, filter, before }));
      yield answer;
      before = answer.next;
    }
    return;
  }
  const key = request.action === "rerun" ? newKey() : undefined;
  for await (const tasks of pages(selection)) {
    yield await persevere(() => actOnTasks({ ...request, tasks, filter: null, before: null }, key));
  }
}

/** The ids of the tasks. Those that a rerun creates are newer than those that it reads, so it never meets them. */
async function* pages(selection: Selection) {
  if ("ids" in selection) {
    const ids = [...selection.ids];
    for (let start = 0; start < ids.length; start += AT_ONCE) yield ids.slice(start, start + AT_ONCE);
    return;
  }
  for (let before: string | undefined, first = true; first || before; first = false) {
    const page = await persevere(() => findTasks(selection.filter, { limit: AT_ONCE, ...(before && { before }) }));
    yield page.tasks.map((task) => task.id);
    before = page.next ?? undefined;
  }
}

const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");

/** Ask until the service can do it: it may be away, or a limit be reached. A person sees why it waits, and may stop it. */
async function persevere<T>(request: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await request();
    } catch (error) {
      const passes = error instanceof Problem && error.transient && error.code !== "internal";
      if (!passes || stopper.signal.aborted) throw error;
      progress.value = { ...progress.value!, held: error.message };
      await pause(Math.min(error.again, LONGEST_PAUSE) * 1000);
      if (stopper.signal.aborted) throw error;
    }
  }
}

const pause = (milliseconds: number) =>
  new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    stopper.signal.addEventListener("abort", () => (clearTimeout(timer), resolve()));
  });
