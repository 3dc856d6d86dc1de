// The public API of the master, typed: only what the page uses.

export const State = {
  uploading: -1,
  waiting: 0,
  working: 1,
  finished: 2,
  failed: 3,
  quarantined: 4,
  cancelled: 5,
} as const;
export type StateName = keyof typeof State;
export const stateName = (state: number): StateName =>
  (Object.keys(State) as StateName[]).find((name) => State[name] === state) ?? "waiting";

export interface Output {
  name: string;
  size: number;
  media_type: string;
  width: number;
  height: number;
  frames: number;
}
export interface Failure {
  code: string;
  detail: string;
}
export interface Task {
  id: string;
  state: number;
  seq: number;
  created: number;
  changed: number;
  input: { digest: string; size: number } | null;
  filename: string;
  media_type: string;
  recipe: string;
  batch: string;
  attempts: number;
  errors: number;
  deaths: number;
  outputs: Output[];
  failure: Failure | null;
  seconds: number;
  reused: boolean;
}
export interface TaskEvent {
  seq: number;
  at: number;
  task: string;
  state: number;
  recipe: string;
  batch: string;
  attempt: number;
  kind: string;
  failure: Failure | null;
  seconds: number;
}
export interface TaskPage {
  tasks: Task[];
  next: string | null;
}
export type Operation = { op: string } & Record<string, unknown>;
export interface OutputSpec {
  operations?: Operation[];
  [field: string]: unknown;
}
export interface Recipe {
  name?: string;
  description?: string;
  auto_orient?: boolean;
  outputs: Record<string, OutputSpec>;
}
export interface NamedRecipe {
  name: string;
  spec: Recipe;
  changed: number;
}
export interface Worker {
  worker: { id: string; host: string; engine: string; slots: number; busy: number; isolation: string };
  first_seen: number;
  last_seen: number;
  holding: number;
}
export interface Summary {
  tasks: Partial<Record<StateName, number>>;
  delayed: number;
  oldest_waiting: number;
  workers: Worker[];
}
export interface Minute {
  at: number;
  created: number;
  finished: number;
  failed: number;
  quarantined: number;
  deaths: number;
  open: number;
  median: number | null;
  p95: number | null;
}
export interface Service {
  name: string;
  address: string;
  ready: boolean;
  detail: string;
}

/** Views and previews are tasks of this batch; they are nobody's photos. */
export const VIEWS = "view";

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

const task = (id: string, action = "") => `/task/${encodeURIComponent(id)}${action}`;
const query = (values: Record<string, string | number | undefined>) => {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : "";
};

export const getTask = (id: string) => ask<Task>("GET", task(id));
export const findTasks = (filter: { state?: string; recipe?: string; before?: string; limit?: number }) =>
  ask<TaskPage>("GET", `/tasks${query(filter)}`);
export const cancelTask = (id: string) => ask<Task>("POST", task(id, "/cancel"));
export const retryTask = (id: string) => ask<Task>("POST", task(id, "/retry"));
export const releaseTask = (id: string) => ask<Task>("POST", task(id, "/release"));
export const deleteTask = (id: string) => ask<void>("DELETE", task(id));
export const getRecipes = () => ask<NamedRecipe[]>("GET", "/recipes");
export const saveRecipe = (name: string, recipe: Recipe) =>
  ask<NamedRecipe>("PUT", `/recipes/${encodeURIComponent(name)}`, recipe);
export const deleteRecipe = (name: string) => ask<void>("DELETE", `/recipes/${encodeURIComponent(name)}`);
export const getSchema = () => ask<{ $defs: Record<string, unknown> }>("GET", "/recipes/schema");
export const preview = (id: string, recipe: Recipe, signal: AbortSignal) =>
  ask<Task>("POST", "/preview", { task: id, recipe }, signal);
export const getSummary = () => ask<Summary>("GET", "/summary");
export const getHour = () => ask<{ since: number; minutes: Minute[] }>("GET", "/hour");
export const getServices = () => ask<Service[]>("GET", "/services");

export const viewUrl = (id: string, output?: string, size: "small" | "large" = "small") =>
  task(id, `/view${query({ output, size })}`);
export const resultUrl = (id: string, output: string) => task(id, `/result${query({ output, download: "true" })}`);
export const originalUrl = (id: string) => task(id, "/original?download=true");
