// Where the keyboard goes on when what has the focus is taken out of the page: at its place in the list, or else at the
// content of the page. A browser would begin at the top of the page again.

const ROW = "li, tr, [role=row], .card";
const CONTROL = "a[href], button:not(:disabled), input:not(:disabled), select:not(:disabled), summary";

interface Place {
  list: Element;
  row: number;
  /** Which of the row's controls. */
  control: number;
}
let focused: HTMLElement | undefined;
/** Of the innermost list first. */
let places: Place[] = [];

export function keepFocus(): void {
  addEventListener("focusin", (event) => remember(event.target as HTMLElement));
  new MutationObserver(goOn).observe(document.body, { childList: true, subtree: true });
}

function remember(element: HTMLElement): void {
  focused = element;
  places = [];
  for (let row = element.closest(ROW); row?.parentElement; row = row.parentElement.closest(ROW)) {
    const list = row.parentElement;
    places.push({ list, row: [...list.children].indexOf(row), control: controls(row).indexOf(element) });
  }
}

function goOn(): void {
  if (!focused || focused.isConnected || document.activeElement !== document.body) return;
  const place = places.find(({ list }) => list.isConnected);
  const next = (place && nearest(place)) ?? document.querySelector<HTMLElement>("dialog[open]") ?? document.getElementById("main");
  focused = undefined;
  next?.focus({ preventScroll: true });
}

/** The control of the same kind in the row that took the place, or else of a row after or before it. */
function nearest({ list, row, control }: Place): HTMLElement | undefined {
  const rows = [...list.children];
  for (const one of [...rows.slice(row), ...rows.slice(0, row).reverse()]) {
    const found = controls(one);
    if (found.length) return found[Math.min(Math.max(control, 0), found.length - 1)];
  }
  return undefined;
}

const controls = (row: Element) => [...row.querySelectorAll<HTMLElement>(CONTROL)];
