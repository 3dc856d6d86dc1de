// The list of all tasks and their outcomes.

import { signal } from "@preact/signals";
import { useCallback, useEffect, useMemo } from "preact/hooks";
import { type StateName, stateName, type Task } from "../../api/api";
import { type Filter, fromQuery, isEmpty } from "../../api/filter";
import { ago, reason, stateLabel } from "../../format";
import { FilterBar } from "../../parts/filters";
import { Icon } from "../../parts/icons";
import { Loading } from "../../parts/reading";
import { SelectionBar } from "../../parts/selection";
import { attempt } from "../../state/messages";
import { Virtual } from "../../parts/virtual";
import { detail, link, query } from "../../router";
import { clear, isSelected, toggle } from "../../state/selection";
import { TaskList } from "../../state/tasks";
import { texts } from "../../texts";
import { actionsOf } from "./actions";
import { TaskPage } from "./task";

const words = texts.tasks;
const STATES: StateName[] = ["uploading", "waiting", "working", "finished", "failed", "quarantined", "cancelled"];
const ROW = 60;
const TALL_ROW = 96;
const NARROW = matchMedia("(max-width: 720px)");
/** Whether rows have more lines; that changes when a phone is turned or the page is zoomed. */
const narrow = signal(NARROW.matches);
NARROW.addEventListener("change", () => (narrow.value = NARROW.matches));

export function Tasks() {
  if (detail.value) return <TaskPage key={detail.value} id={detail.value} />;
  const filter = fromQuery(query.value);
  return (
    <section class="task-list" aria-labelledby="tasks">
      <div class="bar">
        <h1 id="tasks">{words.title}</h1>
      </div>
      <FilterBar view="tasks" filter={filter} states={STATES} />
      <List key={JSON.stringify(filter)} filter={filter} />
    </section>
  );
}

function List({ filter }: { filter: Filter }) {
  const list = useMemo(() => new TaskList(filter, 200), []);
  useEffect(() => {
    clear();
    return list.start();
  }, []);
  const more = useCallback(() => void list.more(), [list]);
  const items = list.items.value;
  const height = narrow.value ? TALL_ROW : ROW;
  return (
    <>
      <SelectionBar list={list} filter={filter} />
      {list.error.value && <p class="error">{list.error.value}</p>}
      {!list.loaded.value && !list.error.value && <Loading />}
      {list.loaded.value && items.length === 0 && <Nothing filter={filter} />}
      <div
        class="table"
        role="table"
        aria-label={words.title}
        aria-rowcount={list.complete.value ? items.length + 1 : -1}
        hidden={items.length === 0}
      >
        <Heading />
        <Virtual
          table
          rows={items.map((task) => ({
            key: task.id,
            height,
            render: () => <Cells task={task} list={list} />,
          }))}
          more={more}
          complete={list.complete.value}
        />
      </div>
    </>
  );
}

const Nothing = ({ filter }: { filter: Filter }) => (
  <div class="empty">
    <Icon name="tasks" />
    <p>{isEmpty(filter) ? words.empty : texts.filters.nothing}</p>
  </div>
);

const Heading = () => (
  <div role="rowgroup" class="heading">
    <div role="row" class="row" aria-rowindex={1}>
      <span role="columnheader" aria-label={words.columns.select} />
      <span role="columnheader">{words.columns.state}</span>
      <span role="columnheader">{words.columns.photo}</span>
      <span role="columnheader">{words.columns.outcome}</span>
      <span role="columnheader">{words.columns.changed}</span>
      <span role="columnheader" aria-label={words.columns.actions} />
    </div>
  </div>
);

function Cells({ task, list }: { task: Task; list: TaskList }) {
  const state = stateName(task.state);
  const name = task.filename || task.id;
  return (
    <>
      <span role="cell" class="check">
        <input
          type="checkbox"
          checked={isSelected(task)}
          aria-label={texts.photos.select(name)}
          onClick={(event) => toggle(task, list.items.value, event.shiftKey)}
        />
      </span>
      <span role="cell">
        <span class={`state ${state}`}>
          <i /> {stateLabel(state)}
        </span>
      </span>
      <span role="cell" class="photo">
        <a href={link("tasks", task.id)} title={name} dir="auto">
          {name}
        </a>
        <small class="quiet">
          {task.recipe}
          {task.batch ? ` · ${task.batch}` : ""}
        </small>
      </span>
      <span role="cell" class="why" title={reason(task)}>
        {reason(task)}
      </span>
      <span role="cell" class="quiet when">
        {ago(task.changed)}
      </span>
      <span role="cell" class="actions">
        <Actions task={task} name={name} list={list} />
      </span>
    </>
  );
}

const Actions = ({ task, name, list }: { task: Task; name: string; list: TaskList }) => (
  <>
    {actionsOf(stateName(task.state)).map((action) => (
      <button
        key={action.name}
        class="plain round"
        aria-label={`${texts.selection.actions[action.name]} ${name}`}
        title={texts.selection.actions[action.name]}
        onClick={() => void attempt(() => action.run(task, list))}
      >
        <Icon name={action.icon} />
      </button>
    ))}
  </>
);
