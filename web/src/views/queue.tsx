// Every task and what becomes of it.

import { signal } from "@preact/signals";
import { useCallback, useEffect, useMemo } from "preact/hooks";
import { cancelTask, deleteTask, releaseTask, retryTask, type StateName, stateName, type Task } from "../api";
import { ago, reason, stateWord } from "../format";
import { confirmed } from "../parts/confirm";
import { Icon, type IconName } from "../parts/icons";
import { attempt } from "../parts/toast";
import { Virtual } from "../parts/virtual";
import { link } from "../router";
import { TaskList } from "../tasks";

const FILTERS: { name: string; states: StateName[] }[] = [
  { name: "All", states: [] },
  { name: "Under way", states: ["uploading", "waiting", "working"] },
  { name: "Finished", states: ["finished"] },
  { name: "Failed", states: ["failed"] },
  { name: "Quarantined", states: ["quarantined"] },
  { name: "Cancelled", states: ["cancelled"] },
];
const filter = signal(0);

export function Queue() {
  const list = useMemo(() => new TaskList(FILTERS[filter.value]!.states, 200), [filter.value]);
  useEffect(() => list.start(), [list]);
  const more = useCallback(() => void list.more(), [list]);
  const items = list.items.value;
  return (
    <section class="queue" aria-labelledby="tasks">
      <div class="bar">
        <h1 id="tasks">Tasks</h1>
        <span class="filters" role="group" aria-label="Show">
          {FILTERS.map((one, place) => (
            <button key={one.name} aria-pressed={place === filter.value} onClick={() => (filter.value = place)}>
              {one.name}
            </button>
          ))}
        </span>
      </div>
      {list.error.value && <p class="error">{list.error.value}</p>}
      {list.loaded.value && items.length === 0 && (
        <div class="empty">
          <Icon name="tasks" />
          <p>No tasks here.</p>
        </div>
      )}
      <div
        class="table"
        role="table"
        aria-label={`${FILTERS[filter.value]!.name} tasks`}
        aria-rowcount={list.complete.value ? items.length + 1 : -1}
        hidden={items.length === 0}
      >
        <div role="rowgroup" class="heading">
          <div role="row" class="row" aria-rowindex={1}>
            <span role="columnheader">State</span>
            <span role="columnheader">Photo</span>
            <span role="columnheader">What happened</span>
            <span role="columnheader">Changed</span>
            <span role="columnheader" aria-label="Actions" />
          </div>
        </div>
        <Virtual items={items} keyOf={(task) => task.id} row={(task) => <Cells task={task} list={list} />} more={more} />
      </div>
    </section>
  );
}

function Cells({ task, list }: { task: Task; list: TaskList }) {
  const state = stateName(task.state);
  const name = task.filename || task.id;
  return (
    <>
      <span role="cell">
        <span class={`state ${state}`}>
          <i /> {stateWord(state)}
        </span>
      </span>
      <span role="cell" class="photo">
        {state === "finished" ? <a href={link("photos", task.id)}>{name}</a> : <b title={name}>{name}</b>}
        <small class="quiet">{task.recipe}</small>
      </span>
      <span role="cell" class="why" title={reason(task)}>
        {reason(task)}
      </span>
      <span role="cell" class="quiet when">
        {ago(task.changed)}
      </span>
      <span role="cell" class="actions">
        {actions(state).map((action) => (
          <button
            key={action.word}
            class="plain round"
            aria-label={`${action.word} ${name}`}
            title={action.word}
            onClick={() => void attempt(() => action.run(task, list))}
          >
            <Icon name={action.icon} />
          </button>
        ))}
      </span>
    </>
  );
}

interface Action {
  word: string;
  icon: IconName;
  run: (task: Task, list: TaskList) => Promise<void>;
}
const changing = (word: string, icon: IconName, call: (id: string) => Promise<Task>): Action => ({
  word,
  icon,
  run: async (task, list) => list.put(await call(task.id)),
});
const CANCEL = changing("Cancel", "close", cancelTask);
const RETRY = changing("Retry", "retry", retryTask);
const RELEASE = changing("Release", "release", releaseTask);
export const DROP: Action = {
  word: "Delete",
  icon: "trash",
  run: async (task, list) => {
    const name = task.filename || task.id;
    if (!(await confirmed(`Delete ${name}?`, "The photo and everything that was made of it go.", "Delete"))) return;
    await deleteTask(task.id);
    list.forget(task.id);
  },
};

function actions(state: StateName): Action[] {
  switch (state) {
    case "waiting":
    case "working":
    case "uploading":
      return [CANCEL];
    case "quarantined":
      return [RELEASE, DROP];
    case "finished":
      return [DROP];
    default:
      return [RETRY, DROP];
  }
}
