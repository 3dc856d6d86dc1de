// Where in the page one is: `#/photos/ID`.

import { computed, signal } from "@preact/signals";

export const VIEWS = ["photos", "tasks", "recipes", "system"] as const;
export type View = (typeof VIEWS)[number];

const read = () => location.hash.replace(/^#\//, "").split("/").map(decodeURIComponent);
const place = signal(read());

window.addEventListener("hashchange", () => {
  place.value = read();
});

export const view = computed<View>(() => {
  const name = place.value[0] as View;
  return VIEWS.includes(name) ? name : "photos";
});
export const detail = computed(() => place.value[1] ?? "");

export const link = (to: View, item = "") => `#/${to}${item ? `/${encodeURIComponent(item)}` : ""}`;
export const go = (to: View, item = "") => {
  location.hash = link(to, item);
};
