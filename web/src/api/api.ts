// The calls of the master's public API that the page uses. The types come from its OpenAPI document.

import { signal as shared } from "@preact/signals";
import { setBy } from "./clock";
import { type Filter, moment } from "./filter";
import type {
  Batch,
  BatchPage,
  EventPage,
  LastHour,
  NamedRecipe,
  Recipe,
  Service,
  Span,
  Statistics,
  StorageInfo,
  Summary,
  Task,
  TaskAction,
  TaskActionResult,
  TaskCounts,
  TaskFilter,
  TaskPage,
  WebhookCall,
  WebhookCallPage,
  Worker,
} from "./records";
import { acting } from "../router";
import { texts } from "../texts";

export * from "./records";

/** An address of the API, for the tenant that is looked at. */
export const address = (path: string): string =>
  acting ? `${path}${path.includes("?") ? "&" : "?"}tenant=${encodeURIComponent(acting)}` : path;

const TRANSIENT = ["unavailable", "too_many_requests", "storage_full", "internal"];

/** What the service refused, in its own words. */
export class Problem extends Error {
  constructor(
    detail: string,
    readonly code = "unavailable",
    readonly position = "",
    /** After how many seconds the service wants to be asked again. */
    readonly again = 1,
  ) {
    super(detail);
  }

  /** Whether the same request may succeed later. */
  get transient(): boolean {
    return TRANSIENT.includes(this.code);
  }

  static from(text: string): Problem {
    try {
      const found = JSON.parse(text) as { detail?: string; code?: string; position?: string; retry_after?: number };
      return new Problem(found.detail ?? texts.problem.failed, found.code, found.position, found.retry_after);
    } catch {
      return new Problem(texts.problem.unreachable);
    }
  }
}

/** How many requests were refused because nobody is signed in; access/gate.tsx asks again who is. */
export const refused = shared(0);

/** How many requests did not reach the service; the live stream, which may hang unnoticed, is then opened anew. */
export const unreached = shared(0);

export async function ask<T>(method: string, path: string, body?: unknown, signal?: AbortSignal, more = {}): Promise<T> {
  const request: RequestInit = { method, headers: { Accept: "application/json", ...more } };
  if (signal) request.signal = signal;
  if (body instanceof Blob) request.body = body;
  else if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers = { ...request.headers, "Content-Type": "application/json" };
  }
  const text = await (await answerTo(path, request)).text();
  try {
    return (text ? JSON.parse(text) : undefined) as T;
  } catch {
    throw new Problem(texts.problem.foreign); // of a proxy that wants people to sign in, for example
  }
}

/** Send a request; return its answer unless it was refused. */
async function answerTo(path: string, request: RequestInit): Promise<Response> {
  const began = performance.now();
  let answer: Response;
  try {
    answer = await fetch(address(path), request);
  } catch (error) {
    if (request.signal?.aborted) throw error;
    unreached.value++;
    throw new Problem(texts.problem.unreachable);
  }
  setBy(answer, performance.now() - began);
  if (answer.ok) return answer;
  const problem = Problem.from(await answer.text());
  if (problem.code === "unauthenticated" && path !== "session") refused.value++;
  throw problem;
}

/** Ask whether there is a ZIP of these tasks. A browser that is sent for it shows a refusal in the place of the page. */
export async function hasArchive(tasks: string): Promise<void> {
  const answer = await answerTo("archive", { method: "POST", body: new URLSearchParams({ tasks }) });
  await answer.body?.cancel();
}

const task = (id: string, action = "") => `task/${encodeURIComponent(id)}${action}`;
const query = (values: Record<string, string | number | undefined>) => {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : "";
};

export const getTask = (id: string) => ask<Task>("GET", task(id));
export const findTasks = (filter: Filter, page: { limit: number; before?: string }) =>
  ask<TaskPage>("GET", `tasks${query({ ...asked(filter), ...page })}`);
export const countTasks = (filter: Filter) => ask<TaskCounts>("GET", `tasks/counts${query(asked(filter))}`);
export const getTaskEvents = (id: string) => ask<EventPage>("GET", task(id, "/events?after=0&limit=1000"));
export const getTaskRecipe = (id: string) => ask<NamedRecipe>("GET", task(id, "/recipe"));
/** With a key, a rerun that is sent again creates no task twice. */
export const actOnTasks = (request: TaskAction, key?: string) =>
  ask<TaskActionResult>("POST", "tasks/actions", request, undefined, key && { "Idempotency-Key": key });
