// The filter of a list of tasks: the parameters of `GET /tasks`, as in the address of the page.

import { now } from "./clock";
import { type StateName, stateName, type Task, type TaskEvent } from "./records";
import type { Query } from "../router";

export interface Filter {
  /** States, separated by commas. */
  state?: string;
  recipe?: string;
  batch?: string;
  /** A part of the file name, or a task's id. */
  search?: string;
  /** The code of the failure. */
  reason?: string;
  /** Created at or after, and before: Unix seconds, or a duration back from now such as `2h`. */
  since?: string;
  until?: string;
}

const NAMES = ["state", "recipe", "batch", "search", "reason", "since", "until"] as const;

export function fromQuery(query: Query): Filter {
  return Object.fromEntries(NAMES.flatMap((name) => (query[name] ? [[name, query[name]]] : [])));
}

export const toQuery = (filter: Filter): Query => ({ ...filter }) as Query;

export const isEmpty = (filter: Filter): boolean => NAMES.every((name) => !filter[name]);

/** Whether a change may concern a list: what an event does not say is decided when its task is read. */
export function mayMatch(filter: Filter, event: TaskEvent): boolean {
  return (
    inStates(filter, event.state) &&
    (!filter.recipe || event.recipe === filter.recipe) &&
    (!filter.batch || event.batch === filter.batch) &&
    (!filter.reason || event.failure?.code === filter.reason)
  );
}

export function matches(filter: Filter, task: Task): boolean {
  const search = filter.search?.normalize("NFC").toLowerCase();
  return (
    inStates(filter, task.state) &&
    (!filter.recipe || task.recipe === filter.recipe) &&
    (!filter.batch || task.batch === filter.batch) &&
    (!filter.reason || task.failure?.code === filter.reason) &&
    (!search || task.filename.toLowerCase().includes(search) || task.id.startsWith(search)) &&
    (!filter.since || task.created >= moment(filter.since)) &&
    (!filter.until || task.created < moment(filter.until))
  );
}

const inStates = (filter: Filter, state: number) =>
  !filter.state || filter.state.split(",").includes(stateName(state) satisfies StateName);

const UNITS: Record<string, number> = { m: 60, h: 3600, d: 86400, w: 7 * 86400 };

/** A duration back from now, or Unix seconds. */
export function moment(text: string): number {
  const found = /^(\d+)([mhdw])$/.exec(text);
  return found ? now() - Number(found[1]) * UNITS[found[2]!]! : Number(text);
}
