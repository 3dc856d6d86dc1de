// The last known state of the queue, and the actions of operators on it.

import { signal } from "@preact/signals";
import { drainWorker, getSummary, pauseQueue, pauseRecipe, resumeQueue, resumeRecipe, resumeWorker } from "../api/api";
import type { Summary, Worker } from "../api/api";
import { confirmed } from "./questions";
import { attempt } from "./messages";
import { texts } from "../texts";

const words = texts.system;

export const summary = signal<Summary | undefined>(undefined);

export async function loadSummary(): Promise<void> {
  summary.value = await getSummary();
}

export async function changeQueue(paused: boolean): Promise<void> {
  const question = { title: words.pauseQuestion, text: words.pauseText, action: words.pause };
  if (paused && !(await confirmed(question))) return;
  const found = await attempt(paused ? pauseQueue : resumeQueue);
  if (found) summary.value = found;
}

export async function changeRecipe(name: string, paused: boolean): Promise<void> {
  const question = { title: words.pauseRecipeQuestion(name), text: words.pauseRecipeText, action: words.pauseRecipe };
  if (paused && !(await confirmed(question))) return;
  const found = await attempt(() => (paused ? pauseRecipe : resumeRecipe)(name));
  if (found) summary.value = found;
}

export async function changeWorker({ worker }: Worker, draining: boolean): Promise<void> {
  const name = worker.name || worker.id;
  const question = { title: words.drainQuestion(name), text: words.drainText, action: words.drain };
  if (draining && !(await confirmed(question))) return;
  const found = await attempt(() => (draining ? drainWorker : resumeWorker)(worker.id));
  const now = summary.value;
  if (!found || !now) return;
  summary.value = { ...now, workers: now.workers.map((one) => (one.worker.id === worker.id ? found : one)) };
}
