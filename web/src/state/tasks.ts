// Lists of tasks, newest first, read page by page and kept current by the stream of changes.

import { signal } from "@preact/signals";
import type { Task, TaskEvent, TaskPage } from "../api/api";
import { findTasks, getTask, Problem } from "../api/api";
import { type Filter, matches, mayMatch } from "../api/filter";
import { follow } from "../api/live";

const HEAD_EVERY = 700;
const ONE_BY_ONE = 4;

export class TaskList {
  readonly items = signal<Task[]>([]);
  readonly complete = signal(false);
  readonly loaded = signal(false);
  readonly error = signal("");
  private next: string | undefined;
  private reading = false;
  private stale = false;
  private moreWanted = false;
  private timer: number | undefined;
  private stopFollowing: (() => void) | undefined;

  constructor(
    readonly filter: Filter = {},
    private readonly limit = 100,
  ) {}

  start(): () => void {
    this.stopFollowing = follow({
      changed: (events) => void this.apply(events),
      missed: () => void this.head(),
    });
    void this.head();
    return () => {
      clearTimeout(this.timer);
      this.stopFollowing?.();
    };
  }

  /** Read the next older page. */
  async more(): Promise<void> {
    if (this.complete.value) return;
    if (this.reading || !this.loaded.value) {
      this.moreWanted = true;
      return;
    }
    await this.read(async () => {
      const page = await findTasks(this.filter, { limit: this.limit, before: this.next ?? "" });
      this.next = page.next ?? undefined;
      this.complete.value = !page.next;
      this.merge(page.tasks, "back");
    });
  }

  /** Read the newest page; where it does not reach down to what is known, begin anew from it. */
  async head(): Promise<void> {
    if (this.reading) {
      this.stale = true;
      return;
    }
    await this.read(async () => {
      const before = new Set(this.items.value);
      const page = await findTasks(this.filter, { limit: this.limit });
      const known = new Set(this.items.value.map((task) => task.id));
      const joins = page.tasks.some((task) => known.has(task.id));
      if (!this.loaded.value || (page.next && !joins)) {
        this.items.value = [];
        this.next = page.next ?? undefined;
        this.complete.value = !page.next;
      } else this.drop(before, page);
      this.loaded.value = true;
      this.merge(page.tasks);
    });
  }

  /** Drop what a page reaches down to and does not have, unless it came or changed after the page was asked for. */
  private drop(before: ReadonlySet<Task>, page: TaskPage): void {
    const there = new Set(page.tasks.map((task) => task.id));
    const reach = page.next ? (page.tasks.at(-1)?.created ?? Infinity) : -Infinity;
    this.items.value = this.items.value.filter((task) => !before.has(task) || there.has(task.id) || task.created <= reach);
    this.complete.value ||= !page.next;
  }

  forget(id: string): void {
    this.items.value = this.items.value.filter((task) => task.id !== id);
  }

  put(task: Task): void {
    this.merge([task]);
  }

  private async read(reader: () => Promise<void>): Promise<void> {
    this.reading = true;
    try {
      await reader();
      this.error.value = "";
    } catch (error) {
      this.error.value = error instanceof Problem ? error.message : String(error);
      if (!(error instanceof Problem) || error.transient) this.soon();
    } finally {
      this.reading = false;
      if (this.stale) {
        this.stale = false;
        this.soon();
      }
      if (this.moreWanted && this.loaded.value) {
        this.moreWanted = false;
        void this.more();
      }
    }
  }

  private soon(): void {
    this.timer ??= window.setTimeout(() => {
      this.timer = undefined;
      void this.head();
    }, HEAD_EVERY);
  }

  private async apply(events: TaskEvent[]): Promise<void> {
    const last = new Map(events.map((event) => [event.task, event]));
    let touched = false;
    const unknown = new Set(last.keys());
    const items = this.items.value.flatMap((task) => {
      const event = last.get(task.id);
      unknown.delete(task.id);
      if (!event || event.seq <= task.seq) return [task];
      touched = true;
      return event.kind === "deleted" || !mayMatch(this.filter, event) ? [] : [changed(task, event)];
    });
    if (touched) this.items.value = items;
    const wanted = [...unknown].filter((id) => {
      const event = last.get(id)!;
      return event.kind !== "deleted" && mayMatch(this.filter, event);
    });
    if (wanted.length > ONE_BY_ONE) this.soon();
    else this.merge(await Promise.all(wanted.map((id) => getTask(id).catch(() => undefined))));
  }

  /** Put in what was read. Tasks of one moment stay in the service's order: newer ones in front, older ones behind. */
  private merge(found: (Task | undefined)[], where: "front" | "back" = "front"): void {
    const known = new Map(this.items.value.map((task) => [task.id, task]));
    const oldest = this.complete.value || found.length > 1 ? undefined : this.items.value.at(-1);
    const added: Task[] = [];
    for (const task of found) {
      if (!task || task.internal) continue;
      const before = known.get(task.id);
      if (!matches(this.filter, task)) known.delete(task.id);
      else if (before) known.set(task.id, before.seq <= task.seq ? task : before);
      else if (!oldest || task.created >= oldest.created) added.push(task);
    }
    const there = [...known.values()];
    const all = where === "front" ? [...added, ...there] : [...there, ...added];
    this.items.value = all.sort((one, other) => other.created - one.created);
  }
}

function changed(task: Task, event: TaskEvent): Task {
  return {
    ...task,
    state: event.state,
    seq: event.seq,
    changed: event.at,
    attempts: event.attempt || task.attempts,
    failure: event.failure,
    seconds: event.seconds || task.seconds,
  };
}
