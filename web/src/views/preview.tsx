// What the recipe makes of a photo, made by a worker like any other.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { deleteTask, preview, Problem, State, type Task, viewUrl } from "../api";
import { draft } from "../draft";
import { bytes, dimensions, kind, seconds } from "../format";
import { Compare } from "../parts/compare";
import { Icon } from "../parts/icons";
import { Picture } from "../parts/picture";
import { TaskList } from "../tasks";

const WAIT = 350;
const CHOICES = 12;

const photo = signal<Task | undefined>(undefined);
const made = signal<Task | undefined>(undefined);
const busy = signal(false);
const error = signal("");

export function Preview({ output }: { output: string }) {
  usePhotos();
  const spec = draft.value.outputs[output];
  const id = photo.value?.id;
  useEffect(() => {
    if (!id || !spec) return undefined;
    const leaving = new AbortController();
    const timer = window.setTimeout(() => void make(id, output, leaving.signal), WAIT);
    return () => {
      clearTimeout(timer);
      leaving.abort();
    };
  }, [id, output, JSON.stringify(spec), draft.value.auto_orient]);
  useEffect(() => () => keep(undefined), []);
  const result = made.value?.outputs[0];
  return (
    <section class="preview panel" aria-label="Preview">
      {made.value && result && photo.value ? (
        <Compare
          name={photo.value.filename}
          busy={busy.value}
          before={viewUrl(photo.value.id, undefined, "large")}
          after={viewUrl(made.value.id, result.name, "large")}
        />
      ) : (
        <div class={`compare ${busy.value ? "busy" : ""}`}>
          <p class="quiet">{photo.value ? "" : "Upload a photo to see what this recipe makes of it."}</p>
        </div>
      )}
      <p class="facts" role="status">
        {error.value ? (
          <span class="error">{error.value}</span>
        ) : result ? (
          [kind(result.media_type), dimensions(result.width, result.height), bytes(result.size), seconds(made.value!.seconds)]
            .filter(Boolean)
            .join(" · ")
        ) : busy.value ? (
          "Developing …"
        ) : (
          ""
        )}
      </p>
      <Choices />
    </section>
  );
}

/** Try the recipe with this one output; what was shown before is no longer needed. */
async function make(id: string, output: string, leaving: AbortSignal): Promise<void> {
  busy.value = true;
  try {
    const recipe = { ...draft.value, outputs: { [output]: draft.value.outputs[output]! } };
    const task = await preview(id, recipe, leaving);
    if (leaving.aborted) return void deleteTask(task.id).catch(() => undefined);
    error.value = task.state === State.finished ? "" : (task.failure?.detail ?? "The preview was not made.");
    if (task.state === State.finished) keep(task);
    else void deleteTask(task.id).catch(() => undefined);
  } catch (problem) {
    if (leaving.aborted) return;
    error.value = problem instanceof Problem ? problem.message : String(problem);
  }
  busy.value = false;
}

function keep(task: Task | undefined): void {
  const before = made.value;
  made.value = task;
  if (before) void deleteTask(before.id).catch(() => undefined);
}

const recent = new TaskList(["finished"], 60);

function usePhotos() {
  useEffect(() => recent.start(), []);
  const found = recent.items.value;
  useEffect(() => {
    if (!photo.value || !found.some((task) => task.id === photo.value?.id)) photo.value = different(found)[0];
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
    <div class="strip" role="group" aria-label="Photo for the preview">
      {found.map((task) => (
        <button
          key={task.id}
          aria-pressed={task.id === photo.value?.id}
          aria-label={task.filename || task.id}
          onClick={() => (photo.value = task)}
        >
          <Picture src={viewUrl(task.id)} alt="" />
          <Icon name="check" />
        </button>
      ))}
    </div>
  );
}
