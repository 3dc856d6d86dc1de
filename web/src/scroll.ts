// How far each page of the history was scrolled, so that Back shows the same part of a long list again.

const PATIENCE = 5000;
const USER = ["wheel", "touchstart", "pointerdown", "keydown"] as const;

const positions = new Map<number, number>();
let entry = mark();
let leave = () => {};

history.scrollRestoration = "manual"; // the browser would try before the list has been read

/** The number of the current entry of the history, which gets one if it is new. */
function mark(): number {
  const known = (history.state as { entry?: number } | null)?.entry;
  if (known !== undefined) return known;
  const made = Math.random();
  history.replaceState({ entry: made }, "");
  return made;
}

/** Note where the page that is left was, and show the one that comes as it was left. */
export function moved(): void {
  leave();
  positions.set(entry, scrollY);
  const before = entry;
  entry = mark();
  if (entry === before) return;
  const place = positions.get(entry);
  if (place !== undefined) leave = returnTo(place);
}

/** Scroll on as the list grows, until it is long enough or the user does something. Returns a function that ends it. */
function returnTo(place: number): () => void {
  const end = performance.now() + PATIENCE;
  let reached = 0;
  let frame = requestAnimationFrame(step);
  const stop = () => {
    cancelAnimationFrame(frame);
    for (const name of USER) removeEventListener(name, stop);
  };
  function step(): void {
    scrollTo(0, place);
    reached = Math.abs(scrollY - place) < 2 ? reached + 1 : 0;
    // The first frame may still show the page that is left.
    if (reached > 2 || performance.now() > end) stop();
    else frame = requestAnimationFrame(step);
  }
  for (const name of USER) addEventListener(name, stop, { passive: true });
  return stop;
}
