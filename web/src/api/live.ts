// The changes of all tasks as they happen: one stream of server-sent events for the whole page.

import { signal } from "@preact/signals";
import type { TaskEvent } from "./api";
import { address, State, unreached } from "./api";

/** "none" is for keys that may only upload. */
export type Connection = "connecting" | "live" | "lost" | "none";
export const connection = signal<Connection>("connecting");

export interface Follower {
  /** Changes since the last call, in order. */
  changed(events: TaskEvent[]): void;
  /** Something may have been missed: read anew. */
  missed(): void;
}

const FLUSH_EVERY = 200;
const RETRY_AFTER = 1500;

const followers = new Set<Follower>();
let source: EventSource | undefined;
let last: string | undefined;
let waiting: TaskEvent[] = [];
let flush: number | undefined;
let retry: number | undefined;

const renditions = new Set<() => void>();
/** Hear of each rendition that was made: a photo may now be shown. */
export const onRendition = (heard: () => void) => renditions.add(heard);

export function follow(follower: Follower): () => void {
  followers.add(follower);
  return () => followers.delete(follower);
}

let allowed = () => true;

/** Open the stream, anew if there is one. Who may not read gets none; call this again when somebody has signed in. */
export function connect(): void {
  clearTimeout(retry);
  source?.close();
  if (!allowed()) {
    connection.value = "none";
    return;
  }
  const resumed = last !== undefined;
  // The number, and after a hyphen the name of the database that gave it.
  source = new EventSource(address(resumed ? `events?after=${last?.replace("-", "&known=")}` : "events"));
  source.onopen = () => {
    connection.value = "live";
    if (!resumed) for (const follower of followers) follower.missed();
  };
  source.onmessage = (message: MessageEvent<string>) => {
    last = message.lastEventId;
    const event = JSON.parse(message.data) as TaskEvent;
    if (event.internal) {
      if (event.state === State.finished) for (const heard of renditions) heard();
      return;
    }
    waiting.push(event);
    flush ??= window.setTimeout(hand, FLUSH_EVERY);
  };
  source.addEventListener("missed", () => {
    for (const follower of followers) follower.missed();
  });
  source.onerror = lose;
}

function lose(): void {
  source?.close();
  connection.value = "lost";
  clearTimeout(retry);
  retry = window.setTimeout(connect, RETRY_AFTER);
}

function hand(): void {
  flush = undefined;
  const events = waiting;
  waiting = [];
  for (const follower of followers) follower.changed(events);
}

/** Follow while the page is looked at; a hidden page gives its connection back and catches up later. */
export function start(mayRead: () => boolean): void {
  allowed = mayRead;
  connect();
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") connect();
    else {
      clearTimeout(retry);
      source?.close();
    }
  });
  window.addEventListener("online", connect);
  window.addEventListener("offline", lose);
  // A stream over a network that is gone gives no error for minutes; a request does.
  unreached.subscribe((count) => count > 0 && connection.value === "live" && lose());
}
