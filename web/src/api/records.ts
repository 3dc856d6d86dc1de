// The records of the public API, as far as the page uses them. The types come from its OpenAPI document.

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
export type Output = Schemas["Output"];
export type Failure = Schemas["Failure"];
export type TaskEvent = Schemas["Event"];
export type TaskPage = Schemas["TaskPage"];
export type Worker = Schemas["WorkerSeen"];
export type Minute = Schemas["Minute"];
export type Statistics = Schemas["Statistics"];
export type Span = "hour" | "day" | "week";
export type WebhookCall = Schemas["WebhookCall"];
export type WebhookCallPage = Schemas["WebhookCallPage"];
export type LastHour = Schemas["LastHour"];
export type Service = Schemas["ServiceSeen"];
export type TaskFilter = Schemas["TaskFilter"];
export type TaskCounts = Schemas["TaskCounts"];
export type TaskAction = Schemas["TaskAction"];
export type TaskActionResult = Schemas["TaskActionResult"];
export type EventPage = Schemas["EventPage"];
export type Batch = Schemas["Batch"];
export type BatchPage = Schemas["BatchPage"];
export type StorageInfo = Schemas["StorageInfo"];
export type Summary = Omit<Schemas["Summary"], "tasks"> & { tasks: Partial<Record<StateName, number>> };

/** An operation of a recipe while it is edited: its fields follow the JSON Schema that the service gives. */
export type Operation = { op: string } & Record<string, unknown>;
export type OutputSpec = Partial<Omit<Schemas["OutputSpec"], "operations">> & {
  operations?: Operation[];
};
export type Recipe = Partial<Omit<Schemas["Recipe"], "outputs">> & { outputs: Record<string, OutputSpec> };
/** The API's description leaves the recipe of a named one open; it is always a whole recipe. */
export type NamedRecipe = Omit<Schemas["NamedRecipe"], "spec"> & { spec: Recipe };
