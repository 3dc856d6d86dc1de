// The attempts at a task, derived from its events.

import type { Failure, TaskEvent } from "../api/api";

export type Outcome = "running" | "finished" | "failed" | "delayed" | "died" | "expired" | "returned" | "cancelled" | "deleted";

export interface Attempt {
  number: number;
  worker: string;
  began: number;
  ended?: number;
  outcome: Outcome;
  failure: Failure | null;
  /** Processing time as the worker measured it. */
  seconds: number;
}

const ENDS: Record<string, Outcome> = {
  finished: "finished",
  failed: "failed",
  delayed: "delayed",
  died: "died",
  expired: "expired",
  returned: "returned",
  cancelled: "cancelled",
  deleted: "deleted",
};

export function attempts(events: readonly TaskEvent[]): Attempt[] {
  const found: Attempt[] = [];
  for (const event of events) {
    if (event.kind === "leased") {
      const { attempt: number, worker, at: began } = event;
      found.push({ number, worker, began, outcome: "running", failure: null, seconds: 0 });
      continue;
    }
    const last = found.at(-1);
    const outcome = ENDS[event.kind];
    if (!last || last.outcome !== "running" || !outcome) continue;
    Object.assign(last, { ended: event.at, outcome, failure: event.failure, seconds: event.seconds });
  }
  return found;
}
