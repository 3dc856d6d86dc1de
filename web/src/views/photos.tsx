// Upload, and the gallery of results.

import { computed, effect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { deleteTask, State, type Task, viewUrl } from "../api";
import { ago, plural } from "../format";
import { confirmed } from "../parts/confirm";
import { Icon } from "../parts/icons";
import { Picture } from "../parts/picture";
import { attempt } from "../parts/toast";
import { detail, link, view } from "../router";
import { TaskList } from "../tasks";
import { Upload } from "./upload";
import { Viewer } from "./viewer";

export const finished = new TaskList(["finished"], 60);
const underWay = new TaskList(["waiting", "working"], 60);
const selected = signal<ReadonlySet<string>>(new Set());
const selecting = computed(() => selected.value.size > 0);
const PLACEHOLDERS = 6;

// A photo that is gone is no longer selected.
effect(() => {
  const there = new Set(finished.items.value.map((task) => task.id));
  const kept = [...selected.peek()].filter((id) => there.has(id));
  if (kept.length < selected.peek().size) selected.value = new Set(kept);
});

export function Photos() {
  useEffect(() => {
    const stops = [finished.start(), underWay.start()];
    return () => stops.forEach((stop) => stop());
  }, []);
  const shown = finished.items.value;
  const waiting = underWay.items.value;
  return (
    <>
      <Upload />
      <section class="gallery" aria-labelledby="results">
        <div class="bar">
          <h2 id="results">Results</h2>
          {waiting.length > 0 && (
            <span class="developing" role="status">
              <i /> {plural(waiting.length, "photo")}
              {underWay.complete.value ? "" : " and more"} developing
            </span>
          )}
          <span class="actions">{selecting.value ? <SelectionActions /> : shown.length > 0 && <Everything />}</span>
        </div>
        {finished.error.value && <p class="error">{finished.error.value}</p>}
        {finished.loaded.value && shown.length === 0 && waiting.length === 0 && <Empty />}
        <ul class={`cards ${selecting.value ? "selecting" : ""}`}>
          {waiting.slice(0, PLACEHOLDERS).map((task) => (
            <Developing key={task.id} task={task} />
          ))}
          {shown.map((task) => (
            <Card key={task.id} task={task} />
          ))}
        </ul>
        {!finished.complete.value && <End />}
      </section>
      {view.value === "photos" && detail.value && <Viewer id={detail.value} list={finished} />}
    </>
  );
}

const Empty = () => (
  <div class="empty">
    <Icon name="photos" />
    <p>Nothing developed yet. Results appear here as workers finish them.</p>
  </div>
);

function Card({ task }: { task: Task }) {
  const name = task.filename || task.id;
  const isSelected = selected.value.has(task.id);
  const toggle = () => {
    const next = new Set(selected.value);
    if (!next.delete(task.id)) next.add(task.id);
    selected.value = next;
  };
  return (
    <li class={`card ${isSelected ? "selected" : ""}`}>
      <a href={link("photos", task.id)} aria-label={`${name}, ${task.recipe}`}>
        <Picture src={viewUrl(task.id, smallest(task))} alt="" />
      </a>
      <label class="pick">
        <input type="checkbox" checked={isSelected} onChange={toggle} aria-label={`Select ${name}`} />
        <Icon name="check" />
      </label>
      <p class="name" title={name}>
        {name}
      </p>
      <p class="quiet">
        {task.recipe} · {ago(task.changed)}
      </p>
    </li>
  );
}

const Developing = ({ task }: { task: Task }) => (
  <li class="card developing-card">
    <span class="shimmer" />
    <p class="name">{task.filename || task.id}</p>
    <p class="quiet">{task.state === State.working ? "Developing" : "In the queue"}</p>
  </li>
);

/** The output that costs least to show. */
export function smallest(task: Task): string | undefined {
  const fit = task.outputs.filter((output) => output.width >= 240);
  return (fit.length ? fit : task.outputs).reduce(
    (best, output) => (!best || output.size < best.size ? output : best),
    undefined as Task["outputs"][number] | undefined,
  )?.name;
}

const Everything = () => (
  <a class="button" href="archive" download>
    <Icon name="download" /> Download all
  </a>
);

function SelectionActions() {
  const ids = [...selected.value];
  const drop = async () => {
    const sure = await confirmed(
      `Delete ${plural(ids.length, "photo")}?`,
      "The photos and everything that was made of them go. This cannot be undone.",
      "Delete",
    );
    if (!sure) return;
    for (const id of ids) {
      await attempt(async () => {
        await deleteTask(id);
        finished.forget(id);
      });
    }
    selected.value = new Set();
  };
  return (
    <>
      <span class="quiet" role="status">
        {ids.length} selected
      </span>
      <button onClick={() => (selected.value = new Set(finished.items.value.map((task) => task.id)))}>Select all</button>
      <button onClick={() => (selected.value = new Set())}>Clear</button>
      <button onClick={() => void drop()}>
        <Icon name="trash" /> Delete
      </button>
      <form method="post" action="archive">
        <input type="hidden" name="tasks" value={ids.join(",")} />
        <button class="main">
          <Icon name="download" /> Download ZIP
        </button>
      </form>
    </>
  );
}

/** Coming into sight, it asks for the next page. */
function End() {
  const mark = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const watcher = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && void finished.more(),
      { rootMargin: "800px" },
    );
    watcher.observe(mark.current!);
    return () => watcher.disconnect();
  }, [finished.items.value.length]);
  return (
    <button ref={mark} class="more" onClick={() => void finished.more()}>
      Show more
    </button>
  );
}
