// The viewer of one photo, which steps through those of the gallery; a finished one is shown with its outputs.

import { useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import { deleteTask, getTask, State, type Task } from "../../api/api";
import { toQuery } from "../../api/filter";
import { reason } from "../../format";
import { shown } from "../../parts/dialog";
import { Icon } from "../../parts/icons";
import { Loading, useReading } from "../../parts/reading";
import { attempt } from "../../state/messages";
import { link, query, replace, useSubject } from "../../router";
import { may } from "../../state/session";
import type { TaskList } from "../../state/tasks";
import { texts } from "../../texts";
import { confirmDelete } from "../tasks/actions";
import { Finished } from "./finished";

const words = texts.viewer;
const AHEAD = 5;
/** Whether the gallery opened it, so that closing goes back to where the gallery was. */
const opened = { from: "" };
window.addEventListener("hashchange", (event) => {
  opened.from = event.oldURL.includes("#/photos/") ? opened.from : event.oldURL;
});

export function Viewer({ id, list }: { id: string; list: TaskList }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [found, setFound] = useState<Task | undefined>();
  const task = found?.id === id ? found : list.items.value.find((one) => one.id === id);
  const read = useCallback(() => getTask(id).then(setFound), [id]);
  const problem = useReading(read, { concerns: (event) => event.task === id, after: 0 });
  useLayoutEffect(() => {
    const close = shown(dialog.current!);
    dialog.current!.focus();
    return close;
  }, []);

  const place = placeOf(id, list);
  const drop = () => task && void dropTask(task, list, place.beside);
  const keys = (event: KeyboardEvent) => {
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
    if ((event.target as Element).closest("dialog") !== dialog.current) return; // in a dialog above
    if (event.key === "ArrowLeft") place.step(-1);
    if (event.key === "ArrowRight") place.step(1);
    if (event.key === "Delete" && may("operate")) drop();
  };
  const name = task?.filename || id;
  useSubject(name);
  // The dialog itself takes the focus, so that no key does anything that cannot be undone.
  return (
    <dialog ref={dialog} class="viewer" aria-label={name} tabIndex={-1} onCancel={(event) => event.target === dialog.current && (event.preventDefault(), close())} onKeyDown={keys}>
      <div class="head">
        <Title id={id} task={task} name={name} />
        <Actions place={place} drop={drop} />
      </div>
      {problem && <p class="error">{problem}</p>}
      {!task && !problem && <Loading />}
      {task?.state === State.finished && <Finished key={task.id} task={task} name={name} swipe={place.step} />}
      {task && task.state !== State.finished && <Unfinished task={task} />}
    </dialog>
  );
}

const Unfinished = ({ task }: { task: Task }) => (
  <p class="empty">
    {reason(task)} <a href={link("tasks", task.id, toQuery({}))}>{words.task}</a>
  </p>
);

/** Where a photo stands among the finished ones of a list. */
interface Place {
  isFirst: boolean;
  isLast: boolean;
  /** The one that is shown when this one is deleted. */
  beside: Task | undefined;
  step: (by: number) => void;
}

function placeOf(id: string, list: TaskList): Place {
  const items = list.items.value.filter((one) => one.state === State.finished);
  const place = items.findIndex((one) => one.id === id);
  const step = (by: number) => {
    const next = items[place + by];
    if (place >= 0 && next) show(next);
    if (place + by > items.length - AHEAD) void list.more();
  };
  return { isFirst: place <= 0, isLast: place < 0 || place >= items.length - 1, beside: items[place + 1] ?? items[place - 1], step };
}

const show = (task: Task) => replace("photos", task.id, query.value);

function close() {
  if (opened.from) {
    opened.from = "";
    history.back();
  } else replace("photos", "", query.value);
}

/** Delete a photo, once that is confirmed, and show the one beside it. */
async function dropTask(task: Task, list: TaskList, beside: Task | undefined) {
  if (!(await confirmDelete(task))) return;
  await attempt(async () => {
    await deleteTask(task.id);
    list.forget(task.id);
    if (beside) show(beside);
    else close();
  });
}

const Title = ({ id, task, name }: { id: string; task: Task | undefined; name: string }) => (
  <div>
    <h2 title={name} dir="auto">{name}</h2>
    <p class="quiet">
      {task && (
        <>
          {task.recipe} · {reason(task)} · <a href={link("tasks", id)}>{words.task}</a>
        </>
      )}
    </p>
  </div>
);

const Actions = ({ place, drop }: { place: Place; drop: () => void }) => (
  <span class="actions">
    <button class="plain round" aria-label={words.newer} disabled={place.isFirst} onClick={() => place.step(-1)}>
      <Icon name="left" />
    </button>
    <button class="plain round" aria-label={words.older} disabled={place.isLast} onClick={() => place.step(1)}>
      <Icon name="right" />
    </button>
    {may("operate") && (
      <button class="plain round" aria-label={texts.selection.actions.delete} onClick={drop}>
        <Icon name="trash" />
      </button>
    )}
    <button class="plain round" aria-label={words.close} onClick={close}>
      <Icon name="close" />
    </button>
  </span>
);
