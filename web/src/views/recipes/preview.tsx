// The preview of a recipe, made by a worker like any other result; two settings can be compared side by side.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { deleteTask, type Output, preview, Problem, renditionUrl, State, type Task } from "../../api/api";
import { draft } from "../../state/draft";
import { bytes, change, dimensions, kind, seconds } from "../../format";
import { Icon } from "../../parts/icons";
import { Stage } from "../../parts/stage";
import { Thumbnail } from "../../parts/thumbnail";
import { TaskList } from "../../state/tasks";
import { may } from "../../state/session";
import { texts } from "../../texts";

const words = texts.preview;
const WAIT = 350;
const CHOICES = 12;

/** The task whose photo is tried on. */
export const original = signal<Task | undefined>(undefined);
/** The task of the newest preview: all outputs of the recipe. */
export const made = signal<Task | undefined>(undefined);
/** A preview that was put aside, to compare others with it. */
const pinned = signal<Task | undefined>(undefined);
const busy = signal(false);
const error = signal("");

/** A preview is an upload that is looked at. */
const allowed = () => may("upload") && may("read");

export function Preview({ output }: { output: string }) {
  usePhotos();
  const id = original.value?.id;
  useEffect(() => {
    if (!id || !allowed()) return undefined;
    const leaving = new AbortController();
    const timer = window.setTimeout(() => void make(id, leaving.signal), WAIT);
    return () => {
      clearTimeout(timer);
      leaving.abort();
    };
  }, [id, JSON.stringify(draft.value.outputs), draft.value.auto_orient]);
  useEffect(
    () => () => {
      show(undefined);
      pin(undefined);
    },
    [id],
  );
  const photo = original.value;
  const result = named(made.value, output);
  return (
    <section class="preview panel" aria-label={words.title}>
      {made.value && result && photo ? (
        <Compared photo={photo} now={made.value} result={result} output={output} />
      ) : (
        <div class={`stage ${busy.value ? "busy" : ""}`}>
          <p class="quiet">{photo ? "" : nothing()}</p>
        </div>
      )}
      <p class="facts-line" role="status">
        {error.value ? <span class="error">{error.value}</span> : result ? facts(result, photo) : busy.value ? words.busy : ""}
        {made.value && !error.value ? ` · ${seconds(made.value.seconds)}` : ""}
      </p>
      {result && <Pin output={output} photo={photo} />}
      {allowed() && <Choices />}
    </section>
  );
}

/** An output of a preview, or its first if it has none of that name. */
const named = (task: Task | undefined, output: string) => task?.outputs.find((one) => one.name === output) ?? task?.outputs[0];

/** The photo, or what was put aside, beside the newest preview. */
function Compared({ photo, now, result, output }: { photo: Task; now: Task; result: Output; output: string }) {
  const other = named(pinned.value, output);
  return (
    <Stage
      name={photo.filename}
      busy={busy.value}
      before={{ rendition: renditionUrl(other && pinned.value ? pinned.value.id : photo.id, other?.name, "large") }}
      after={{ rendition: renditionUrl(now.id, result.name, "large") }}
      width={result.width}
      height={result.height}
      {...(other && { labels: [words.pinned, words.now] as [string, string] })}
    />
  );
}

/** Put the preview aside, or drop what was put aside. */
function Pin({ output, photo }: { output: string; photo: Task | undefined }) {
  const other = named(pinned.value, output);
  return (
    <div class="actions compare-settings">
      {other ? (
        <>
          <span class="quiet">
            {words.pinned}: {facts(other, photo)}
          </span>
          <button onClick={() => pin(undefined)}>
            <Icon name="close" /> {words.unpin}
          </button>
        </>
      ) : (
        <button onClick={() => pin(made.value)}>
          <Icon name="compare" /> {words.pin}
        </button>
      )}
    </div>
  );
}

/** Why there is no photo to try the recipe on. */
function nothing(): string {
  if (!allowed()) return words.notAllowed;
  return recent.error.value || (recent.loaded.value ? words.upload : texts.loading);
}

const facts = (output: Output, photo: Task | undefined) =>
  [
    kind(output.media_type),
    dimensions(output.width, output.height),
    bytes(output.size),
    photo?.input ? words.beside(change(output.size, photo.input.size), bytes(photo.input.size)) : "",
  ]
    .filter(Boolean)
    .join(" · ");

/** Try the recipe; what was shown before is no longer needed. */
async function make(id: string, leaving: AbortSignal): Promise<void> {
  busy.value = true;
  try {
    const task = await preview(id, draft.value, leaving);
    if (leaving.aborted) return drop(task);
    error.value = task.state === State.finished ? "" : (task.failure?.detail ?? words.failed);
    if (task.state === State.finished) show(task);
    else drop(task);
  } catch (problem) {
    if (leaving.aborted) return;
    error.value = problem instanceof Problem ? problem.message : String(problem);
  }
  busy.value = false;
}

const drop = (task: Task | undefined): void => {
  if (task && task !== pinned.value && task !== made.value) void deleteTask(task.id).catch(() => undefined);
};

function show(task: Task | undefined): void {
  const before = made.value;
  made.value = task;
  drop(before);
}

function pin(task: Task | undefined): void {
  const before = pinned.value;
  pinned.value = task;
  drop(before);
}

const recent = new TaskList({ state: "finished" }, 60);

function usePhotos() {
  useEffect(() => (allowed() ? recent.start() : undefined), []);
  const found = recent.items.value;
  useEffect(() => {
    if (!original.value || !found.some((task) => task.id === original.value?.id)) original.value = different(found)[0];
  }, [found]);
}

/** Photos that differ, not several results of one. */
function different(tasks: Task[]): Task[] {
  const seen = new Set<string>();
  return tasks.filter((task) => {
    const key = task.input?.digest ?? task.id;
    return seen.has(key) ? false : seen.add(key);
  });
}

function Choices() {
  const found = different(recent.items.value).slice(0, CHOICES);
  if (found.length === 0) return null;
  return (
    <div class="strip" role="group" aria-label={words.photo}>
      {found.map((task) => (
        <button
          key={task.id}
          aria-pressed={task.id === original.value?.id}
          aria-label={task.filename || task.id}
          onClick={() => (original.value = task)}
        >
          <Thumbnail src={renditionUrl(task.id)} alt="" />
          <Icon name="check" />
        </button>
      ))}
    </div>
  );
}
