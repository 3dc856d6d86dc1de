// One photo, large: before and after, its outputs, downloads.

import { useEffect, useRef, useState } from "preact/hooks";
import { deleteTask, getTask, originalUrl, resultUrl, State, type Task, viewUrl } from "../api";
import { bytes, dimensions, kind, plural, reason } from "../format";
import { Compare } from "../parts/compare";
import { confirmed } from "../parts/confirm";
import { Icon } from "../parts/icons";
import { attempt } from "../parts/toast";
import { go } from "../router";
import type { TaskList } from "../tasks";

export function Viewer({ id, list }: { id: string; list: TaskList }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [task, setTask] = useState<Task | undefined>(list.items.value.find((one) => one.id === id));
  useEffect(() => {
    if (!dialog.current?.open) dialog.current?.showModal();
    setTask(list.items.value.find((one) => one.id === id));
    void attempt(async () => setTask(await getTask(id)));
  }, [id]);

  const items = list.items.value;
  const place = items.findIndex((one) => one.id === id);
  const step = (by: number) => {
    const next = items[place + by];
    if (place >= 0 && next) go("photos", next.id);
    if (place + by > items.length - 5) void list.more();
  };
  const keys = (event: KeyboardEvent) => {
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  };
  const drop = async (name: string) => {
    if (!(await confirmed(`Delete ${name}?`, "The photo and everything that was made of it go.", "Delete"))) return;
    await attempt(async () => {
      await deleteTask(id);
      list.forget(id);
      go("photos");
    });
  };
  const name = task?.filename || id;
  return (
    <dialog ref={dialog} class="viewer" aria-label={name} onClose={() => go("photos")} onKeyDown={keys}>
      <div class="head">
        <div>
          <h2 title={name}>{name}</h2>
          <p class="quiet">{task ? `${task.recipe} · ${reason(task)}` : ""}</p>
        </div>
        <span class="actions">
          <button class="plain round" aria-label="Newer photo" disabled={place <= 0} onClick={() => step(-1)}>
            <Icon name="left" />
          </button>
          <button
            class="plain round"
            aria-label="Older photo"
            disabled={place < 0 || place >= items.length - 1}
            onClick={() => step(1)}
          >
            <Icon name="right" />
          </button>
          <button class="plain round" aria-label="Delete" onClick={() => void drop(name)}>
            <Icon name="trash" />
          </button>
          <button class="plain round" aria-label="Close" onClick={() => dialog.current?.close()}>
            <Icon name="close" />
          </button>
        </span>
      </div>
      {task?.state === State.finished && <Developed key={task.id} task={task} name={name} />}
      {task && task.state !== State.finished && <p class="empty">{reason(task)}</p>}
    </dialog>
  );
}

function Developed({ task, name }: { task: Task; name: string }) {
  const largest = task.outputs.reduce((best, output) => (output.width > best.width ? output : best), task.outputs[0]!);
  const [shown, setShown] = useState(largest?.name ?? "");
  return (
    <div class="developed">
      <Compare name={name} before={viewUrl(task.id, undefined, "large")} after={viewUrl(task.id, shown, "large")} />
      <div class="outputs">
        <h3>{plural(task.outputs.length, "output")}</h3>
        <ul>
          {task.outputs.map((output) => (
            <li key={output.name}>
              <label>
                <input type="radio" name="output" checked={output.name === shown} onChange={() => setShown(output.name)} />
                <span class="name">{output.name}</span>
                <span class="quiet">
                  {[kind(output.media_type), dimensions(output.width, output.height), bytes(output.size)]
                    .filter(Boolean)
                    .join(" · ")}
                  {output.frames > 1 ? ` · ${output.frames} frames` : ""}
                </span>
              </label>
              <a class="button plain round" href={resultUrl(task.id, output.name)} download aria-label={`Download ${output.name}`}>
                <Icon name="download" />
              </a>
            </li>
          ))}
          <li class="original">
            <span class="name">
              Original
              <span class="quiet">{task.input ? `${kind(task.media_type)} · ${bytes(task.input.size)}` : ""}</span>
            </span>
            <a class="button plain round" href={originalUrl(task.id)} download aria-label="Download the original">
              <Icon name="download" />
            </a>
          </li>
        </ul>
        {task.outputs.length > 1 && (
          <a class="button" href={`archive?tasks=${task.id}`} download>
            <Icon name="download" /> All outputs as ZIP
          </a>
        )}
      </div>
    </div>
  );
}
