// The time of the service. By the browser's own clock, which may be wrong, workers that are there could look gone.

const TOLERATED = 2000;
/** By how many milliseconds the browser's clock is ahead. */
let ahead = 0;

export const now = () => (Date.now() - ahead) / 1000;

/** Learn the time from an answer, which has it in whole seconds; one that took long says little. */
export function setBy(answer: Response, took: number): void {
  const told = Date.parse(answer.headers.get("Date") ?? "");
  if (Number.isNaN(told) || took > TOLERATED) return;
  const found = Date.now() - told;
  ahead = Math.abs(found) > 2 * TOLERATED ? found : 0;
}
