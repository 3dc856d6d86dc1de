// The time of the service. By the browser's own clock, which may be wrong, workers that are there could look gone.

import { signal } from "@preact/signals";

const TOLERATED = 2000;
const TOLD_EVERY = 15_000;
/** By how many milliseconds the browser's clock is ahead. */
let ahead = 0;

/** What shows a time is drawn anew now and then, since the time passes also where nothing happens. */
const drawn = signal(0);
setInterval(() => drawn.value++, TOLD_EVERY);

export const now = () => (void drawn.value, (Date.now() - ahead) / 1000);

/** Learn the time from an answer, which has it in whole seconds; one that took long says little. */
export function setBy(answer: Response, took: number): void {
  const told = Date.parse(answer.headers.get("Date") ?? "");
  if (Number.isNaN(told) || took > TOLERATED) return;
  const found = Date.now() - told;
  ahead = Math.abs(found) > 2 * TOLERATED ? found : 0;
}
