// Numbers and states in words.

import type { StateName, Task } from "./api";
import { stateName } from "./api";

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(size: number): string {
  let unit = 0;
  while (size >= 1000 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

export function seconds(value: number): string {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min`;
}

export function ago(moment: number, now = Date.now() / 1000): string {
  const passed = Math.max(0, now - moment);
  if (passed < 5) return "just now";
  if (passed < 60) return `${Math.floor(passed)} s ago`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h ago`;
  return new Date(moment * 1000).toLocaleDateString();
}

export const clock = (moment: number) =>
  new Date(moment * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

export const count = (value: number) => value.toLocaleString("en");

export const plural = (value: number, one: string, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

const WORDS: Record<StateName, string> = {
  uploading: "Uploading",
  waiting: "Waiting",
  working: "Developing",
  finished: "Finished",
  failed: "Failed",
  quarantined: "Quarantined",
  cancelled: "Cancelled",
};

export const stateWord = (state: StateName) => WORDS[state];

/** Why a task is where it is, in a sentence. */
export function reason(task: Task): string {
  const state = stateName(task.state);
  if (state === "finished") return task.reused ? "Made before from the same photo" : `Took ${seconds(task.seconds)}`;
  if (task.failure) return task.failure.detail;
  if (state === "waiting") return task.attempts ? "Goes round again" : "In the queue";
  if (state === "working") return task.attempts > 1 ? `Attempt ${task.attempts}` : "A worker has it";
  return "";
}

export const dimensions = (width: number, height: number) => (width && height ? `${width} × ${height}` : "");

export const kind = (mediaType: string) => mediaType.replace("image/", "").replace("+xml", "").toUpperCase();

/** Spoken form of a name in code: `smart_crop` is "Smart crop". */
export const spoken = (name: string) => {
  const words = name.replace(/[_-]/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
};
