// The router: `#/tasks/ID?state=failed`. The address contains everything that the user has chosen.

import { computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { moved } from "./scroll";

export const VIEWS = ["photos", "tasks", "batches", "recipes", "system"] as const;
export type View = (typeof VIEWS)[number];
export type Query = Record<string, string>;

interface Route {
  view: View;
  detail: string;
  query: Query;
}

/** A hand-written address may hold a stray `%`; it is taken as it stands. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function read(): Route {
  const [path = "", search = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [name = "", detail = ""] = path.split("/").map(decoded);
  const view = VIEWS.find((one) => one === name) ?? "photos";
  return { view, detail: view === name ? detail : "", query: Object.fromEntries(new URLSearchParams(search)) };
}

const tenantOf = (hash: string) => new URLSearchParams(hash.split(/\?(.*)/s)[1]).get("tenant") ?? "";
/**
 * The tenant for which an administrator of the system looks at the page, where it is not their own. It stands in every
 * address; at that of another tenant the page begins anew, so that nothing of one is left beside what is another's.
 */
export const acting = tenantOf(location.hash);

const route = signal(read());
let guard: (() => Promise<boolean>) | undefined;
let here = location.hash;

/** Ask `leave` before the address changes, until the returned function is called. */
export function guarded(leave: () => Promise<boolean>): () => void {
  guard = leave;
  return () => {
    if (guard === leave) guard = undefined;
  };
}

/** Leave without a question from here on: it was asked already. */
export function unguard(): void {
  guard = undefined;
}

async function follow(): Promise<void> {
  const target = location.hash;
  if (target === here) return;
  if (guard) {
    const asked = guard;
    history.replaceState(null, "", here || "#");
    if (!(await asked())) return;
    if (guard === asked) guard = undefined;
    history.replaceState(null, "", target || "#");
  }
  arrive();
}
window.addEventListener("hashchange", () => void follow());

function arrive(): void {
  here = location.hash;
  if (tenantOf(here) !== acting) location.reload();
  else {
    moved();
    route.value = read();
  }
}

export const view = computed(() => route.value.view);
export const detail = computed(() => route.value.detail);
export const query = computed(() => route.value.query);
/** What a view shows alone, such as one task, by its name; empty otherwise. */
export const subject = signal("");

/** Say what is shown alone, for the title of the page, until something else is shown. */
export function useSubject(name: string): void {
  useEffect(() => {
    subject.value = name;
    return () => {
      subject.value = "";
    };
  }, [name]);
}

export function link(to: View, item = "", values: Query = {}): string {
  const given = Object.entries({ ...(acting && { tenant: acting }), ...values }).filter(([, value]) => value !== "");
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  return `#/${to}${item ? `/${encodeURIComponent(item)}` : ""}${search}`;
}

/** Go somewhere, at once where nothing has to be asked first. */
export function go(to: View, item = "", values: Query = {}): void {
  const target = link(to, item, values);
  if (guard) {
    location.hash = target;
    return;
  }
  if (target !== location.hash) history.pushState(null, "", target);
  arrive();
}

/** Change the address without a new entry in the history: for steps that Back should not repeat one by one. */
export function replace(to: View, item = "", values: Query = {}): void {
  if (location.hash !== here) return; // the user has followed a link meanwhile
  history.replaceState(history.state, "", link(to, item, values));
  arrive();
}
