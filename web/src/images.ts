// Load thumbnails and large views, a few at a time, so that lists, uploads and changes never wait for them.

import { follow } from "./api/live";
import { onRendition } from "./api/live";

const AT_ONCE = 4;
const RETRY_AFTER = [1000, 2000, 4000, 8000, 15000];

interface Job {
  url: string;
  signal: AbortSignal;
  done: (image: string) => void;
  waits: (text: "preparing" | "failed") => void;
  tries: number;
}

const queue: Job[] = [];
let running = 0;
const asleep = new Set<() => void>();

/** Wake what waits for an image: one was made, or the connection is back. */
function wake(): void {
  for (const one of [...asleep]) one();
}
onRendition(wake);
follow({ changed: () => undefined, missed: wake });

/**
 * Fetch an image and hand over its address. Where the service has none yet, it is asked again when a worker has made
 * one; `waits` says meanwhile why nothing is shown.
 */
export function load(url: string, signal: AbortSignal, done: Job["done"], waits: Job["waits"]): void {
  queue.push({ url, signal, done, waits, tries: 0 });
  next();
}

function next(): void {
  while (running < AT_ONCE) {
    const job = queue.shift();
    if (!job) return;
    if (job.signal.aborted) continue;
    running += 1;
    void run(job).finally(() => {
      running -= 1;
      next();
    });
  }
}

async function run(job: Job): Promise<void> {
  try {
    const answer = await fetch(job.url, { signal: job.signal, headers: { Accept: "image/*" } });
    if (answer.status === 200) return job.done(URL.createObjectURL(await answer.blob()));
    const final = answer.status >= 400 && answer.status < 500 && answer.status !== 429 && answer.status !== 409;
    job.waits(final ? "failed" : "preparing");
    if (!final) again(job);
  } catch {
    if (job.signal.aborted) return;
    job.waits("failed");
    again(job);
  }
}

function again(job: Job): void {
  const pause = RETRY_AFTER[Math.min(job.tries, RETRY_AFTER.length - 1)]!;
  job.tries += 1;
  const resume = () => {
    clearTimeout(timer);
    asleep.delete(resume);
    job.signal.removeEventListener("abort", resume);
    queue.push(job);
    next();
  };
  const timer = window.setTimeout(resume, pause);
  asleep.add(resume);
  job.signal.addEventListener("abort", resume);
}