export const getBatches = (page: { before?: string; limit: number }) => ask<BatchPage>("GET", `batches${query(page)}`);
export const getBatch = (name: string) => ask<Batch>("GET", `batches/${encodeURIComponent(name)}`);
export const cancelTask = (id: string) => ask<Task>("POST", task(id, "/cancel"));
export const retryTask = (id: string) => ask<Task>("POST", task(id, "/retry"));
export const releaseTask = (id: string) => ask<Task>("POST", task(id, "/release"));
export const deleteTask = (id: string) => ask<void>("DELETE", task(id));
export const getRecipes = () => ask<NamedRecipe[]>("GET", "recipes");
const ifUnchanged = (since: number) => ({ "If-Match": `"${Math.round(since * 1000)}"` });
/** Save a recipe, unless it was changed after a time; 0: unless there is one. */
export const saveRecipe = (name: string, recipe: Recipe, unchanged: number) => {
  const condition = unchanged ? ifUnchanged(unchanged) : { "If-None-Match": "*" };
  return ask<NamedRecipe>("PUT", `recipes/${encodeURIComponent(name)}`, recipe, undefined, condition);
};
/** Delete a recipe, unless it was changed after a time. */
export const deleteRecipe = (name: string, unchanged: number) =>
  ask<void>("DELETE", `recipes/${encodeURIComponent(name)}`, undefined, undefined, ifUnchanged(unchanged));
/** Check a recipe in TOML or JSON; what comes back is complete. */
export const checkToml = (text: string, json: boolean) =>
  ask<NamedRecipe>("POST", "recipes/check", new Blob([text], { type: json ? "application/json" : "application/toml" }));
export const getSchema = () => ask<{ $defs: Record<string, unknown> }>("GET", "recipes/schema");
export const preview = (id: string, recipe: Recipe, signal: AbortSignal) =>
  ask<Task>("POST", "preview", { task: id, recipe }, signal);
export const pauseQueue = () => ask<Summary>("POST", "queue/pause");
export const resumeQueue = () => ask<Summary>("POST", "queue/resume");
export const pauseRecipe = (name: string) => ask<Summary>("POST", `recipes/${encodeURIComponent(name)}/pause`);
export const resumeRecipe = (name: string) => ask<Summary>("POST", `recipes/${encodeURIComponent(name)}/resume`);
export const drainWorker = (id: string) => ask<Worker>("POST", `workers/${encodeURIComponent(id)}/drain`);
export const resumeWorker = (id: string) => ask<Worker>("POST", `workers/${encodeURIComponent(id)}/resume`);
export const getSummary = () => ask<Summary>("GET", "summary");
export const getStorage = () => ask<StorageInfo>("GET", "storage");
export const getLastHour = () => ask<LastHour>("GET", "last-hour");
export const getStatistics = (span: Span) => ask<Statistics>("GET", `statistics?span=${span}`);
export const getWebhookCalls = (limit: number) => ask<WebhookCallPage>("GET", `webhooks/calls${query({ limit })}`);
export const resendWebhook = (id: string) => ask<WebhookCall>("POST", `webhooks/calls/${encodeURIComponent(id)}/resend`);
export const getServices = () => ask<Service[]>("GET", "services");

/** The filter as a body holds it. */
export function filterRecord(filter: Filter): TaskFilter {
  const { state, recipe, batch, search, reason, since, until } = asked(filter);
  return {
    state: state || null,
    recipe: recipe || null,
    batch: batch || null,
    search: search || null,
    reason: reason || null,
    since: since ?? null,
    until: until ?? null,
    internal: false,
  };
}

/** A filter as the API takes it: times in Unix seconds. */
type Asked = Omit<Filter, "since" | "until"> & { since?: number; until?: number };

export function asked(filter: Filter): Asked {
  const { since, until, ...others } = filter;
  return { ...others, ...(since && { since: moment(since) }), ...(until && { until: moment(until) }) };
}

export const renditionUrl = (id: string, output?: string, size: "small" | "large" = "small") =>
  address(task(id, `/rendition${query({ output, size, wait: 0 })}`));
export const resultUrl = (id: string, output: string) => address(task(id, `/result${query({ output, download: "true" })}`));
export const shownUrl = (id: string, output: string) => address(task(id, `/result${query({ output })}`));
export const originalUrl = (id: string, download = true) => address(task(id, `/original${download ? "?download=true" : ""}`));
export const archiveUrl = (of: { tasks: string } | Asked) => address(`archive${query(of)}`);
