// The public API of the master: what the page uses of it. The types come from its OpenAPI document.

import type { components } from "./openapi";

export const State = {
  uploading: -1,
  waiting: 0,
  working: 1,
  finished: 2,
  failed: 3,
  quarantined: 4,
  cancelled: 5,
} as const satisfies Record<string, components["schemas"]["State"]>;
export type StateName = keyof typeof State;
export const stateName = (state: number): StateName =>
  (Object.keys(State) as StateName[]).find((name) => State[name] === state) ?? "waiting";

type Schemas = components["schemas"];
export type Task = Schemas["Task"];
export type Output = Schemas["safelight.wire.Output"];
export type Failure = Schemas["Failure"];
export type TaskEvent = Schemas["Event"];
export type TaskPage = Schemas["TaskPage"];
export type Worker = Schemas["WorkerSeen"];
export type Minute = Schemas["Minute"];
export type LastHour = Schemas["LastHour"];
export type Service = Schemas["ServiceSeen"];
export type Summary = Omit<Schemas["Summary"], "tasks"> & { tasks: Partial<Record<StateName, number>> };

/** An operation of a recipe while it is edited: its fields follow the JSON Schema that the service gives. */
export type Operation = { op: string } & Record<string, unknown>;
export type OutputSpec = Partial<Omit<Schemas["safelight.recipe.records.Output"], "operations">> & {
  operations?: Operation[];
};
export type Recipe = Partial<Omit<Schemas["Recipe"], "outputs">> & { outputs: Record<string, OutputSpec> };
/** The API's description leaves the recipe of a named one open; it is always a whole recipe. */
export type NamedRecipe = Omit<Schemas["NamedRecipe"], "spec"> & { spec: Recipe };

/** What the service refused, in its own words. */
export class Problem extends Error {
  constructor(
    detail: string,
    readonly code = "unavailable",
    readonly position = "",
  ) {
    super(detail);
  }

  static from(text: string): Problem {
    try {
      const found = JSON.parse(text) as { detail?: string; code?: string; position?: string };
      return new Problem(found.detail ?? "The request failed.", found.code, found.position);
    } catch {
      return new Problem("The service could not be reached. It is tried again.");
    }
  }
}

export async function ask<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const request: RequestInit = { method, headers: { Accept: "application/json" } };
  if (signal) request.signal = signal;
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers = { ...request.headers, "Content-Type": "application/json" };
  }
  let answer: Response;
  try {
    answer = await fetch(path, request);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("The service could not be reached. Is it running?");
  }
  const text = await answer.text();
  if (!answer.ok) throw Problem.from(text);
  return (text ? JSON.parse(text) : undefined) as T;
}

const task = (id: string, action = "") => `task/${encodeURIComponent(id)}${action}`;
const query = (values: Record<string, string | number | undefined>) => {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : "";
};

export const getTask = (id: string) => ask<Task>("GET", task(id));
export const findTasks = (filter: { state?: string; recipe?: string; before?: string; limit?: number }) =>
  ask<TaskPage>("GET", `tasks${query(filter)}`);
export const cancelTask = (id: string) => ask<Task>("POST", task(id, "/cancel"));
export const retryTask = (id: string) => ask<Task>("POST", task(id, "/retry"));
export const releaseTask = (id: string) => ask<Task>("POST", task(id, "/release"));
export const deleteTask = (id: string) => ask<void>("DELETE", task(id));
export const getRecipes = () => ask<NamedRecipe[]>("GET", "recipes");
export const saveRecipe = (name: string, recipe: Recipe) =>
  ask<NamedRecipe>("PUT", `recipes/${encodeURIComponent(name)}`, recipe);
export const deleteRecipe = (name: string) => ask<void>("DELETE", `recipes/${encodeURIComponent(name)}`);
export const getSchema = () => ask<{ $defs: Record<string, unknown> }>("GET", "recipes/schema");
export const preview = (id: string, recipe: Recipe, signal: AbortSignal) =>
  ask<Task>("POST", "preview", { task: id, recipe }, signal);
export const getSummary = () => ask<Summary>("GET", "summary");
export const getHour = () => ask<LastHour>("GET", "last-hour");
export const getServices = () => ask<Service[]>("GET", "services");

export const viewUrl = (id: string, output?: string, size: "small" | "large" = "small") =>
  task(id, `/rendition${query({ output, size })}`);
export const resultUrl = (id: string, output: string) => task(id, `/result${query({ output, download: "true" })}`);
export const originalUrl = (id: string) => task(id, "/original?download=true");
